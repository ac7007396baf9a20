"""What a section of a report is: its heading, what it needs, and what it renders on the page, in the terminal, in Markdown and in JSON.

A section is one file in `enginebench.report.sections` that holds a `Section`. This module does not know particular sections or markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from enginebench.analysis.analysis import Analysis
from enginebench.domain import JSON
from enginebench.records.cell import has_samples
from enginebench.records.run_folder import Run
from enginebench.report.blocks import Block
from enginebench.report.sample_summary import SampleSummary, summarise
from enginebench.report.styles import Style, styles


@dataclass(frozen=True)
class Context:
    run: Run
    analysis: Analysis

    @cached_property
    def samples(self) -> SampleSummary:
        """What the raw samples add to the analysis. The first use reads the samples of every cell; later uses do not."""
        return summarise(self.run, self.analysis)

    @cached_property
    def slots(self) -> Mapping[str, Style]:
        """Name of a deployment -> its position in the run, with its hue, dash and marker in every figure."""
        return styles((row.name, row.deployment.engine) for row in self.analysis.rows)

    @cached_property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.deployment.model for row in self.analysis.rows))


Need: TypeAlias = Callable[[Analysis], bool]
"""Whether a run has what a section needs. A section may declare its own next to those below."""


def measurements(analysis: Analysis) -> bool:
    """At least one row has figures."""
    return any(row.status == "ok" for row in analysis.rows)


def raw_samples(analysis: Analysis) -> bool:
    """At least one cell ran and has raw samples; imported cells have figures only."""
    return any(cell.ran and has_samples(cell.record) for row in analysis.rows for cell in row.cells)


def time_series(analysis: Analysis) -> bool:
    """At least one cell has readings of engine counters or of the machine while its load ran."""
    cells = (cell.record for row in analysis.rows for cell in row.cells if cell.ran)
    return any(record.counters.series.at_ns or record.telemetry for record in cells)


def searches(analysis: Analysis) -> bool:
    """The run has an SLO, and its scenario searches for the highest load within it."""
    return analysis.slo is not None and bool(analysis.run.searches)


@dataclass(frozen=True)
class Summary:
    heading: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One section. Texts are raw in every form: the page, the terminal and Markdown escape them."""

    id: str
    """Anchor in the page: lower case, with hyphens. `sections.ORDER` may name it."""
    title: str
    blocks: Callable[[Context], Iterable[Block]]
    """What the page shows. The section is left out if there are no blocks."""
    label: str = ""
    """Name in the table of contents, which shows equal names once; empty: the title."""
    needs: tuple[Need, ...] = ()
    """The page, the terminal and Markdown leave the section out unless the run has all of these."""
    summaries: Callable[[Analysis], Iterable[Summary]] = lambda _: ()
    """Further results for the terminal and Markdown."""
    notes: Callable[[Analysis], Iterable[str]] = lambda _: ()
    """Footnotes of the table in the terminal and in Markdown."""
    data: Callable[[Analysis], Mapping[str, JSON]] = lambda _: {}
    """Keys of the JSON document, for every run: programs find an empty value rather than no key."""
    finding: Callable[[Context], str] = lambda _: ""
    """What it shows, as its heading on the page; the title is then the small line above. Only what the conclusion says."""
    folded: bool = False
    """Whether the page shows it closed."""

    def applies(self, analysis: Analysis) -> bool:
        return all(need(analysis) for need in self.needs)
