"""Small runs with known speed, written through the real store: many of them in a moment, for what works on more than one run."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.adapter import Install
from enginebench.domain import Cell, ClosedLoop, Deployment, Sample
from enginebench.records.cell import CellRecord, ClientFacts, Delivery, PromptFacts
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples

from .conftest import MACHINE, Pace, synthetic_launch, synthetic_samples

PACES = {"llamacpp": Pace(0.020, 0.0050), "vllm": Pace(0.030, 0.0042)}


def cells(label: str | None = None, streams: tuple[int, ...] = (1, 4), repeats: int = 4) -> list[Cell]:
    """The plan of a small run: two engines, of which the second has this label."""
    return [
        Cell(
            Deployment(engine, "any", "f16", "hf:any", label=label if engine == "vllm" else None),
            ClosedLoop(concurrency=n, input_tokens=128, output_tokens=16, requests=16),
            repeat,
        )
        for repeat in range(repeats)
        for engine in PACES
        for n in streams
    ]


def two_token_samples(*, cached: int | None = None, timings: Mapping[str, float] | None = None) -> Samples:
    """Four requests with 10 prompt tokens, of which `cached` came from a prefix cache, and two events of one token each; times in ns."""
    stamps = [array("q", [2 + i, 3 + i]) for i in range(4)]
    one = array("i", [1, 1])
    known: dict[str, Any] = {"input_tokens": 10, "output_tokens": 2, "cached_tokens": cached, "server_timings": timings}
    return Samples.collect([Sample(i, 10, 2, 1, 1 + i, 1, 9 + i, stamps[i], one, one, **known) for i in range(4)])


def small_run(
    path: Path, created_at: str, *, name: str = "night", title: str = "Two engines", slower: float = 1.0, label: str | None = None,
    measured: int | None = None, version: str = "1.2.3", streams: tuple[int, ...] = (1, 4),
) -> Run:  # fmt: skip
    """slower: factor on the times of vllm. measured: cells that are stored; None: all."""
    plan = cells(label, streams)
    record = RunRecord(name, created_at, {"name": name, "title": title}, "0123456789ab", tuple(c.id for c in plan), MACHINE, "0.1.0")
    run = Run.create(path, record, f"name: {name}\n")
    for cell in plan[:measured]:
        add(run, cell, slower=slower, version=version)
    return run


def add(run: Run, cell: Cell, *, slower: float = 1.0, version: str = "1.2.3") -> None:
    """Store one cell as measured."""
    engine, base = cell.deployment.engine, PACES[cell.deployment.engine]
    factor = (slower if engine == "vllm" else 1.0) * (1 + 0.004 * ((cell.repeat + len(engine)) % 4))
    client = ClientFacts(
        {"loop_lag_p99_ms": 0.1, "cpu_fraction": 0.1, "achieved_concurrency": float(cell.load.concurrency or 0), "loop": "uvloop"}
    )
    record = CellRecord(
        cell.id, cell.launch_id, cell.deployment, cell.load, cell.repeat, "ok", started_at="2026-01-02T03:04:05+00:00", wall_s=2.0,
        client=client, identity="proven", delivery=Delivery((1_000_000_000, 60_000_000_000)), prompts=PromptFacts("ids"),
    )  # fmt: skip
    launch = synthetic_launch(replace(cell, deployment=replace(cell.deployment, label=None)))
    launch.deployment = cell.deployment
    launch.startup = replace(launch.startup, install=Install("wheel", version))
    launch.parity = ()
    run.add_launch(launch)
    run.add_cell(record, synthetic_samples(cell.load, Pace(base.ttft_s * factor, base.tpot_s * factor), seed=cell.repeat))
