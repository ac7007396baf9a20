"""Finds the importer of another tool's file and writes a run folder. Its cells have stated figures and no raw samples."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

from enginebench import __version__
from enginebench.domain import JSON, Cell, fingerprint
from enginebench.errors import UserError
from enginebench.machine.folders import modules_in
from enginebench.metrics.registry import find
from enginebench.metrics.statistics import samples_needed
from enginebench.records import importers
from enginebench.records.cell import CellRecord, CellTraits, Stated
from enginebench.records.files import now
from enginebench.records.importer import ImportedCell, Importer, read_records
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run, new_run_path


@cache
def all_importers() -> tuple[Importer, ...]:
    """Every importer, by module name."""
    return tuple(each for module in modules_in(importers.__name__) for each in vars(module).values() if isinstance(each, Importer))


def import_run(file: Path, results: Path) -> Run:
    """A new run with the cells of the file. UserError for an unknown format, and for a damaged file."""
    found, cells = _read(file)
    records = _records(cells, f"{found.tool}, {file.name}")
    ids = tuple(record.id for record in records)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    about = f"Imported from {file.name}, written by {found.tool} (sha256 {digest})."
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._") or "imported"
    scenario: dict[str, JSON] = {"title": f"{found.tool}: {file.name}", "description": about, "file": file.name}
    plan_id = fingerprint({"cells": list(ids), "file": digest})
    run = RunRecord(name, now(), scenario, plan_id, ids, {}, __version__)  # {}: the file does not say on what machine
    folder = Run.create(new_run_path(results, name), run, f"# {about}\n")
    for record in records:
        folder.add_cell(record)
    return folder


def _read(file: Path) -> tuple[Importer, tuple[ImportedCell, ...]]:
    """The importer of a file and the cells that it finds."""
    records = read_records(file)
    found = next((each for each in all_importers() if all(key in records[0].data for key in each.recognised_by)), None)
    if found is None:
        raise UserError("unknown format", file=file, advice=f"known: {'; '.join(each.text for each in all_importers())}")
    return found, tuple(cell for record in records for cell in found.read(record))


def _records(cells: Sequence[ImportedCell], source: str) -> list[CellRecord]:
    """The cells as records. The same deployment and load once more is a repeat."""
    records: dict[str, CellRecord] = {}
    for one in cells:
        cell = next(cell for n in count() if (cell := Cell(one.deployment, one.load, n)).id not in records)
        reason = None if one.completed else "no request succeeded"
        traits = CellTraits(length_control="cap")  # whether lengths were forced is unknown
        stated = None if reason else Stated(source, dict(_supported(one)))
        record = CellRecord.of(cell, "failed" if reason else "ok", reason)
        records[cell.id] = replace(record, wall_s=one.wall_s, traits=traits, stated=stated)
    return list(records.values())


def _supported(cell: ImportedCell) -> Iterator[tuple[str, float]]:
    """The figures, without percentiles over requests that need more requests. ValueError for a figure of no known metric."""
    for name, value in cell.figures.items():
        found = find(name)
        if found is None:
            raise ValueError(f"an importer states '{name}', which is not a figure of any metric")
        metric, percentile = found
        if percentile is None or metric.scope != "request" or cell.completed >= samples_needed(percentile):
            yield name, value
