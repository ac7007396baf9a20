"""What the searches of a run found: for each deployment and load the highest level that meets the SLO, and its goodput.

Reads the probes as they are judged now, so a sharper metric also judges old searches. Knows no syntax of any output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.analysis.analysis import Analysis, CellResult
from enginebench.analysis.labels import distinguishing_labels
from enginebench.analysis.searches import meets
from enginebench.domain import Load, Search
from enginebench.metrics.slo import Slo
from enginebench.metrics.statistics import Estimate, estimate, samples_needed
from enginebench.report.columns import GOODPUT, WITHIN, full_text

Ending: TypeAlias = Literal["found", "never", "top", "unknown", "unfinished"]
"""found: between two levels. never: not even at the lowest. top: still at the highest. unknown: a probe ran, and yet nobody can tell
whether it met the SLO. unfinished: the next level was not measured; the search was broken off, or it was for another SLO."""


@dataclass(frozen=True)
class Finding:
    """The searches of one deployment for one kind of load, over the repeats.

    level, goodput: of the highest level that met the SLO, over the repeats in which one did. endings: of each repeat. cells: how
    many probes were measured. doubts: what is wrong with those whose goodput is given. ranked: whether others may be compared with it.
    """

    name: str
    model: str
    load: Load
    search: Search
    level: Estimate | None
    goodput: Estimate | None
    endings: tuple[Ending, ...]
    cells: int
    doubts: tuple[str, ...]
    ranked: bool = True

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
            "unknown": "it cannot be told whether the SLO was met",
            "unfinished": "not searched to the end: the next level was not measured",
        }
        counts = {ending: self.endings.count(ending) for ending in said if ending in self.endings}
        several = len(counts) > 1
        return "; ".join(f"{said[ending]}{f' ({n} of {len(self.endings)} repeats)' if several else ''}" for ending, n in counts.items())

    @property
    def sentence(self) -> str:
        """'llamacpp: goodput 4.61 req/s at 4.76 req/s (to 10 %)'."""
        none = "no level met the SLO" if set(self.endings) == {"never"} else "no level is known to have met the SLO"
        found = f"goodput {self.goodput_text} req/s at {self.level_text}" if self.level else none
        return f"{self.name}: {found} ({'; '.join([self.ending_text, *self.doubts])})"


@dataclass(frozen=True)
class Findings:
    """What was found for one model and one load, best first, then what is not ranked. slo: the limits in words."""

    model: str
    title: str
    slo: str
    found: tuple[Finding, ...]


def findings(analysis: Analysis) -> tuple[Findings, ...]:
    """Every search of a run, by model and what is searched; empty in a run without searches."""
    if analysis.slo is None:
        return ()
    found = list(_findings(analysis, analysis.slo))
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding, apart in zip(found, distinguishing_labels([finding.load for finding in found]), strict=True):
        groups.setdefault((finding.model, _title(finding, apart)), []).append(finding)
    return tuple(
        Findings(model, title, analysis.slo.text, tuple(sorted(of_one, key=_goodput, reverse=True)))
        for (model, title), of_one in groups.items()
    )


def _title(finding: Finding, apart: str) -> str:
    """'over the rate from 1 to 64, 128 + 64 tokens, requests 200'; apart: what tells its load from those of the other searches."""
    search = finding.search
    bounds = f"over the {search.over} from {search.start:g} to {search.stop:g}"
    return ", ".join(part for part in (bounds, finding.load.shape_text, apart) if part)


def _goodput(finding: Finding) -> float:
    return (finding.goodput.value if finding.goodput else -1.0) if finding.ranked else -2.0


_Search: TypeAlias = tuple[Search, Sequence[CellResult]]
"""One search in one repeat, and its probes that are stored."""


def _findings(analysis: Analysis, slo: Slo) -> Iterator[Finding]:
    where = {cell.record.id: (row, cell) for row in analysis.rows for cell in row.cells}
    repeats: dict[tuple[str, str, Load, tuple[str, float, float, float]], list[_Search]] = {}
    for first, search in analysis.run.searches.items():
        probes = [where[probe] for probe in analysis.run.probes.get(first, ()) if probe in where]
        if probes:
            row = probes[0][0]
            load = row.load.without_level(*search.follows)
            bounds = search.over, search.start, search.stop, search.precision
            repeats.setdefault((row.name, row.deployment.model, load, bounds), []).append((search, [cell for _, cell in probes]))
    for (name, model, load, _), searches in repeats.items():
        yield _finding(name, model, load, searches, slo)


def _finding(name: str, model: str, load: Load, searches: Sequence[_Search], slo: Slo) -> Finding:
    best: list[CellResult] = []
    endings: list[Ending] = []
    for search, probes in searches:
        met = [cell for cell in probes if meets(cell, slo)]
        best += [max(met, key=lambda cell: cell.record.load.level)] if met else []
        ran = any(cell.record.status == "ok" for cell in probes)
        endings.append(_ending(search, {cell.record.load.level: meets(cell, slo) for cell in probes}) if ran else "unfinished")
    return Finding(
        name,
        model,
        load,
        searches[0][0],
        estimate([cell.record.load.level for cell in best]),
        estimate([cell.figures.get(GOODPUT.figure) for cell in best]),
        tuple(endings),
        sum(len(probes) for _, probes in searches),
        tuple(_doubts(best, [cell for _, probes in searches for cell in probes], slo)),
        not any(reason.severity == "unranked" for _, probes in searches for cell in probes for reason in cell.reasons),
    )


def _doubts(best: Sequence[CellResult], probes: Sequence[CellResult], slo: Slo) -> Iterator[str]:
    """What a reader must know of the cells behind the answer; their reasons stand with their rows."""
    for verdict in ("suspect", "invalid"):
        if any(cell.verdict == verdict for cell in best):
            yield f"its cell is {verdict}"
    if failed := sum(cell.record.status == "failed" for cell in probes):
        yield f"{failed} of {len(probes)} cells failed and count as missing the SLO"
    yield from dict.fromkeys(cell.withheld.get(WITHIN.figure, "tokens were not counted") for cell in probes if meets(cell, slo) is None)
    judged = [cell.requests for cell in probes if cell.record.status == "ok" and not cell.record.delivery.stopped]
    if slo.share < 1 and judged and min(judged) < (needed := samples_needed(100 * slo.share)):
        yield f"a level was judged by {min(judged)} requests, and a share of {100 * slo.share:g} % needs {needed}: write more `requests`"


def _ending(search: Search, answers: Mapping[float, bool | None]) -> Ending:
    """What came of the search, by the answers of its probes."""
    reached = search.bracket(answers)
    if reached.next_level is not None:
        return "unfinished"
    if reached.undecided is not None:
        return "unknown"
    return "never" if reached.passed is None else "top" if reached.failed is None else "found"
