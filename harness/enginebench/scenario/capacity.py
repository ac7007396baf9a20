"""What the hardware of a plan means for it: the memory of each deployment, and the shortest time its loads can take.

`enginebench.physics.deployment_limits` computes; this module asks it for every deployment and load of a plan. Imports physics, so it is
imported only by callers that need it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from enginebench.domain import Deployment, Load
from enginebench.physics.catalogue import ANYTHING, THIS_CPU
from enginebench.physics.deployment_limits import MachineLimits
from enginebench.physics.detect import cpu_machine, is_cpu
from enginebench.physics.expectation import published
from enginebench.physics.memory_need import MemoryNeed, UnknownLimit
from enginebench.scenario.plan import Plan


@dataclass(frozen=True)
class Capacity:
    """One deployment of a plan on the plan's hardware."""

    need: MemoryNeed | None
    """Memory of its heaviest load that is not skipped; None: unknown."""
    least_s: Mapping[Load, float] = field(default_factory=dict)
    """The shortest time each load can take, in seconds; loads for which it is unknown are missing."""
    expected_s: Mapping[Load, float] = field(default_factory=dict)
    """The time each load is expected to take, in seconds; loads for which nothing is expected are missing."""
    unknown: str | None = None
    """Why `need` is None."""


def capacities(plan: Plan) -> dict[int, Capacity]:
    """id() of each deployment with a cell that is not skipped -> its capacity; empty when the hardware is unknown.

    Of a deployment on the CPU only the times are known, and only if some engine has been measured on one.
    """
    loads: dict[int, tuple[Deployment, dict[int, Load]]] = {}
    bounds = plan.bounds or _cpu(plan)
    for cell in plan.cells if bounds is not None else ():
        if not plan.skipped or cell.id not in plan.skipped:
            loads.setdefault(id(cell.deployment), (cell.deployment, {}))[1].setdefault(id(cell.load), cell.load)
    known: dict[object, Capacity] = {}  # by limits and loads, which thousands of deployments share
    if bounds is None:
        return {}
    memory = plan.bounds is not None
    return {key: _capacity(bounds, deployment, its, known, memory=memory) for key, (deployment, its) in loads.items()}


@dataclass(frozen=True)
class PlanTime:
    """Seconds of load of a plan, without warm-up and server starts."""

    least_s: float
    """At least, of the loads for which it is known."""
    expected_s: float | None
    """Expected; loads for which nothing is expected count with the least. None: nothing is expected of any."""
    unexpected: int = 0
    """Cells for which nothing is expected."""
    by_load: Mapping[tuple[int, Load], float] = field(default_factory=dict, repr=False)
    """(id() of a deployment of the plan, load) -> seconds that are expected of a cell."""
    unknown: str = ""
    """Why no time is known, on a CPU; empty if one is, or if it is not a CPU that is used."""


def plan_time(plan: Plan) -> PlanTime:
    """How long the cells of a plan take that are not skipped."""
    return time_of(plan, capacities(plan))


def time_of(plan: Plan, known: Mapping[int, Capacity]) -> PlanTime:
    """How long the cells of a plan take that are not skipped. known: `capacities` of the plan."""
    loads = {id(cell.load): cell.load for cell in plan.cells}
    cells = (cell for cell in plan.cells if id(cell.deployment) in known and not (plan.skipped and cell.id in plan.skipped))
    least = expected = 0.0
    unexpected, counted = 0, Counter((id(cell.deployment), id(cell.load)) for cell in cells)
    for (deployment, load), times in counted.items():
        its = known[deployment]
        at_least, usual = its.least_s.get(loads[load], 0.0), its.expected_s.get(loads[load])
        least, expected = least + times * at_least, expected + times * (at_least if usual is None else usual)
        unexpected += times * (usual is None)
    by_load = {(deployment, load): seconds for deployment, its in known.items() for load, seconds in its.expected_s.items()}
    return PlanTime(least, expected if unexpected < counted.total() else None, unexpected, by_load, _unknown(plan, by_load))


def _capacity(
    bounds: MachineLimits, deployment: Deployment, loads: Mapping[int, Load], known: dict[object, Capacity], *, memory: bool
) -> Capacity:
    try:
        limits = bounds.of(deployment)
        key = id(limits), tuple(loads)
        if key not in known:
            needs = (limits.need(load) for load in loads.values())
            need = max(needs, key=lambda need: need.fit.budget.needed) if memory else None
            its = list(loads.values())
            known[key] = Capacity(need, dict(_times(limits.least_s, its)), dict(_times(limits.expected_s, its)))
    except UnknownLimit as reason:
        return Capacity(None, unknown=str(reason) if memory else None)
    return known[key]


def _cpu(plan: Plan) -> MachineLimits | None:
    """The limits of this CPU if it does the work and something is expected of one; else it is not worth measuring."""
    table = plan.expectations or published()
    if not table.knows(THIS_CPU) or not _uses_cpu(plan):
        return None
    return MachineLimits(_this_cpu(), plan.base, table)


_this_cpu = cache(cpu_machine)


def _uses_cpu(plan: Plan) -> bool:
    """Whether a CPU does the work: it is what is stated, or there is nothing else here; and no deployment needs several devices."""
    stated = plan.scenario.hardware
    if plan.bounds is not None or plan.unchecked or stated == ANYTHING or (stated is not None and not is_cpu(stated)):
        return False
    deployments = {id(cell.deployment): cell.deployment for cell in plan.cells}.values()
    return all(each.runtime == "process" and plan.registry[each.engine].traits(each).gpus <= 1 for each in deployments)


def _unknown(plan: Plan, by_load: Mapping[tuple[int, Load], float]) -> str:
    """Why the time of the loads whose duration is not stated is unknown, if a CPU does the work."""
    open_ended = [cell for cell in plan.cells if not cell.load.duration_s]
    if by_load or not open_ended or not _uses_cpu(plan):
        return ""
    engines = ", ".join(sorted({cell.deployment.engine for cell in open_ended}))
    return f"no measurement of {engines} on a CPU is known"


def _times(seconds: Callable[[Load], float | None], loads: Sequence[Load]) -> Iterator[tuple[Load, float]]:
    for load in loads:
        try:
            found = seconds(load)
        except UnknownLimit:
            continue
        if found is not None:
            yield load, found
