"""The highest load that each deployment holds within the SLO, and what tokens cost there.

From all levels that were measured with one context, whether a search or the scenario chose them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from enginebench.analysis.conclusion import Bound, Capacity
from enginebench.analysis.rows import CellResult, Row, meets
from enginebench.analysis.scales import Group
from enginebench.domain.formatting import counted, percent, rounded
from enginebench.metrics.load_limit import LoadLimit, Probe, load_limit
from enginebench.metrics.slo import Slo
from enginebench.metrics.statistics import samples_needed
from enginebench.records.run import RunRecord

_OVER: Mapping[str, tuple[Literal["rate", "concurrency"], str]] = {
    "closed loop": ("concurrency", "streams"),
    "open loop": ("rate", "req/s"),
}
"""Kind of load -> its level and unit; a replayed trace has no level at which a server may be run."""


def capacities(groups: Sequence[Group], slo: Slo, run: RunRecord) -> Iterator[Capacity]:
    """By model, settings and context, the highest load first. A single level says only whether it holds, and is left to the regimes."""
    searched = {probe for probes in run.probes.values() for probe in probes}
    for group in groups:
        for context in group.scale.contexts if group.scale.kind in _OVER else ():
            its = [_levels(group, context, name, searched) for name in group.scale.deployments]
            found = [_capacity(each, group, slo) for each in its if each.enough]
            found.sort(key=lambda each: -(each[0].level or 0.0))
            for i, (capacity, limit) in enumerate(found):
                below = found[i + 1][1] if i + 1 < len(found) else None
                yield replace(capacity, sure=limit is not None and below is not None and limit.above(below))


def _levels(group: Group, context: str, name: str, searched: set[str]) -> _Levels:
    loads = {load for (at, _), load in group.loads if at == context}
    rows = {i: row for i, row in group.rows if row.name == name and row.load in loads}
    return _Levels(name, context, tuple(rows), tuple(rows.values()), searched)


@dataclass(frozen=True)
class _Levels:
    """What was measured of one deployment with one context."""

    name: str
    context: str
    indices: tuple[int, ...]
    rows: tuple[Row, ...]
    searched: set[str]

    @property
    def cells(self) -> list[CellResult]:
        return [cell for row in self.rows for cell in row.cells]

    @property
    def enough(self) -> bool:
        """Whether there are two levels, or a search that may have ended at its first."""
        levels = {row.load.level for row in self.rows if row.status == "ok"}
        return len(levels) > 1 or any(cell.record.id in self.searched for cell in self.cells)


def _capacity(its: _Levels, group: Group, slo: Slo) -> tuple[Capacity, LoadLimit | None]:
    probes = [probe for cell in its.cells if (probe := _probe(cell, slo)) is not None]
    found = load_limit(probes, slo.share)
    over, unit = _OVER[group.scale.kind]
    bound, level = _limit(found, slo)
    if level is not None and over == "concurrency":
        level = float(math.floor(level))
    holds = found.holds if found else None
    capacity = Capacity(
        group.scale.model, its.name, its.context, group.scale.settings, over, unit, bound, level,
        low=found.low if found else None, high=found.high if found else None, holds=holds,
        restarts=len({probe.restart for probe in probes}), cells=len(its.cells), rows=its.indices,
        goodput=_figure(its.rows, "goodput", holds),
        throughput=_at(its.rows, "output_throughput", level), cost=_at(its.rows, "cost_per_token", level), nearest=_nearest(found),
        doubts=tuple(_doubts(its.cells, slo)), searched=any(cell.record.id in its.searched for cell in its.cells),
    )  # fmt: skip
    top = max((row.load.level for row in its.rows), default=None)
    return replace(capacity, text=_text(capacity, highest=level == top)), found


def _limit(found: LoadLimit | None, slo: Slo) -> tuple[Bound, float | None]:
    if found is None:
        return "unknown", None
    top = max(found.fitted)
    if found.fitted[top] >= slo.share - 1e-9:
        return "at least", top
    return ("none", None) if found.holds is None else ("between", found.level)


def _probe(cell: CellResult, slo: Slo) -> Probe | None:
    """A cell as a probe of its level; None if it is unknown whether it met the SLO. In one that failed or ended early no request did."""
    if cell.record.status == "skipped":
        return None
    met = meets(cell, slo)
    if met is None:
        return None
    attained = cell.figures.get("slo_attainment") or 0.0
    requests = float(cell.requests if cell.ran and not cell.record.delivery.stopped else max(cell.load.requests, cell.requests)) or 1.0
    if not met:
        attained = min(attained, slo.share - 1 / requests) if cell.record.status == "ok" and not cell.record.delivery.stopped else 0.0
    return Probe(cell.load.level, max(0.0, attained) * requests, requests, cell.record.repeat)


def _figure(rows: Sequence[Row], figure: str, level: float | None) -> float | None:
    found = [its.value for row in rows if row.load.level == level and (its := row.figures.get(figure))]
    return found[0] if found else None


def _at(rows: Sequence[Row], figure: str, level: float | None) -> float | None:
    """A figure at a level, interpolated between the measured levels around it, on logarithms."""
    known = sorted((row.load.level, found.value) for row in rows if row.sound and (found := row.figures.get(figure)) and found.value > 0)
    if level is None or not known or not known[0][0] <= level <= known[-1][0]:
        return None
    for (low, at_low), (high, at_high) in zip(known, known[1:] or known, strict=False):
        if low <= level <= high:
            part = math.log(level / low) / math.log(high / low) if high > low else 0.0
            return math.exp(math.log(at_low) + part * (math.log(at_high) - math.log(at_low)))
    return None


def _nearest(found: LoadLimit | None) -> str:
    if found is None or found.holds is not None:
        return ""
    lowest = min(found.fitted)
    return f"{percent(found.fitted[lowest])} of the requests within the SLO at {lowest:g}"


def _doubts(cells: Sequence[CellResult], slo: Slo) -> Iterator[str]:
    """What a reader must know about the cells behind it; the reasons are listed with their rows."""
    ran = [cell for cell in cells if cell.ran]
    if suspect := sum(cell.verdict == "suspect" for cell in ran):
        yield f"{suspect} of {counted(len(ran), 'cell')} {'is' if suspect == 1 else 'are'} suspect"
    if failed := sum(cell.record.status == "failed" for cell in cells):
        yield f"{failed} of {counted(len(cells), 'cell')} failed and count as missing the SLO"
    yield from dict.fromkeys(
        cell.withheld.get("slo_attainment", "tokens were not counted, or the cell is invalid") for cell in ran if meets(cell, slo) is None
    )
    judged = [cell.requests for cell in ran if not cell.record.delivery.stopped]
    if slo.share < 1 and judged and min(judged) < (needed := samples_needed(100 * slo.share)):
        yield f"a level was judged by {min(judged)} requests, but a share of {percent(slo.share, 6)} needs {needed}: increase `requests`"


def _text(its: Capacity, *, highest: bool) -> str:
    """'4.8 req/s [4.2-5.7]'; 'at least 64 req/s'; why there is none."""
    if its.bound == "unknown":
        return f"unknown whether the SLO was met{f': {its.doubts[0]}' if its.doubts else ''}"
    if its.bound == "none" or its.level is None:
        return f"no level meets the SLO ({its.nearest})" if its.nearest else "no level meets the SLO"
    if its.bound == "at least":
        return f"at least {rounded(its.level)} {its.unit}, the highest level {'tried' if highest else 'that could be judged'}"
    low, high = (rounded(end) if end is not None else "?" for end in (its.low, its.high))
    return f"{rounded(its.level)} {its.unit} [{low}-{high}]"
