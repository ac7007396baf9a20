"""Folders of nightly runs with known figures, through the real store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from enginebench.adapter import Install
from enginebench.domain import Cell, ClosedLoop, Deployment, Load
from enginebench.records.cell import CellRecord, CellTraits, Stated
from enginebench.records.launch import LaunchRecord, Startup
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run

LOAD = ClosedLoop(concurrency=4, input_tokens=64, output_tokens=16, requests=40)
VLLM = Deployment("vllm", "olmoe", "bf16", "hf:olmoe")
FIRST = dt.datetime(2026, 9, 1, 2, 17, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Nightly:
    figures: Sequence[tuple[Deployment, Load, Mapping[str, Sequence[float]]]]
    """Of every deployment and load: figure -> values of the restarts."""
    day: int
    """Days after FIRST."""
    hour: int = 0
    version: str = "0.33.0"
    driver: str = "580.65"
    image: str = ""
    harness: str = "0.2.0"
    status: str = "ok"
    random: bool = False
    """Whether the weights are random, which makes the cells suspect."""
    scenario: str = "nightly"
    machine: Mapping[str, str] = field(default_factory=dict)


def store(folder: Path, night: Nightly) -> Path:
    """Write the run of a night."""
    made = [(Cell(served, load, i), each) for served, load, each in night.figures for i in range(len(next(iter(each.values()))))]
    at = FIRST + dt.timedelta(days=night.day, hours=night.hour)
    gpu = {"name": "NVIDIA H100 80GB HBM3", "driver": night.driver}
    machine = {"cpu": "Example 9654", "kernel": "6.1.0", "gpus": [gpu], "enginebench": night.harness, **night.machine}
    record = RunRecord(night.scenario, at.isoformat(), {}, "0", tuple(cell.id for cell, _ in made), machine, night.harness)
    path = folder / f"{at.date().isoformat()}-{night.scenario}-{night.hour}"
    run = Run.create(path, record, "")
    for cell, figures in made:
        container = {"image_digest": night.image} if night.image else {}
        startup = Startup(install=Install("wheel", night.version), container=container)
        run.add_launch(LaunchRecord(cell.launch_id, cell.deployment, cell.repeat, "", startup))
        told = CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, cell.repeat, night.status, identity="proven")
        told = replace(told, traits=CellTraits(random_weights=night.random))
        stated = Stated("made up", {name: float(values[cell.repeat]) for name, values in figures.items()})
        run.add_cell(replace(told, stated=stated) if night.status == "ok" else replace(told, reason="it died"))
    return path
