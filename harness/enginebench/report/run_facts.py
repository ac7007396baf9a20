"""Facts of a run in a few words: its machine, its size, how long it took, the versions of its engines. Knows no output form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.machine_text import cpu_text, machine_text
from enginebench.domain import JSON
from enginebench.domain.formatting import counted, duration, size


def took_text(analysis: Analysis) -> str:
    """From the start of the first cell to the end of the last, if it was one session without a long pause."""
    records = [cell.record for row in analysis.rows for cell in row.cells if cell.record.started_at and cell.record.wall_s is not None]
    if not records:
        return ""
    starts = [datetime.fromisoformat(record.started_at or "").timestamp() for record in records]
    ends = [start + (record.wall_s or 0.0) for start, record in zip(starts, records, strict=True)]
    return duration(max(ends) - min(datetime.fromisoformat(analysis.run.created_at).timestamp(), *starts))


def cells_text(analysis: Analysis) -> str:
    """'31 of 32 cells ok, 1 failed'"""
    counts = analysis.counts
    bad = [f"{count} {status}" for status, count in counts.items() if count and status != "ok"]
    return ", ".join([f"{counts['ok']} of {counted(len(analysis.run.cells), 'cell')} ok", *bad])


def size_text(analysis: Analysis) -> str:
    """'2 deployments x 4 loads x 4 restarts'"""
    loads, repeats = len({row.load for row in analysis.rows}), max((len(row.cells) for row in analysis.rows), default=0)
    parts = [counted(len({(row.deployment.model, row.name) for row in analysis.rows}), "deployment"), counted(loads, "load")]
    fewest = min((len(row.cells) for row in analysis.rows), default=0)
    if analysis.run.auto_repeats is not None and fewest < repeats:
        return " x ".join([*parts, f"{fewest} to {repeats} restarts"])
    return " x ".join([*parts, *([counted(repeats, "restart")] if repeats > 1 else [])])


def facts(analysis: Analysis) -> dict[str, list[str]]:
    """Name -> lines: what the answer holds for."""
    machine, run = analysis.run.machine, analysis.run
    memory = machine.get("memory_bytes")
    hardware = [machine_text(machine), cpu_text(machine) if machine.get("gpus") else "", size(memory) if isinstance(memory, int) else ""]
    when = run.created_at.replace("T", " ").replace("+00:00", " UTC")
    found = {
        "Hardware": hardware,
        "Model": list(dict.fromkeys(row.deployment.model for row in analysis.rows)),
        "Versions": [*_versions(analysis), *_harness(machine, run.enginebench)],
        "Run": [when, size_text(analysis), cells_text(analysis), took_text(analysis)],
    }
    return {name: lines for name, its in found.items() if (lines := [line for line in its if line])}


def _versions(analysis: Analysis) -> list[str]:
    """Each engine with the versions that its servers reported."""
    found: dict[str, dict[str, None]] = {}
    for launch in analysis.launches.values():
        if launch.version:
            found.setdefault(launch.deployment.engine, {})[launch.version] = None
    return [f"{engine} {' / '.join(versions)}" for engine, versions in found.items()]


def _harness(machine: Mapping[str, JSON], version: str) -> list[str]:
    known = [f"{name} {machine[name]}" for name in ("driver", "cuda") if machine.get(name)]
    return [*known, f"enginebench {version}"]
