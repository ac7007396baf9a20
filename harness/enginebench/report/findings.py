"""What the searches of a run found: for each deployment and load the highest level that meets the SLO, and its goodput.

Reads the probes as they are judged now, so a sharper metric also judges old searches. Knows no syntax of any output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from enginebench.analysis import Analysis, CellResult
from enginebench.nouns import Load
from enginebench.report.figures import GOODPUT, full_text
from enginebench.search import Search
from enginebench.searches import SearchRecord, searches_of
from enginebench.statistics import Estimate, estimate

Ending: TypeAlias = Literal["found", "never", "top", "unfinished"]
"""found: between two levels. never: not even at the lowest. top: still at the highest. unfinished: it was broken off."""


@dataclass(frozen=True)
class Finding:
    """The searches of one deployment for one kind of load, over the repeats.

    level, goodput: of the highest level that met the SLO, over the repeats in which one did. endings: of each repeat. cells: how
    many probes were measured. doubts: what is wrong with those whose goodput is given.
    """

    name: str
    model: str
    load: Load
    search: SearchRecord
    level: Estimate | None
    goodput: Estimate | None
    endings: tuple[Ending, ...]
    cells: int
    doubts: tuple[str, ...]

    @property
    def unit(self) -> str:
        """'req/s' or 'streams'."""
        return "req/s" if self.search.over == "rate" else "streams"

    @property
    def level_text(self) -> str:
        """'4.76 req/s [4.2-5.66]'; '-' when no level met the SLO."""
        if self.level is None:
            return "-"
        low, high = self.level.low, self.level.high
        spread = f" [{low:g}-{high:g}]" if low is not None and high is not None else ""
        return f"{self.level.value:g} {self.unit}{spread}"

    @property
    def goodput_text(self) -> str:
        """'4.61 [4.20-4.70]'; '-' when no level met the SLO."""
        return full_text(self.goodput, GOODPUT)

    @property
    def ending_text(self) -> str:
        """How sure that is: to what precision it was found, or why there is no answer."""
        search = self.search
        said = {
            "found": f"to {100 * search.precision:g} %",
            "never": f"the SLO was not met even at {search.start:g} {self.unit}: search from less",
            "top": f"still met at {search.stop:g} {self.unit}, the end of the search: search to more",
            "unfinished": "the search was broken off",
        }
        counts = {ending: self.endings.count(ending) for ending in said if ending in self.endings}
        several = len(counts) > 1
        return "; ".join(f"{said[ending]}{f' ({n} of {len(self.endings)} repeats)' if several else ''}" for ending, n in counts.items())

    @property
    def sentence(self) -> str:
        """'llamacpp: goodput 4.61 req/s at 4.76 req/s (to 10 %)'."""
        found = f"goodput {self.goodput_text} req/s at {self.level_text}" if self.level else "no level met the SLO"
        return f"{self.name}: {found} ({'; '.join([self.ending_text, *self.doubts])})"


@dataclass(frozen=True)
class Findings:
    """What was found for one model and one load, best first. slo: the limits in words."""

    model: str
    title: str
    slo: str
    found: tuple[Finding, ...]


def findings(analysis: Analysis) -> tuple[Findings, ...]:
    """Every search of a run, by model and load; empty in a run without searches."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in _findings(analysis):
        title = f"over the {finding.search.over}, {finding.load.shape_text}"
        groups.setdefault((finding.model, title), []).append(finding)
    slo = analysis.slo
    return tuple(
        Findings(model, title, slo.text if slo else "", tuple(sorted(found, key=_goodput, reverse=True)))
        for (model, title), found in groups.items()
    )


def _goodput(finding: Finding) -> float:
    return finding.goodput.value if finding.goodput else -1.0


def _findings(analysis: Analysis) -> Iterator[Finding]:
    where = {cell.record.id: (row, cell) for row in analysis.rows for cell in row.cells}
    alike: dict[tuple[str, str, Load], list[tuple[SearchRecord, list[CellResult]]]] = {}
    for search in searches_of(analysis.run):
        probes = [where[probe] for probe in search.probes if probe in where]
        if probes:
            row = probes[0][0]
            load = replace(row.load, concurrency=0, rate=None, requests=0, warmup_requests=0)
            alike.setdefault((row.name, row.deployment.model, load), []).append((search, [cell for _, cell in probes]))
    for (name, model, load), searches in alike.items():
        yield _finding(name, model, load, searches, analysis)


def _finding(name: str, model: str, load: Load, searches: Sequence[tuple[SearchRecord, list[CellResult]]], analysis: Analysis) -> Finding:
    share = analysis.slo.share if analysis.slo else 1.0
    best: list[CellResult] = []
    endings: list[Ending] = []
    for search, probes in searches:
        met = [cell for cell in probes if _met(cell, share)]
        best += [max(met, key=lambda cell: cell.record.load.level)] if met else []
        ran = any(cell.record.status == "ok" for cell in probes)
        endings.append(_ending(search, {cell.record.load.level: _met(cell, share) for cell in probes}) if ran else "unfinished")
    return Finding(
        name,
        model,
        load,
        searches[0][0],
        estimate([cell.record.load.level for cell in best]),
        estimate([cell.figures.get(GOODPUT.figure) for cell in best]),
        tuple(endings),
        sum(len(probes) for _, probes in searches),
        tuple(_doubts(best, [cell for _, probes in searches for cell in probes])),
    )


def _doubts(best: Sequence[CellResult], probes: Sequence[CellResult]) -> Iterator[str]:
    """What a reader must know of the cells behind the answer; their reasons stand with their rows."""
    for verdict in ("suspect", "invalid"):
        if any(cell.verdict == verdict for cell in best):
            yield f"its cell is {verdict}"
    if failed := sum(cell.record.status == "failed" for cell in probes):
        yield f"{failed} of {len(probes)} cells failed and count as missing the SLO"


def _met(cell: CellResult, share: float) -> bool:
    attained = cell.figures.get("slo_attainment")
    return cell.record.status == "ok" and not cell.record.stopped and attained is not None and attained >= share


def _ending(search: SearchRecord, answers: dict[float, bool]) -> Ending:
    """Walk the search again with what its probes say."""
    walk = Search(search.start, search.stop, search.precision, whole=search.over == "concurrency")
    while (level := walk.next_level()) is not None:
        if level not in answers:
            return "unfinished"
        walk.tell(level, answers[level])
    return "never" if walk.passed is None else "top" if walk.failed is None else "found"
