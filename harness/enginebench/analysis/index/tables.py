"""The tables of the index, as lines of plain values: what a run becomes, and how it is read back. Knows no database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from enginebench.analysis.stored_run import StoredRow, StoredRun

if TYPE_CHECKING:
    from enginebench.analysis.night_run import NightRun
    from enginebench.analysis.run_summary import RunSummary

Line: TypeAlias = tuple[Any, ...]
Known: TypeAlias = tuple[str, dict[str, Any]]
"""The stamp of a run, and what is known of it."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "runs": ("id", "stamp", "data"),
    "facts": ("run", "of", "data"),
    "rows": (
        "run", "position", "key", "engine_key", "deployment", "engine", "model", "load", "level", "status", "verdict", "reasons",
        "subject", "cells",
    ),
    "figures": ("run", "position", "figure", "values", "value", "low", "high", "by_cell"),
}  # fmt: skip
"""Table -> its columns. `subject`, `cells` and `by_cell` are for history."""


class IndexStore(Protocol):
    """The tables of one folder of runs. Every method sees the work of other processes as a whole or not at all."""

    def known(self) -> dict[str, Known]:
        """Run -> its stamp and data."""
        ...

    def store(self, lines: Mapping[str, Sequence[Line]]) -> None:
        """Replace these runs with all that belongs to them."""
        ...

    def forget(self, runs: Iterable[str]) -> None: ...

    def rows(self, run: str | None) -> list[Line]:
        """Of a run, or of all, by run and position."""
        ...

    def figures(self, run: str | None, figures: Sequence[str] | None) -> list[Line]:
        """The same, without order; only these figures, or all."""
        ...

    def facts(self, run: str | None) -> list[Line]: ...


@dataclass(frozen=True)
class Tables:
    """What was read from a store."""

    rows: Sequence[Line]
    figures: Sequence[Line]
    facts: Sequence[Line] = ()

    def stored_rows(self) -> list[StoredRow]:
        from enginebench.metrics.statistics import Estimate

        found: dict[tuple[str, int], dict[str, Estimate]] = {}
        for run, position, figure, values, value, low, high, _ in self.figures:
            found.setdefault((run, position), {})[figure] = Estimate(value, tuple(values), low, high)
        return [
            StoredRow(*(run, *about, tuple(json.loads(reasons)), found.get((run, position), {})))
            for run, position, *about, reasons, _, _ in self.rows
        ]

    def night_runs(self, runs: Sequence[StoredRun]) -> list[NightRun]:
        """Those of which anything could be read, in the order of `runs`."""
        from enginebench.analysis.night_run import NightRow, NightRun, read_cells, read_subject

        values: dict[tuple[str, int], dict[str, Sequence[float | None]]] = {}
        for run, position, figure, *_, by_cell in self.figures:
            values.setdefault((run, position), {})[figure] = by_cell
        facts: dict[str, dict[str, dict[str, str]]] = {}
        for run, of, data in self.facts:
            facts.setdefault(run, {})[of] = json.loads(data)
        rows: dict[str, list[NightRow]] = {}
        for run, position, key, engine_key, name, _, model, _, _, status, verdict, reasons, subject, cells in self.rows:
            if not subject:
                continue  # of an older version, and not read anew yet
            its = facts.get(run, {}).get(f"{model}/{name}", {})
            read = read_cells(cells, values.get((run, position), {}))
            row = NightRow(*read_subject(subject), name, key, engine_key, status, verdict, tuple(json.loads(reasons)), read, its)
            rows.setdefault(run, []).append(row)
        return [
            NightRun(run.id, run.scenario, run.started_at, _shared(facts.get(run.id, {})), tuple(rows.get(run.id, ())))
            for run in runs
            if run.state != "damaged"
        ]


def _shared(facts: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    return {of: facts.get(of, {}) for of in ("machine", "run")}


def lines_of(summaries: Sequence[RunSummary], stamps: Mapping[str, str]) -> dict[str, list[Line]]:
    """Table -> its lines."""
    from enginebench.analysis.night_run import cells_text

    tables: dict[str, list[Line]] = {name: [] for name in COLUMNS}
    for each in summaries:
        run, data = each.run, {name: value for name, value in asdict(each.run).items() if name not in ("id", "path")}
        tables["runs"].append((run.id, stamps[run.id], json.dumps(data)))
        tables["facts"] += [(run.id, of, json.dumps(facts)) for of, facts in each.facts.items()]
        nights = each.night.rows if each.night is not None else ()
        for position, (row, night) in enumerate(zip(each.rows, nights, strict=True)):
            about = (row.key, row.engine_key, row.deployment, row.engine, row.model, row.load, row.level, row.status, row.verdict)
            tables["rows"].append((run.id, position, *about, json.dumps(row.reasons), night.subject, cells_text(night.cells)))
            for name, of in row.figures.items():
                by_cell = [cell.figures.get(name) for cell in night.cells]
                tables["figures"].append((run.id, position, name, list(of.values), of.value, of.low, of.high, by_cell))
    return tables


def stored_run(name: str, path: Path, data: Mapping[str, Any]) -> StoredRun:
    versions = {engine: tuple(its) for engine, its in data["engines"].items()}
    weights = tuple(tuple(stamp) for stamp in data["weights"])
    return StoredRun(name, path, **{**data, "engines": versions, "models": tuple(data["models"]), "weights": weights})
