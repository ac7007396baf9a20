"""The section with the highest load within the SLO: for each deployment and context the limit of its searches, as the conclusion has it.

Reads the probes as they are judged now, so that a corrected metric also corrects old searches. Does not know markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.analysis.analysis import Analysis, CellResult
from enginebench.analysis.conclusion import Capacity
from enginebench.analysis.rows import meets
from enginebench.domain import JSON, Search, plain, plain_object
from enginebench.domain.formatting import number
from enginebench.metrics.slo import Slo
from enginebench.report.blocks import Block, Cell, Heading, Paragraph, Table
from enginebench.report.columns import MISSING
from enginebench.report.section import Context, Section, Summary, searches

Ending: TypeAlias = Literal["found", "never", "top", "unknown", "unfinished"]
"""found: between two levels. never: not even the lowest level met the SLO. top: the highest level still met it. unknown: a probe ran,
but it is unknown whether it met the SLO. unfinished: the next level was not measured, because the search was interrupted or had another
SLO."""


@dataclass(frozen=True)
class SearchResult:
    """The searches of one deployment with one context, over the repeats."""

    capacity: Capacity
    searches: tuple[Search, ...]
    """One for each repeat, and for each range that the scenario searches."""
    endings: tuple[Ending, ...]

    @property
    def level_text(self) -> str:
        """'4.76 req/s [4.2-5.66]'; '-' if no level is known to meet the SLO."""
        return self.capacity.text if self.capacity.level is not None else MISSING

    @property
    def goodput_text(self) -> str:
        """Requests/s within the SLO at the highest measured level that met it: '4.61'."""
        return number(self.capacity.goodput) if self.capacity.goodput is not None else MISSING

    @property
    def ending_text(self) -> str:
        """How the searches ended; '' where they all found a limit."""
        search = self.searches[0]
        unit = self.capacity.unit
        texts = {
            "found": "a limit was found",
            "never": f"the SLO was not met even at {search.start:g} {unit}: start the search lower",
            "top": f"still met at {search.stop:g} {unit}, the end of the search: extend the search",
            "unknown": "unknown whether the SLO was met",
            "unfinished": "the search is not complete: the next level was not measured",
        }
        counts = {ending: self.endings.count(ending) for ending in texts if ending in self.endings}
        several = len(counts) > 1
        parts = (f"{texts[ending]}{f' ({n} of {len(self.endings)} searches)' if several else ''}" for ending, n in counts.items())
        return "" if set(counts) == {"found"} else "; ".join(parts)

    @property
    def explanation(self) -> str:
        """Ending, restarts and doubts, as one text."""
        its = self.capacity
        held = f"measured to hold {its.holds:g} {its.unit}" if its.holds is not None and its.bound == "between" else ""
        alone = "one restart: the interval is over requests only" if its.restarts == 1 and its.bound == "between" else ""
        return "; ".join(filter(None, (held, self.ending_text, alone, *its.doubts)))

    @property
    def sentence(self) -> str:
        """'llamacpp: 4.8 req/s [4.2-5.7] (measured to hold 4.76 req/s)'."""
        explained = f" ({self.explanation})" if self.explanation else ""
        return f"{self.capacity.deployment}: {self.capacity.text}{explained}"


@dataclass(frozen=True)
class SearchGroup:
    """The results for one model, context and level, the highest first."""

    model: str
    title: str
    slo: str
    results: tuple[SearchResult, ...]


def search_groups(analysis: Analysis) -> tuple[SearchGroup, ...]:
    """Every search of a run; empty for a run without searches."""
    if analysis.slo is None:
        return ()
    groups: dict[tuple[str, str], list[SearchResult]] = {}
    for capacity in analysis.conclusion.capacities:
        if capacity.searched and (found := _searched(analysis, capacity, analysis.slo)):
            title = ", ".join(filter(None, (f"over the {capacity.over}", capacity.context, capacity.settings)))
            groups.setdefault((capacity.model, title), []).append(SearchResult(capacity, *found))
    return tuple(SearchGroup(model, title, analysis.slo.text, tuple(results)) for (model, title), results in groups.items())


def _searched(analysis: Analysis, capacity: Capacity, slo: Slo) -> tuple[tuple[Search, ...], tuple[Ending, ...]] | None:
    """The searches behind a capacity with their endings; None if it has none with a stored probe."""
    cells = {cell.record.id: cell for row in capacity.rows for cell in analysis.rows[row].cells}
    found, endings = [], []
    for first, search in analysis.run.searches.items():
        its = [cells[probe] for probe in analysis.run.probes.get(first, ()) if probe in cells]
        if its:
            found.append(search)
            endings.append(_ending(search, its, slo))
    return (tuple(found), tuple(endings)) if found else None


def _ending(search: Search, probes: Sequence[CellResult], slo: Slo) -> Ending:
    """The outcome of one search in one repeat."""
    if not any(cell.record.status == "ok" for cell in probes):
        return "unfinished"
    reached = search.bracket({cell.record.load.level: meets(cell, slo) for cell in probes})
    if reached.next_level is not None:
        return "unfinished"
    if reached.undecided is not None:
        return "unknown"
    return "never" if reached.passed is None else "top" if reached.failed is None else "found"


# -- section -------------------------------------------------------------------------------------------------------------

_EXPLANATION = (
    "The level was raised until the SLO was missed, then the interval was halved. The limit is fitted to all levels of all repeats, since "
    "the share of good requests is noisy; [low-high] is its 95 % interval."
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
    figures = (Cell(result.level_text, css="num"), Cell(result.goodput_text, css="num"))
    return result.capacity.deployment, *figures, Cell(result.explanation, css="text"), Cell(str(result.capacity.cells), css="num")


def _summaries(analysis: Analysis) -> Iterator[Summary]:
    for group in search_groups(analysis):
        heading = f"{group.model}: highest load within the SLO ({group.slo}), {group.title}"
        yield Summary(heading, tuple(result.sentence for result in group.results))


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    return {"findings": [_result_data(result) for group in search_groups(analysis) for result in group.results]}


def _result_data(result: SearchResult) -> JSON:
    """The capacity as data, with its searches and their endings."""
    ranges = [{name: plain(getattr(each, name)) for name in ("over", "start", "stop", "precision", "follows")} for each in result.searches]
    return {**plain_object(result.capacity), "searches": list(ranges), "endings": list(result.endings)}


def _finding(context: Context) -> str:
    """'a holds the most: 4.8 req/s [4.2-5.7]; b 2.2 req/s [1.9-2.6]', of one context; that the order is not sure where it is not."""
    groups = search_groups(context.analysis)
    if len(groups) != 1 or not groups[0].results:
        return ""
    first, *others = (result.capacity for result in groups[0].results)
    if first.level is None or not others:
        return (
            f"{first.deployment} holds {first.text}" if first.level is not None else "No deployment is known to hold a level that was tried"
        )
    rest = "; ".join(f"{its.deployment} {its.text}" for its in others[:2])
    return (
        f"{first.deployment} holds the most: {first.text}; {rest}"
        if first.sure
        else f"{first.deployment} {first.text}; {rest}: the order is not sure"
    )


SECTION = Section(
    "highest-load", "Highest load within the SLO", _blocks, label="Highest load", needs=(searches,), summaries=_summaries, data=_data,
    finding=_finding,
)  # fmt: skip
