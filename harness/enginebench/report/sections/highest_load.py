"""The section with the results of searches: for each deployment and load the highest level within the SLO, and its goodput.

Reads the probes as they are judged now, so that a corrected metric also corrects old searches. Does not know markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.analysis.analysis import Analysis, CellResult
from enginebench.analysis.labels import distinguishing_labels
from enginebench.analysis.rows import meets
from enginebench.domain import JSON, Load, Search, plain
from enginebench.domain.formatting import percent
from enginebench.metrics.slo import Slo
from enginebench.metrics.statistics import Estimate, estimate, samples_needed
from enginebench.report.blocks import Block, Cell, Heading, Paragraph, Table
from enginebench.report.columns import GOODPUT, MISSING, WITHIN, estimate_data, full_text
from enginebench.report.section import Context, Section, Summary, searches

Ending: TypeAlias = Literal["found", "never", "top", "unknown", "unfinished"]
"""found: between two levels. never: not even the lowest level met the SLO. top: the highest level still met it. unknown: a probe ran,
but it is unknown whether it met the SLO. unfinished: the next level was not measured, because the search was interrupted or had another
SLO."""


@dataclass(frozen=True)
class SearchResult:
    """The searches of one deployment for one kind of load, over the repeats."""

    name: str
    model: str
    load: Load
    search: Search
    level: Estimate | None
    """The highest level within the SLO, over the repeats that found one."""
    goodput: Estimate | None
    endings: tuple[Ending, ...]
    cells: int
    doubts: tuple[str, ...]
    """What is wrong with the cells behind the result."""
    ranked: bool = True
    """Whether it may be compared with other deployments."""

    @property
    def unit(self) -> str:
        return "req/s" if self.search.over == "rate" else "streams"

    @property
    def level_text(self) -> str:
        """'4.76 req/s [4.2-5.66]'; '-' if no level met the SLO."""
        if self.level is None:
            return MISSING
        low, high = self.level.low, self.level.high
        spread = f" [{low:g}-{high:g}]" if low is not None and high is not None else ""
        return f"{self.level.value:g} {self.unit}{spread}"

    @property
    def goodput_text(self) -> str:
        """'4.61 [4.20-4.70]'; '-' if no level met the SLO."""
        return full_text(self.goodput, GOODPUT)

    @property
    def ending_text(self) -> str:
        """The precision of the result, or why there is none."""
        search = self.search
        texts = {
            "found": f"to {percent(search.precision, 6)}",
            "never": f"the SLO was not met even at {search.start:g} {self.unit}: start the search lower",
            "top": f"still met at {search.stop:g} {self.unit}, the end of the search: extend the search",
            "unknown": "unknown whether the SLO was met",
            "unfinished": "the search is not complete: the next level was not measured",
        }
        counts = {ending: self.endings.count(ending) for ending in texts if ending in self.endings}
        several = len(counts) > 1
        return "; ".join(f"{texts[ending]}{f' ({n} of {len(self.endings)} repeats)' if several else ''}" for ending, n in counts.items())

    @property
    def sentence(self) -> str:
        """'llamacpp: goodput 4.61 req/s at 4.76 req/s (to 10 %)'."""
        none = "no level met the SLO" if set(self.endings) == {"never"} else "no level is known to meet the SLO"
        found = f"goodput {self.goodput_text} req/s at {self.level_text}" if self.level else none
        return f"{self.name}: {found} ({'; '.join([self.ending_text, *self.doubts])})"


@dataclass(frozen=True)
class SearchGroup:
    """The results for one model and load, best first, then those that are not ranked."""

    model: str
    title: str
    slo: str
    results: tuple[SearchResult, ...]


def search_groups(analysis: Analysis) -> tuple[SearchGroup, ...]:
    """Every search of a run, by model and load; empty for a run without searches."""
    if analysis.slo is None:
        return ()
    found = list(_results(analysis, analysis.slo))
    groups: dict[tuple[str, str], list[SearchResult]] = {}
    for result, distinction in zip(found, distinguishing_labels([result.load for result in found]), strict=True):
        groups.setdefault((result.model, _title(result, distinction)), []).append(result)
    for results in groups.values():
        results.sort(key=lambda result: (not result.ranked, -result.goodput.value if result.goodput else 1.0))
    return tuple(SearchGroup(model, title, analysis.slo.text, tuple(results)) for (model, title), results in groups.items())


def _title(result: SearchResult, distinction: str) -> str:
    """'over the rate from 1 to 64, 128 + 64 tokens, requests 200'. distinction: how its load differs from those of the other searches."""
    search = result.search
    bounds = f"over the {search.over} from {search.start:g} to {search.stop:g}"
    return ", ".join(part for part in (bounds, result.load.shape_text, distinction) if part)


_Search: TypeAlias = tuple[Search, Sequence[CellResult]]
"""One search in one repeat, and its stored probes."""


def _results(analysis: Analysis, slo: Slo) -> Iterator[SearchResult]:
    where = {cell.record.id: (row, cell) for row in analysis.rows for cell in row.cells}
    repeats: dict[tuple[str, str, Load, tuple[str, float, float, float]], list[_Search]] = {}
    for first, search in analysis.run.searches.items():
        probes = [where[probe] for probe in analysis.run.probes.get(first, ()) if probe in where]
        if probes:
            row = probes[0][0]
            load = row.load.without_level(*search.follows)
            bounds = search.over, search.start, search.stop, search.precision
            repeats.setdefault((row.name, row.deployment.model, load, bounds), []).append((search, [cell for _, cell in probes]))
    for (name, model, load, _), its in repeats.items():
        yield _result(name, model, load, its, slo)


def _result(name: str, model: str, load: Load, its: Sequence[_Search], slo: Slo) -> SearchResult:
    best: list[CellResult] = []
    endings: list[Ending] = []
    for search, probes in its:
        met = [cell for cell in probes if meets(cell, slo)]
        best += [max(met, key=lambda cell: cell.record.load.level)] if met else []
        ran = any(cell.record.status == "ok" for cell in probes)
        endings.append(_ending(search, {cell.record.load.level: meets(cell, slo) for cell in probes}) if ran else "unfinished")
    cells = [cell for _, probes in its for cell in probes]
    level, goodput = estimate([cell.record.load.level for cell in best]), estimate([cell.figures.get(GOODPUT.figure) for cell in best])
    ranked = not any(reason.severity == "unranked" for cell in cells for reason in cell.reasons)
    doubts = tuple(_doubts(best, cells, slo))
    return SearchResult(name, model, load, its[0][0], level, goodput, tuple(endings), len(cells), doubts, ranked)


def _doubts(best: Sequence[CellResult], probes: Sequence[CellResult], slo: Slo) -> Iterator[str]:
    """What a reader must know about the cells behind the result; the reasons are listed with their rows."""
    for verdict in ("suspect", "invalid"):
        if any(cell.verdict == verdict for cell in best):
            yield f"its cell is {verdict}"
    if failed := sum(cell.record.status == "failed" for cell in probes):
        yield f"{failed} of {len(probes)} cells failed and count as missing the SLO"
    yield from dict.fromkeys(cell.withheld.get(WITHIN.figure, "tokens were not counted") for cell in probes if meets(cell, slo) is None)
    judged = [cell.requests for cell in probes if cell.record.status == "ok" and not cell.record.delivery.stopped]
    if slo.share < 1 and judged and min(judged) < (needed := samples_needed(100 * slo.share)):
        yield f"a level was judged by {min(judged)} requests, but a share of {percent(slo.share, 6)} needs {needed}: increase `requests`"


def _ending(search: Search, met: Mapping[float, bool | None]) -> Ending:
    """The outcome of the search. met: level of each probe -> whether it met the SLO."""
    reached = search.bracket(met)
    if reached.next_level is not None:
        return "unfinished"
    if reached.undecided is not None:
        return "unknown"
    return "never" if reached.passed is None else "top" if reached.failed is None else "found"


# -- section -------------------------------------------------------------------------------------------------------------

_EXPLANATION = (
    "The level was doubled until the SLO was missed, then the interval was halved. Medians and ranges over the repeats; each repeat is a "
    "search of its own."
)
_HEADINGS = ("deployment", Cell("highest load", css="num"), Cell("goodput", "req/s", "num"), "result", Cell("cells", css="num"))


def _blocks(context: Context) -> Iterator[Block]:
    groups = search_groups(context.analysis)
    if groups:
        yield Paragraph(_EXPLANATION)
    for group in groups:
        yield Heading(group.slo, before=group.model if len(context.models) > 1 else "", after=group.title)
        yield Table(_HEADINGS, tuple(_row(result) for result in group.results))


def _row(result: SearchResult) -> tuple[str | Cell, ...]:
    explanation = "; ".join([result.ending_text, *result.doubts])
    figures = (Cell(result.level_text, css="num"), Cell(result.goodput_text, css="num"))
    return result.name, *figures, Cell(explanation, css="text"), Cell(str(result.cells), css="num")


def _summaries(analysis: Analysis) -> Iterator[Summary]:
    for group in search_groups(analysis):
        heading = f"{group.model}: highest load within the SLO ({group.slo}), {group.title}"
        yield Summary(heading, tuple(result.sentence for result in group.results))


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    return {"findings": [_result_data(result) for group in search_groups(analysis) for result in group.results]}


def _result_data(result: SearchResult) -> JSON:
    search = {name: plain(getattr(result.search, name)) for name in ("over", "start", "stop", "precision", "follows")}
    level, goodput = (estimate_data(found) if found else None for found in (result.level, result.goodput))
    known = {"deployment": result.name, "model": result.model, "load": plain(result.load), "search": search}
    return {
        **known, "level": level, "goodput": goodput, "endings": list(result.endings), "cells": result.cells, "doubts": list(result.doubts)
    }  # fmt: skip


SECTION = Section(
    "highest-load", "Highest load within the SLO", _blocks, label="Highest load", needs=(searches,), summaries=_summaries, data=_data
)  # fmt: skip
