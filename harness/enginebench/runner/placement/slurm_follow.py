"""Submits units to Slurm, follows their jobs, collects what they store, and says why a job ended that did not end in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginebench.errors import UserError
from enginebench.runner.placement import slurm_array
from enginebench.runner.placement import slurm_commands as slurm
from enginebench.runner.placement.base import Intake
from enginebench.runner.placement.slurm_array import Array, Element
from enginebench.runner.placement.slurm_script import arrays
from enginebench.runner.placement.unit_data import Unit

MOST_TRIES = 3
"""Jobs for a unit that lose their node one after another."""
LAST_FILE_S = 60.0
"""How long the last file of a job that completed may take to be seen here: network file systems look again after up to a minute."""
FULL_PAUSE_S = 30.0
"""Between two tries to submit to a queue that is full, unless a job ends."""
END_S = 45.0
"""What cancelled jobs may take to end: Slurm's KillWait, half a minute, and more."""


class Follower:
    """The jobs of one run."""

    def __init__(self, intake: Intake, shared: Path, settings: Mapping[str, str], most: int, *, devices: bool) -> None:
        """most: elements that an array may have. devices: whether every node has GPUs."""
        self._intake, self._shared, self._settings, self._most, self._devices = intake, shared, settings, most, devices
        self._poll_s = float(settings.get("poll_s") or 5)
        self._todo: list[Unit] = []
        self._arrays: list[Array] = []
        self._tries: dict[str, int] = {}
        self._full_until = 0.0
        self._told_full = False
        self._submitted = False
        self._silent = False

    def run(self, units: Sequence[Unit]) -> None:
        """Run all of them. KeyboardInterrupt cancels the jobs, and stores what they have written until then."""
        list(arrays(units, self._most, devices=self._devices))  # a unit that no array can hold is refused before any is submitted
        try:
            self._todo = self._adopt(units)
            while self._todo or self._arrays:
                self._submit()
                for array in list(self._arrays):
                    self._look(array)
                if self._todo or self._arrays:
                    time.sleep(self._poll_s)
        except BaseException:
            self._cancel()
            raise

    # -- what an earlier driver has left -------------------------------------------------------------------------------------------

    def _adopt(self, units: Sequence[Unit]) -> list[Unit]:
        """Collect from arrays of the same run, follow those that still run, and return the units that have to be submitted."""
        waiting = {unit.launch_id: unit for unit in units}
        for array in slurm_array.found(self._shared, units[0].run) if units else ():
            known = slurm.tasks(array.job) if array.job else {}
            for element in list(array.elements):
                task, key = known.get(element.index), element.unit.launch_id
                element.collect(self._intake)
                if key in waiting and task is not None and task.active:
                    del waiting[key]
                else:
                    array.end(element)
            if array.elements:
                self._arrays.append(array)
        if self._arrays:
            self._submitted = True
            self._intake.say(slurm_array.told(self._arrays))
        left = {unit.id: self._intake.left(unit) for unit in waiting.values()}
        for unit in waiting.values():
            if left[unit.id] is None:
                self._intake.ended(unit)
        return [each for unit in waiting.values() if (each := left[unit.id]) is not None]

    # -- submission ----------------------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """Submit as many arrays as the queue takes."""
        while self._todo and time.monotonic() >= self._full_until:
            what, units = next(arrays(self._todo, self._most, devices=self._devices))
            array = slurm_array.make(self._shared, what, units, self._settings)
            try:
                array.submit()
            except slurm.SlurmError as error:
                array.remove()
                if not any(part in error.message for part in slurm.QUEUE_FULL):
                    self._refused(units, error)
                elif len(units) > 1:
                    self._most = -(-len(units) // 2)
                    continue
                else:
                    self._wait(error)
                    return
            else:
                self._submitted = True
                self._arrays.append(array)
                self._intake.say(f"submitted job {array.job}: {len(units)} of {len(self._todo)} units")
            self._todo = self._todo[len(units) :]

    def _wait(self, error: slurm.SlurmError) -> None:
        if not self._told_full:
            self._intake.say(f"the queue is full ({error.message}); {len(self._todo)} units wait for room in it")
        self._told_full = True
        self._full_until = time.monotonic() + FULL_PAUSE_S

    def _refused(self, units: Sequence[Unit], error: slurm.SlurmError) -> None:
        """What is refused before anything was submitted is a mistake in the command; later, it costs these units."""
        if not self._submitted:
            raise slurm.SlurmError(
                slurm.explained(error.message), advice="see what the cluster has with: bench doctor --on slurm"
            ) from None
        for unit in units:
            self._intake.ended(unit, error.message)

    # -- following -----------------------------------------------------------------------------------------------------------------

    def _look(self, array: Array) -> None:
        try:
            known = slurm.tasks(array.job)
        except slurm.SlurmError as error:
            if not self._silent:
                self._intake.say(f"{error.message}; the jobs go on, and are looked at again every {self._poll_s:g} s")
            self._silent = True
            for element in array.elements:
                element.collect(self._intake)
            return
        self._silent = False
        for element in list(array.elements):
            task = known.get(element.index) or self._forgotten(element)
            element.collect(self._intake)
            if not element.begun and task.nodes and task.state != "PENDING":
                element.begun = True
                self._intake.started(element.unit, task.nodes)
            if not task.active:
                self._ended(element, task)
            elif task.state == "PENDING":
                self._pending(element, task)
        if not array.elements:
            self._arrays.remove(array)

    def _forgotten(self, element: Element) -> slurm.Task:
        return slurm.Task(element.index, slurm.state_in_accounts(element.array.job, element.index) or "UNKNOWN", "", "", "")

    def _pending(self, element: Element, task: slurm.Task) -> None:
        """Tell why it waits, once for each reason; end it if it would wait for ever."""
        if task.reason in slurm.NEVER:
            slurm.cancel([element.job])
            self._end(element, f"Slurm job {element.job} can never start as it was submitted: {task.reason}")
        elif task.reason != element.waits and task.reason not in ("None", "Priority", "Resources", "JobArrayTaskLimit", "Dependency"):
            element.waits = task.reason
            if element is element.array.elements[0]:  # the others wait for the same
                self._intake.say(f"Slurm job {element.job} ({element.unit.name}) waits: {task.reason}")

    def _ended(self, element: Element, task: slurm.Task) -> None:
        problem = element.ended()
        if problem is None and task.state == "COMPLETED":  # its last file is not seen here yet
            element.gone_s = element.gone_s or time.monotonic()
            if time.monotonic() - element.gone_s < LAST_FILE_S:
                return
        element.collect(self._intake)
        if problem is not None:  # the driver has read why from that file
            element.array.keep = element.array.keep or bool(problem)
            self._end(element)
            return
        left = self._intake.left(element.unit)
        if left is None:
            self._end(element)
        elif self._again(element, task, left):
            self._intake.say(f"{_how(element, task)}; the cells that are left ({len(left.loads)}) are submitted again")
            element.array.end(element)
            self._todo.insert(0, left)
            self._full_until = 0.0
        else:
            self._end(element, _how(element, task) + self._hint(element, task))

    def _again(self, element: Element, task: slurm.Task, left: Unit) -> bool:
        """Whether another job may get further: the node was lost, or the time limit was reached after some cells."""
        key = left.launch_id
        if task.state == "TIMEOUT":
            return len(left.loads) < len(element.unit.loads)
        if task.state not in slurm.LOST:
            return False
        self._tries[key] = self._tries.get(key, 0) + 1
        return self._tries[key] < MOST_TRIES

    def _hint(self, element: Element, task: slurm.Task) -> str:
        if task.state == "TIMEOUT":
            return " before a cell was measured; allow more with --place time=..."
        if task.state in ("FAILED", "OUT_OF_MEMORY", "UNKNOWN", "COMPLETED"):
            words = element.last_words()
            return f": {words}" if words else f"; see {element.array.log(element.index)}"
        return ""

    def _end(self, element: Element, problem: str = "") -> None:
        element.array.keep = element.array.keep or bool(problem)
        element.array.end(element)
        self._full_until = 0.0
        self._intake.ended(element.unit, problem)

    # -- the end -------------------------------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        """Cancel what is in the queue, wait until it has ended, and store what it wrote."""
        try:
            jobs = [array.job for array in self._arrays]
            slurm.cancel(jobs)
            until = time.monotonic() + END_S
            while time.monotonic() < until and any(task.active for job in jobs for task in slurm.tasks(job).values()):
                time.sleep(min(1.0, self._poll_s))
        except UserError as error:
            self._intake.say(f"jobs may still be in the queue: {error.message}")
        for array in self._arrays:
            for element in list(array.elements):
                element.collect(self._intake)
                array.end(element)


_WORDS = {
    "CANCELLED": "was cancelled",
    "TIMEOUT": "reached its time limit of {limit}",
    "DEADLINE": "reached its deadline",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "lost its node, which did not boot",
    "PREEMPTED": "was preempted by another job",
    "OUT_OF_MEMORY": "was ended because it used more memory than it had asked for",
    "FAILED": "failed",
    "COMPLETED": "ended without its last file",
    "UNKNOWN": "is not known to Slurm any more, and has not ended in order",
}


def _how(element: Element, task: slurm.Task) -> str:
    """How a job ended, in words."""
    words = _WORDS.get(task.state, f"ended as {task.state}").format(limit=task.limit)
    return f"Slurm job {element.job}{f' on {task.nodes}' if task.nodes else ''} {words}"
