"""What the index keeps of one run: computed from the run's own files, whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from enginebench.analysis import dependencies
from enginebench.analysis.analysis import Analysis, Row, analyse
from enginebench.analysis.comparison import pair_keys, row_facts, run_facts
from enginebench.analysis.labels import load_text
from enginebench.analysis.machine_text import machine_text
from enginebench.analysis.night_run import NightRun, night_run
from enginebench.analysis.stored_run import StoredRow, StoredRun
from enginebench.errors import UserError
from enginebench.records.run_folder import open_run


@dataclass(frozen=True)
class RunSummary:
    run: StoredRun
    rows: tuple[StoredRow, ...] = ()
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """'machine', 'run', and each 'MODEL/DEPLOYMENT' -> recorded facts by dotted key."""
    night: NightRun | None = None
    """For history; None for a damaged run."""


def summarise_run(name: str, path: Path) -> RunSummary:
    """name: `StoredRun.id`. Never raises for what is in the folder: a run that cannot be read is 'damaged', with the reason."""
    try:
        return _summary(name, path, analyse(open_run(path)))
    except UserError as error:
        where = f"{error.file.name}: " if error.file is not None and error.file.name != path.name else ""
        return RunSummary(StoredRun(name, path, "damaged", f"{where}{error.message}"))
    except Exception as error:  # noqa: BLE001  # one run must not cost the others
        return RunSummary(StoredRun(name, path, "damaged", f"it cannot be analysed ({type(error).__name__}: {error})"))


def _summary(name: str, path: Path, analysis: Analysis) -> RunSummary:
    run, rows, trust = analysis.run, analysis.rows, analysis.conclusion.trust
    measured = analysis.counts["ok"] > 0
    problem = analysis.incomplete or ""
    stored = StoredRun(
        name, path, "incomplete" if problem else "complete", problem, run.name, str(run.scenario.get("title") or ""), run.created_at,
        _ended(analysis), machine_text(run.machine), _engines(analysis), tuple(dict.fromkeys(row.deployment.model for row in rows)),
        run.enginebench, len({(row.deployment.model, row.name) for row in rows}), len({row.load for row in rows}),
        max((len(row.cells) for row in rows), default=0), analysis.counts, trust.level if measured else "", trust.text if measured else "",
        analysis.sentence, tuple(sorted({stamp for row in rows for stamp in dependencies.weights(row.deployment) or ()})),
    )  # fmt: skip
    deployed = {f"{row.deployment.model}/{row.name}": row_facts(row, analysis) for row in rows}
    facts = {**run_facts(analysis), **deployed}
    return RunSummary(stored, tuple(_row(name, row) for row in rows), facts, night_run(analysis, name))


def _row(run: str, row: Row) -> StoredRow:
    return StoredRow(
        run, *pair_keys(row), row.name, row.deployment.engine, row.deployment.model, load_text(row.load),
        float(row.load.level), row.status, row.verdict, row.reasons, {name: found for name, found in row.figures.items() if found},
    )  # fmt: skip


def _engines(analysis: Analysis) -> dict[str, tuple[str, ...]]:
    """Also those that never started."""
    found: dict[str, dict[str, None]] = {row.deployment.engine: {} for row in analysis.rows}
    for launch in analysis.launches.values():
        if launch.version:
            found.setdefault(launch.deployment.engine, {})[launch.version] = None
    return {engine: tuple(versions) for engine, versions in found.items()}


def _ended(analysis: Analysis) -> str:
    """The end of the last cell, as text."""
    ends = []
    for record in (cell.record for row in analysis.rows for cell in row.cells):
        try:
            ends.append(datetime.fromisoformat(record.started_at or "") + timedelta(seconds=record.wall_s or 0.0))
        except (ValueError, OverflowError):
            continue
    return max(ends, key=lambda end: end.timestamp()).isoformat(timespec="seconds") if ends else ""
