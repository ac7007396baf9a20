"""What history needs of a run: its rows with figures by cell, and the facts around them. Plain data, as the index over runs keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.domain import Deployment, Load
from enginebench.records.schema import StoredLoad, dump, parse

if TYPE_CHECKING:
    from enginebench.analysis.analysis import Analysis


@dataclass(frozen=True)
class NightCell:
    verdict: str
    doubt: str
    """The first reason for its verdict; '' without one."""
    figures: Mapping[str, float | None]
    """In SI units; those that were asked for."""


@dataclass(frozen=True)
class NightRow:
    """A deployment under a load in one run, or in one phase of the load."""

    deployment: Deployment
    load: Load
    name: str
    """The deployment's short name in this run."""
    key: str
    """The same in every run for the same deployment under the same load."""
    engine_key: str
    """The same for the same engine, model and load."""
    status: str
    verdict: str
    reasons: tuple[str, ...]
    cells: tuple[NightCell, ...]
    facts: Mapping[str, str]
    """Of the deployment and its starts, by dotted key."""

    @property
    def subject(self) -> str:
        """Deployment and load as text, for `read_subject`."""
        return dump(_Subject(self.deployment, self.load))


@dataclass(frozen=True)
class NightRun:
    id: str
    """Its name among the runs of the folder."""
    name: str
    """Of its scenario."""
    created_at: str
    """UTC, ISO 8601."""
    facts: Mapping[str, Mapping[str, str]] = field(repr=False)
    """'machine' and 'run' -> facts by dotted key."""
    rows: tuple[NightRow, ...] = field(repr=False)

    def facts_of(self, row: NightRow) -> dict[tuple[str, str], str]:
        """Every recorded fact around a row: ('machine', 'run' or the deployment's name, dotted key) -> text."""
        parts = {**self.facts, row.name: row.facts}
        return {(of, what): text for of, facts in parts.items() for what, text in facts.items()}


def night_run(analysis: Analysis, run_id: str = "") -> NightRun:
    """Of a run that was read."""
    from enginebench.analysis.comparison import pair_keys, row_facts, run_facts

    rows = [
        NightRow(
            row.deployment, row.load, row.name, *pair_keys(row), row.status, row.verdict, row.reasons,
            tuple(NightCell(cell.verdict, cell.reasons[0].detail if cell.reasons else "", cell.figures) for cell in row.cells),
            row_facts(row, analysis),
        )
        for row in analysis.rows
    ]  # fmt: skip
    return NightRun(run_id, analysis.run.name, analysis.run.created_at, run_facts(analysis), tuple(rows))


def cells_text(cells: Sequence[NightCell]) -> str:
    """Verdicts and doubts, without figures, for `read_cells`."""
    return json.dumps([[cell.verdict, cell.doubt] for cell in cells])


def read_cells(text: str, figures: Mapping[str, Sequence[float | None]]) -> tuple[NightCell, ...]:
    """figures: figure -> its values, one for each cell."""
    return tuple(
        NightCell(verdict, doubt, {name: values[i] for name, values in figures.items()})
        for i, (verdict, doubt) in enumerate(json.loads(text))
    )


@lru_cache(10_000)
def read_subject(text: str) -> tuple[Deployment, Load]:
    """UserError where the text is of a newer version."""
    found = parse(text.encode(), Path("index"), _Subject, {})
    return found.deployment, found.load


@dataclass(frozen=True)
class _Subject:
    deployment: Deployment
    load: StoredLoad
