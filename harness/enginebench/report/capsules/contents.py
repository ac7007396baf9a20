"""What a capsule adds to the files of a run: its figures as they were computed, its inputs, and what its engines ran with.

All of it follows from the run, so `verify` makes it again and compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from enginebench import __version__
from enginebench.analysis.analysis import Analysis, CellResult
from enginebench.domain import JSON, plain
from enginebench.records.launch import LaunchRecord
from enginebench.records.run_folder import Run

VERSION = __version__
FIGURES = "figures.json"
INPUTS = "inputs.json"
ENVIRONMENT = "environment.json"
Numbers: TypeAlias = Mapping[str, Mapping[str, JSON]]
"""'cell 1a2b' or 'row vllm, 4 streams' -> figure -> number, or for the verdict a text."""

_MADE = "made from this reference"
_RUN_FILES = ("run.json", "scenario.yaml", "launches/*.json", "cells/*.json", "samples/*.parquet", "logs/*.log")


def run_files(run: Run) -> dict[str, Path]:
    """Name in the capsule -> file, for every file of the run. Reports and locks are no part of it."""
    found = sorted({file for pattern in _RUN_FILES for file in run.path.glob(pattern) if not file.name.startswith(".")})
    return {f"run/{file.relative_to(run.path).as_posix()}": file for file in found}


def derived_files(run: Run) -> dict[str, bytes]:
    """Name in the capsule -> content: what the run measured with, in files of their own for people and other programs."""
    launches = run.launches()
    return {
        INPUTS: _json(inputs_of(run)),
        ENVIRONMENT: _json({"machine": plain(run.record.machine), "engines": {id_: _engine(launch) for id_, launch in launches.items()}}),
        **{f"locks/{launch.id}.txt": _lock(launch) for launch in launches.values() if launch.startup.packages},
    }


def inputs_of(run: Run) -> dict[str, JSON]:
    """Every input that the run's records name -> its size and hashes, 'made from this reference' for random weights, or null."""
    deployments = [*(cell.deployment for cell in run.cells()), *(launch.deployment for launch in run.launches().values())]
    named = {f"checkpoint {d.checkpoint}": None for d in deployments if d.runtime != "attach"}
    named |= {f"checkpoint {d.speculation.draft}": None for d in deployments if d.speculation is not None and d.speculation.draft}
    loads = [cell.load for cell in run.cells()]
    named |= {f"prompts {load.prompts}": None for load in loads if ":" in load.prompts}
    named |= {f"trace {trace}": None for load in loads if (trace := load.value("trace"))}
    found: dict[str, JSON] = {name: _MADE if name.startswith("checkpoint random:") else None for name in named}
    found |= {name: {"size": None, "sha256": hash_} for cell in run.cells() for name, hash_ in cell.inputs.items()}
    return dict(sorted((found | {name: plain(content) for name, content in run.record.inputs.items()}).items()))


def _engine(launch: LaunchRecord) -> JSON:
    startup = launch.startup
    return {
        "engine": launch.deployment.engine, "version": launch.version, "variant": launch.variant,
        "container": plain(startup.container), "inherited_variables": plain(sorted(startup.inherited)),
        "argv": plain(startup.command.argv) if startup.command else None,
    }  # fmt: skip


def _lock(launch: LaunchRecord) -> bytes:
    packages = sorted(launch.startup.packages.items(), key=lambda item: item[0].lower())
    return "".join(f"{name}=={version}\n" for name, version in packages).encode()


def figures_of(analysis: Analysis) -> bytes:
    """Every figure of every cell and row, with the verdicts and the answer, as figures.json holds them."""
    return _json({"enginebench": VERSION, "answer": analysis.sentence, "numbers": plain(numbers_of(analysis))})


def numbers_of(analysis: Analysis) -> Numbers:
    """The figures of an analysis, by cell and by row."""
    return dict(_numbers(analysis))


def _numbers(analysis: Analysis) -> Iterator[tuple[str, Mapping[str, JSON]]]:
    for row in analysis.rows:
        for cell in row.cells:
            yield _name(cell), {"verdict": cell.verdict, **plain_figures(cell.figures)}
    for i, row in enumerate(analysis.rows):
        ends: dict[str, JSON] = {"verdict": row.verdict}
        for name, found in row.figures.items():
            if found is not None:
                ends |= {name: found.value, f"{name} low": found.low, f"{name} high": found.high}
        yield f"row {i + 1} ({row.name}, {row.load.level_text}, {row.load.shape_text})", ends


def plain_figures(figures: Mapping[str, float | None]) -> dict[str, JSON]:
    return {name: None if value is None else float(value) for name, value in figures.items()}


def _name(cell: CellResult) -> str:
    return f"cell {cell.record.id}" + (f" phase {cell.phase.index}" if cell.phase is not None else "")


def _json(data: JSON) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="replace")
