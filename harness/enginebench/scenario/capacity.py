"""What the hardware of a plan means for it: the memory of each deployment, and the shortest time its loads can take.

`enginebench.physics.deployment_limits` computes; this module asks it for every deployment and load of a plan. Imports physics, so it is
imported only by callers that need it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from enginebench.domain import Deployment, Load
from enginebench.physics.deployment_limits import DeploymentLimits, MemoryNeed, UnknownLimit
from enginebench.scenario.plan import Plan


@dataclass(frozen=True)
class Capacity:
    """One deployment of a plan on the plan's hardware."""

    need: MemoryNeed | None
    """Memory of its heaviest load that is not skipped; None: unknown."""
    least_s: Mapping[Load, float] = field(default_factory=dict)
    """The shortest time each load can take, in seconds; loads for which it is unknown are missing."""
    unknown: str | None = None
    """Why `need` is None."""


def capacities(plan: Plan) -> dict[int, Capacity]:
    """id() of each deployment with a cell that is not skipped -> its capacity; empty when the hardware is unknown."""
    loads: dict[int, tuple[Deployment, dict[int, Load]]] = {}
    for cell in plan.cells if plan.bounds is not None else ():
        if not plan.skipped or cell.id not in plan.skipped:
            loads.setdefault(id(cell.deployment), (cell.deployment, {}))[1].setdefault(id(cell.load), cell.load)
    known: dict[object, Capacity] = {}  # by limits and loads, which thousands of deployments share
    return {key: _capacity(plan, deployment, its, known) for key, (deployment, its) in loads.items()}


def least_s(plan: Plan, known: Mapping[int, Capacity]) -> float:
    """The shortest time all cells can take in seconds, of those for which it is known. known: `capacities` of the plan."""
    loads = {id(cell.load): cell.load for cell in plan.cells}
    counted = Counter((id(cell.deployment), id(cell.load)) for cell in plan.cells if id(cell.deployment) in known)
    return sum(known[deployment].least_s.get(loads[load], 0.0) * times for (deployment, load), times in counted.items())


def _capacity(plan: Plan, deployment: Deployment, loads: Mapping[int, Load], known: dict[object, Capacity]) -> Capacity:
    if plan.bounds is None:
        return Capacity(None)
    try:
        limits = plan.bounds.of(deployment)
        key = id(limits), tuple(loads)
        if key not in known:
            need = max((limits.need(load) for load in loads.values()), key=lambda need: need.fit.budget.needed)
            known[key] = Capacity(need, dict(_least(limits, list(loads.values()))))
    except UnknownLimit as reason:
        return Capacity(None, unknown=str(reason))
    return known[key]


def _least(limits: DeploymentLimits, loads: Sequence[Load]) -> Iterator[tuple[Load, float]]:
    for load in loads:
        try:
            yield load, limits.least_s(load)
        except UnknownLimit:
            continue
