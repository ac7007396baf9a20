"""Creates a Job for each unit, follows its pod, fetches what the client has stored, and says why a pod ended that did not end in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enginebench.domain.formatting import counted
from enginebench.errors import UserError
from enginebench.runner.placement.base import Intake
from enginebench.runner.placement.k8s_commands import Kubectl, KubectlError
from enginebench.runner.placement.k8s_manifest import INTO, SHARED, label, name_of
from enginebench.runner.placement.unit_data import ENDED, Unit, parse_unit
from enginebench.runner.placement.unit_files import KNOWN

GONE_S = 30.0
"""How long a job may be missing after it was created."""
MOST_TRIES = 3
"""Pods for a unit that are lost one after another."""
HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
"""Why a container waits that will not start."""
PULL_S = 300.0
"""How long a failing pull of an image is tried again."""


@dataclass(eq=False)
class Followed:
    """A unit in the cluster."""

    unit: Unit
    begun: bool = False
    waits: str = ""
    since: float = field(default_factory=time.monotonic)
    """When it was created, or began to wait for what it waits for."""
    known: dict[str, Sequence[int]] = field(default_factory=dict)
    """Its files that were fetched."""
    ended: bool = False
    """Whether its last file was fetched."""

    @property
    def name(self) -> str:
        return name_of(self.unit)


class Follower:
    """The jobs of one run."""

    def __init__(
        self, kubectl: Kubectl, intake: Intake, manifest: Callable[[Unit], Sequence[Mapping[str, Any]]], most: int, poll_s: float
    ) -> None:
        self._kubectl, self._intake, self._manifest, self._most, self._poll_s = kubectl, intake, manifest, most, poll_s
        self._todo: list[Unit] = []
        self._there: dict[str, Followed] = {}
        self._lost: dict[str, int] = {}
        self._silent = False

    def run(self, units: Sequence[Unit]) -> None:
        """Run all of them. KeyboardInterrupt deletes the jobs when what they have stored was fetched."""
        if not units:
            return
        for unit in units:
            self._manifest(unit)  # one that cannot be sent is refused before any is
        run = label(units[0].run)
        self._todo = self._adopt(units, run)
        try:
            while self._todo or self._there:
                self._create()
                self._look(run)
                if self._todo or self._there:
                    time.sleep(self._poll_s)
        except BaseException:
            self._delete_all()
            raise

    def _adopt(self, units: Sequence[Unit], run: str) -> list[Unit]:
        """Follow what an earlier driver of this run has left, and return the units that have to be created."""
        waiting = {unit.launch_id: unit for unit in units}
        for each in self._kubectl.objects("configmaps", run):
            unit = _unit(each["data"]["unit.json"])
            if unit is None or waiting.pop(unit.launch_id, None) is None:
                self._kubectl.delete([each["metadata"]["name"]])
            else:
                self._there[name_of(unit)] = Followed(unit)
        if self._there:
            self._intake.say(f"following {counted(len(self._there), 'job')} of an earlier session")
        return list(waiting.values())

    def _create(self) -> None:
        while self._todo and len(self._there) < self._most:
            unit = self._todo[0]
            self._kubectl.create(self._manifest(unit))
            self._todo.pop(0)
            self._there[name_of(unit)] = Followed(unit)

    # -- following -----------------------------------------------------------------------------------------------------------------

    def _look(self, run: str) -> None:
        try:
            pods = {pod["metadata"]["labels"].get("job-name"): pod for pod in self._kubectl.objects("pods", run)}
            jobs = {job["metadata"]["name"]: job for job in self._kubectl.objects("jobs", run)}
        except KubectlError as error:
            if not self._silent:
                self._intake.say(f"{error.message}; the jobs go on, and are looked at again every {self._poll_s:g} s")
            self._silent = True
            return
        self._silent = False
        for name, followed in list(self._there.items()):
            self._step(followed, pods.get(name), jobs.get(name))

    def _step(self, followed: Followed, pod: Mapping[str, Any] | None, job: Mapping[str, Any] | None) -> None:
        client = _container(pod, "client")
        if pod is not None and "running" in client:
            if not followed.begun:
                followed.begun = True
                self._intake.started(followed.unit, pod["spec"].get("nodeName", ""))
            self._fetch(followed, pod["metadata"]["name"])
            if followed.ended:
                self._kubectl.touch(pod["metadata"]["name"], f"{SHARED}/collected")
                self._end(followed)
        elif pod is not None and "terminated" in client:
            self._terminated(followed, pod, client["terminated"])
        elif pod is not None and pod["status"].get("phase") in ("Failed", "Unknown"):
            self._again(followed, f"its pod was lost ({pod['status'].get('reason') or pod['status']['phase']})")
        elif failure := _failure(job):
            self._end(followed, f"Kubernetes ended its job: {failure}")
        elif pod is not None:
            self._waits(followed, pod)
        elif followed.begun or (job is None and time.monotonic() - followed.since > GONE_S):
            self._again(followed, "its pod is gone")

    def _fetch(self, followed: Followed, pod: str) -> None:
        try:
            files = self._kubectl.files(pod, INTO, followed.known)
        except KubectlError:  # it may be ending
            return
        followed.known = json.loads(files.pop(KNOWN, b"{}")) or followed.known
        if files:
            self._intake.store(followed.unit, files)
        followed.ended = followed.ended or ENDED in files

    def _terminated(self, followed: Followed, pod: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """The client has ended before its results were fetched, or was ended."""
        if state.get("reason") == "OOMKilled":
            self._end(followed, "the client used more memory than its container had")
        elif state.get("exitCode") in (137, 143):  # killed from outside: an eviction, a preemption, a node that is shut down
            self._again(followed, f"its pod was ended ({pod['status'].get('reason') or 'signal ' + str(state['exitCode'] - 128)})")
        else:
            words = self._kubectl.last_words(pod["metadata"]["name"])
            self._end(followed, f"the client ended with exit code {state.get('exitCode')}{f': {words}' if words else ''}")

    def _again(self, followed: Followed, why: str) -> None:
        left = self._intake.left(followed.unit)
        if left is None:
            self._end(followed)
            return
        key = left.launch_id
        self._lost[key] = self._lost.get(key, 0) + 1
        if self._lost[key] >= MOST_TRIES:
            self._end(followed, f"{why}, {MOST_TRIES} times one after another")
            return
        self._intake.say(f"{followed.unit.name}: {why}; the cells that are left ({len(left.loads)}) are tried again")
        self._remove(followed)
        self._todo.insert(0, left)

    def _waits(self, followed: Followed, pod: Mapping[str, Any]) -> None:
        """Tell why it waits, once for each reason; end it if it would wait for ever."""
        kind, text = waiting_for(pod)
        if kind != followed.waits:
            followed.waits, followed.since = kind, time.monotonic()
            if kind not in ("", "ContainerCreating", "PodInitializing"):
                self._intake.say(f"{followed.unit.name} waits: {text}")
        pulls = kind in ("ErrImagePull", "ImagePullBackOff") and time.monotonic() - followed.since > PULL_S
        if kind in HOPELESS or pulls:
            self._end(followed, f"its pod cannot start: {text}")
        elif kind == "ErrImagePull":
            followed.waits = "ImagePullBackOff"  # the two take turns

    # -- the end -------------------------------------------------------------------------------------------------------------------

    def _end(self, followed: Followed, problem: str = "") -> None:
        self._remove(followed)
        self._intake.ended(followed.unit, problem)

    def _remove(self, followed: Followed) -> None:
        del self._there[followed.name]
        self._kubectl.delete([followed.name])

    def _delete_all(self) -> None:
        try:
            self._kubectl.delete(list(self._there))
        except UserError as error:
            self._intake.say(f"jobs may still be in the cluster: {error.message}")


def _unit(text: str) -> Unit | None:
    """None: of another version of enginebench."""
    try:
        return parse_unit(text)
    except UserError:
        return None


def _container(pod: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """The state of a container: 'waiting', 'running' or 'terminated' -> more of it."""
    statuses = pod["status"].get("containerStatuses", ()) if pod is not None else ()
    return next((each["state"] for each in statuses if each["name"] == name), {})


def _failure(job: Mapping[str, Any] | None) -> str:
    """Why Kubernetes has given a job up; empty if it has not."""
    conditions = job["status"].get("conditions", ()) if job is not None else ()
    return next(
        (each.get("message") or each.get("reason", "") for each in conditions if each["type"] == "Failed" and each["status"] == "True"), ""
    )


def waiting_for(pod: Mapping[str, Any]) -> tuple[str, str]:
    """A word and a sentence for what keeps a pod from running; two empty texts if nothing is known of it."""
    for each in pod["status"].get("containerStatuses", ()):
        if waiting := each["state"].get("waiting"):
            return waiting.get("reason", ""), waiting.get("message") or waiting.get("reason", "")
    for condition in pod["status"].get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition.get("reason", ""), condition.get("message") or condition.get("reason", "")
    return "", ""
