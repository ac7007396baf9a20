"""`--on ray://HOST:PORT`, `--on ray` (the cluster of this machine) and `--on local-ray`: every unit is a Ray task.

Ray places: a task asks for all cores of a node (`exclusive`), or for some, for GPUs, and for one of the nodes that fit it. What a node
stores comes back through an actor on the head node. A unit whose node is lost is tried again, without the cells that are stored.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self
from urllib.parse import urlsplit

from enginebench.errors import UserError
from enginebench.records.schema import dump
from enginebench.runner.placement import ray_task
from enginebench.runner.placement.base import Choice, Intake, Node, Placement
from enginebench.runner.placement.demand import Demand, demands_of, next_of
from enginebench.runner.placement.fitting import choice_of
from enginebench.runner.placement.ray_nodes import HEAD, ON_NODE, Fleet
from enginebench.runner.placement.unit_data import Unit
from enginebench.runner.placement.unit_process import UnitLost

MOST_TRIES = 3
"""A unit is given up when so many nodes were lost under it."""
POLL_S = 0.5
CONNECTS = 3
FLEET_S = 2.0
"""How often it is checked which nodes are alive."""


@dataclass
class _Job:
    """A unit that Ray has."""

    unit: Unit
    demand: Demand
    node: str | None = None
    """Where it runs; None: it waits for a free node."""
    ended: bool = False
    group: Any = None
    """The placement group of an engine over several nodes."""
    ranks: list[Any] = field(default_factory=list)
    """References of the tasks of its further nodes."""
    why: str = ""
    """What one of them said."""


@dataclass
class _Work:
    """The units of one run."""

    waiting: list[Unit]
    jobs: dict[Any, _Job] = field(default_factory=dict)
    """Reference of a task -> what it measures."""
    tries: Counter[str] = field(default_factory=Counter)
    demands: dict[str, Sequence[Demand]] = field(default_factory=dict)
    """Id of a unit -> what it can be started with on the nodes that are known; empty after a node was lost."""

    def job_of(self, unit_id: str) -> _Job | None:
        return next((job for job in self.jobs.values() if job.unit.id == unit_id), None)


class RayPlacement(Placement):
    """A Ray cluster."""

    names = ("ray", "local-ray")
    spans_nodes = True

    def __enter__(self) -> Self:
        if find_spec("ray") is None:
            raise UserError(f"--on {self.on} needs Ray", advice="pip install 'enginebench[ray]'")
        os.environ.setdefault(*_PATIENCE)
        ray: Any = import_module("ray")
        address = {"local-ray": "local", "ray": "auto"}.get(self.on, self.on)
        local = {"include_dashboard": False} if address == "local" else {}
        try:
            _knock(address)
            _connect(ray, address=address, log_to_driver=False, logging_level="error", configure_logging=False, **local)
        except Exception as error:  # noqa: BLE001  # of several kinds, and a plain Exception where a node of its own does not start
            said = str(error).strip().splitlines() or [type(error).__name__]
            reason = said[-1] if said[0].endswith(":") else said[0]
            if local:
                raise UserError(f"no Ray cluster could be started here: {reason}") from None
            raise UserError(f"no Ray cluster answers at {self.on}: {reason}", advice=_ADVICE) from None
        self._ray = ray
        self._fleet = Fleet(ray)
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def nodes(self) -> Sequence[Node]:
        """Every node of the cluster that is alive, with what it says of itself."""
        return self._fleet.nodes()

    def choices(self, units: Sequence[Unit]) -> Sequence[Choice]:
        """The nodes that fit each unit."""
        nodes = self.nodes()
        return [choice_of(unit, nodes) for unit in units]

    def install(self, engine: str) -> dict[str, str]:
        """Install an engine on every node; name of a node -> what is there then. UserError with every node where it failed, and why."""
        task = self._ray.remote(num_cpus=0, max_retries=0)(ray_task.install)
        pending = {node.name: self._on(task, node.name).remote(engine) for node in self.nodes() if not node.problem}
        done: dict[str, str] = {}
        failed: dict[str, list[str]] = {}
        for name, ref in pending.items():
            try:
                done[name] = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError as error:  # the UserError of the node
                failed.setdefault(_last_line(error.cause), []).append(name)
            except self._ray.exceptions.RayError as error:
                failed.setdefault(_last_line(error), []).append(name)
        if failed:
            reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in failed.items())
            others = f"; it is on {', '.join(done)}" if done else ""
            raise UserError(f"{engine} is not on every node: {reasons}{others}")
        return done

    def run(self, units: Sequence[Unit], intake: Intake) -> None:
        """See `Placement`."""
        work = _Work(list(units))
        mailbox = self._ray.remote(num_cpus=0, resources={HEAD: 0.001})(ray_task.Mailbox).remote()
        looked = time.monotonic()
        try:
            while work.waiting or work.jobs:
                self._hand_over(work, mailbox, intake)
                self._take(work, mailbox, intake, POLL_S)
                self._reap(work, mailbox, intake)
                if time.monotonic() - looked > FLEET_S:
                    looked = time.monotonic()
                    self._look_for_lost_nodes(work, intake)
        finally:
            self._cancel(work.jobs)
            self._ray.kill(mailbox)

    # -- one turn ----------------------------------------------------------------------------------------------------------------

    def _hand_over(self, work: _Work, mailbox: Any, intake: Intake) -> None:
        """Give Ray what it may have now."""
        waiting = self._placeable(work, intake)
        while waiting:
            queued = {job.demand for job in work.jobs.values() if job.node is None}
            busy = Counter(job.node for job in work.jobs.values() if job.node is not None)
            if (found := next_of(waiting, queued, busy)) is None:
                return
            place, demand = found
            unit, _ = waiting.pop(place)
            work.waiting.remove(unit)
            job = _Job(unit, demand, group=self._group(demand))
            task = self._place(ray_task.measure, job, 0)
            work.jobs[task.remote(dump(unit), self._fleet.names, mailbox)] = job

    def _placeable(self, work: _Work, intake: Intake) -> list[tuple[Unit, Sequence[Demand]]]:
        """The units that wait, with their demands; those that no node fits any more end."""
        nodes = {node.name: node for node in self._fleet.known()}
        for unit in [each for each in work.waiting if each.id not in work.demands]:
            choice = choice_of(unit, list(nodes.values()))
            if choice.nodes:
                work.demands[unit.id] = demands_of(unit, [nodes[name] for name in choice.nodes])
            else:
                work.waiting.remove(unit)
                intake.ended(unit, f"no node fits any more: {choice.why_not}")
        return [(unit, work.demands[unit.id]) for unit in work.waiting]

    def _among(self, demand: Demand) -> dict[str, str]:
        return {ON_NODE: f"in({','.join(self._fleet.id_of(name) for name in demand.nodes)})"}

    def _group(self, demand: Demand) -> Any:
        """A node for each bundle; None where one node is enough."""
        if demand.count == 1:
            return None
        bundle = {"CPU": demand.cores} | ({"GPU": demand.gpus} if demand.gpus else {})
        util: Any = import_module("ray.util")
        return util.placement_group(
            [bundle] * demand.count, strategy="STRICT_SPREAD", bundle_label_selector=[self._among(demand)] * demand.count
        )

    def _place(self, task: Any, job: _Job, rank: int) -> Any:
        """A task with the resources of a job, on its node of this rank."""
        demand, where = job.demand, {"label_selector": self._among(job.demand)}
        if job.group is not None:
            strategies: Any = import_module("ray.util.scheduling_strategies")
            where = {"scheduling_strategy": strategies.PlacementGroupSchedulingStrategy(job.group, placement_group_bundle_index=rank)}
        name = job.unit.name if not rank else f"{job.unit.name}, rank {rank}"
        return self._ray.remote(task).options(num_cpus=demand.cores, num_gpus=demand.gpus, max_retries=0, name=name, **where)

    def _release(self, job: _Job) -> None:
        """Give back the nodes of a job that has ended."""
        if job.group is not None:
            import_module("ray.util").remove_placement_group(job.group)

    def _take(self, work: _Work, mailbox: Any, intake: Intake, patience_s: float) -> None:
        """Store what has come."""
        for unit_id, kind, content in self._ray.get(mailbox.take.remote(patience_s)):
            if (job := work.job_of(unit_id)) is None:
                continue
            if kind == "started":
                job.node = self._fleet.names.get(content, content)
                intake.started(job.unit, job.node)
            elif kind == "meeting":
                ranks = range(1, job.demand.count)
                job.ranks = [
                    self._place(ray_task.join, job, rank).remote(dump(job.unit), self._fleet.names, rank, content) for rank in ranks
                ]
            elif kind == "files":
                intake.store(job.unit, content)
            else:
                job.ended = True
                intake.ended(job.unit, content)

    def _reap(self, work: _Work, mailbox: Any, intake: Intake) -> None:
        """Forget the tasks that have ended; a unit that was lost is tried again."""
        done, _ = self._ray.wait(list(work.jobs), num_returns=len(work.jobs), timeout=0) if work.jobs else ([], [])
        if done:
            self._take(work, mailbox, intake, 0.01)  # what they sent before they ended
        self._look_at_ranks(work)
        for ref in done:
            job = work.jobs.pop(ref)
            self._release(job)
            try:
                self._ray.get(ref)
                why = "" if job.ended else "its task ended without a word"
            except UnitLost as error:  # as Ray raises it, with what was raised there
                why = str(getattr(error, "cause", error))
            except self._ray.exceptions.RayTaskError as error:
                why = job.why
                if not why:  # of ours: another node would not do better
                    job.ended = True
                    intake.ended(job.unit, _last_line(error))
                    continue
            except self._ray.exceptions.RayError as error:
                why = (str(error).strip().splitlines() or ["?"])[0]
            if why and not job.ended:
                self._again(work, job, job.why or why, intake)

    def _look_at_ranks(self, work: _Work) -> None:
        """A further node that could not come would be waited for in vain."""
        for ref, job in work.jobs.items():
            done, job.ranks = self._ray.wait(job.ranks, num_returns=len(job.ranks), timeout=0) if job.ranks else ([], [])
            for rank in done:
                try:
                    said = self._ray.get(rank)
                except self._ray.exceptions.RayError as error:
                    said = (str(error).strip().splitlines() or ["?"])[0]
                if said and not job.ended and not job.why:
                    job.why = said
                    self._ray.cancel(ref, force=False)

    def _again(self, work: _Work, job: _Job, why: str, intake: Intake) -> None:
        key = job.unit.launch_id
        work.tries[key] += 1
        left = intake.left(job.unit)
        where = f"on {job.node} " if job.node else ""
        if left is None:
            intake.ended(job.unit)
        elif work.tries[key] >= MOST_TRIES:
            intake.ended(job.unit, f"given up after {MOST_TRIES} tries: {why}")
        else:
            intake.say(f"{job.unit.name}: lost {where}({why}); {len(left.loads)} cells are tried again")
            work.waiting.insert(0, left)

    def _look_for_lost_nodes(self, work: _Work, intake: Intake) -> None:
        """After a change of the cluster, what waits for a node that is gone is handed over anew."""
        if not (lost := self._fleet.refresh()):
            return
        intake.say(f"lost: {', '.join(lost)}")
        work.demands.clear()
        stuck = {ref: job for ref, job in work.jobs.items() if job.node is None}
        self._cancel(stuck)
        for ref, job in reversed(stuck.items()):
            del work.jobs[ref]
            # a new id: of what still comes from the canceled task nothing is taken
            work.waiting.insert(0, replace(job.unit, id=job.unit.next_id))

    def _cancel(self, jobs: dict[Any, _Job]) -> None:
        for ref, job in jobs.items():
            self._ray.cancel(ref, force=False)
            self._release(job)

    def _on(self, task: Any, name: str) -> Any:
        return task.options(label_selector={ON_NODE: self._fleet.id_of(name)})


def _last_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["?"])[-1]


def _connect(ray: Any, **how: Any) -> None:
    """`ray.init`, again where the head node was too busy to start a server for this client in Ray's own time."""
    for left in reversed(range(CONNECTS)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(**how)
        except RuntimeError as error:
            if not left or "Starting Ray client server failed" not in str(error):
                raise
        else:
            return


def _knock(address: str) -> None:
    """Whether something listens at a client's port, before Ray's own client waits half a minute for it. OSError if not."""
    where = urlsplit(address)
    if where.scheme == "ray" and where.hostname and where.port:
        socket.create_connection((where.hostname, where.port), timeout=10).close()


_PATIENCE = ("RAY_raylet_start_wait_time_s", "180")
"""Ray's own variable: how long a cluster of this machine may take to start. Its default of 30 s is too short on a busy machine."""
_ADVICE = "start one with: ray start --head --ray-client-server-port 10001 (see docs/clusters.md)"
PLACEMENT = RayPlacement
