"""What `bench plan` says of a machine: the memory that each deployment takes of it, and how long its loads take at least.

Words and data only; `enginebench.physics.deployment_limits` reckons. A plan whose machine nobody knows says nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginebench.physics.deployment_limits import DeploymentLimits, MemoryNeed, UnknownLimit

if TYPE_CHECKING:
    from enginebench.domain import JSON, Cell, Deployment, Load
    from enginebench.scenario.plan import Plan


@dataclass(frozen=True)
class Capacity:
    """One deployment of a plan. need: of its heaviest load that is not skipped. least_s: of each load for which it is known.

    unknown: why nobody can tell, of what is None or left out.
    """

    need: MemoryNeed | None
    least_s: dict[Load, float]
    unknown: str | None = None

    @property
    def text(self) -> str:
        """'fits: 61.2 of 85.5 GB per GPU (...) at 64 streams of 2,048 tokens'; 'tight' without room to work in; why it is unknown."""
        if self.need is None:
            return f"unknown whether it fits: {self.unknown}" if self.unknown else ""
        return f"{'fits' if self.need.fit.fits else 'tight'}: {self.need.text}"

    @property
    def data(self) -> JSON:
        """Memory per device in bytes."""
        if self.need is None:
            return {"unknown": self.unknown}
        answer, budget = self.need.fit, self.need.fit.budget
        return {
            "streams": answer.concurrency,
            "context": answer.context,
            "weights": sum(budget.weights.values()),
            "kv_cache": budget.cache,
            "working": budget.activations + budget.runtime,
            "needed": budget.needed,
            "usable": budget.usable,
            "host": budget.host,
            "fits": answer.fits,
        }


def capacities(found: Plan) -> dict[int, Capacity]:
    """id of each deployment that a known machine can serve under any load -> what is known of it."""
    loads: dict[int, tuple[Deployment, dict[Load, None]]] = {}
    for cell in found.cells:
        if found.bounds is not None and cell.id not in found.skipped:
            loads.setdefault(id(cell.deployment), (cell.deployment, {}))[1].setdefault(cell.load)
    return {key: _capacity(found, deployment, list(its)) for key, (deployment, its) in loads.items()}


def _capacity(found: Plan, deployment: Deployment, loads: Sequence[Load]) -> Capacity:
    if found.bounds is None:
        return Capacity(None, {})
    try:
        held = found.bounds.of(deployment)
        need = max((held.need(load) for load in loads), key=lambda need: need.fit.budget.needed)
    except UnknownLimit as reason:
        return Capacity(None, {}, str(reason))
    return Capacity(need, dict(_least(held, loads)))


def _least(held: DeploymentLimits, loads: Sequence[Load]) -> Iterator[tuple[Load, float]]:
    for load in loads:
        try:
            yield load, held.least_s(load)
        except UnknownLimit:
            continue


def least_s(cells: Sequence[Cell], known: dict[int, Capacity]) -> float:
    """Seconds that all cells take at least, as far as that can be told."""
    counted = Counter((id(cell.deployment), cell.load) for cell in cells if id(cell.deployment) in known)
    return sum(known[deployment].least_s.get(load, 0.0) * times for (deployment, load), times in counted.items())


def least_text(found: Plan, known: dict[int, Capacity]) -> str:
    """'at least 12 min of load on 4x h100-sxm-80gb, by what physics allows; ...'; '' if nobody can tell."""
    seconds = least_s(found.cells, known)
    if not seconds or found.bounds is None:
        return ""
    machine = found.bounds.machine.name
    return f"at least {_span(seconds)} of load on {machine}, by what physics allows; warm-up and server starts come on top"


def _span(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
