"""Makes large results and times what reads them: the report of a run of 1,000 cells, and the list of 1,000 runs.

    python benchmarks/stored_runs.py                     # both, in a temporary folder
    python benchmarks/stored_runs.py --cells 200 --runs 50
    python benchmarks/stored_runs.py --folder /tmp/made  # keeps what was made, and uses it again

Prints the wall time of whole processes: cold (nothing is cached yet) and warm (the median of five). The target is a report in under 2 s
and a list in under 1 s, both warm.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from enginebench.domain import JSON, Cell, ClosedLoop, Deployment, Parallelism
from enginebench.machine.folders import HOME_VARIABLE
from enginebench.records.cell import CellRecord, CellTraits, ClientFacts, Delivery, EngineCounters, PromptFacts
from enginebench.records.counters import CounterSeries
from enginebench.records.launch import LaunchRecord, Startup
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.records.subject import VALUES, Subject

STREAMS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192)
CONTEXTS = (128, 1024, 4096, 16384, 32768)
TOKENS = 64
RESTARTS = 4
SECONDS = 30
"""Of telemetry, one reading a second."""
MACHINE: dict[str, JSON] = {
    "cpu": "AMD EPYC 9654", "logical_cores": 96, "usable_cores": 96, "memory_bytes": 768 * 10**9, "architecture": "x86_64",
    "gpus": [{"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 80 * 10**9}] * 2, "driver": "580.65",
}  # fmt: skip


def cells(deployments: int = 5, streams: int = len(STREAMS), contexts: int = len(CONTEXTS), restarts: int = RESTARTS) -> Iterator[Cell]:
    """The cells of a sweep; of the standard size 1,000."""
    served = [Deployment("vllm", "olmoe-1b-7b", "bf16", "hf:olmoe", parallelism=Parallelism(tp=i + 1)) for i in range(deployments)]
    for repeat in range(restarts):
        for deployment in served:
            for context in CONTEXTS[:contexts]:
                for concurrency in STREAMS[:streams]:
                    load = ClosedLoop(concurrency=concurrency, input_tokens=context, output_tokens=TOKENS, requests=256)
                    yield Cell(deployment, load, repeat)


def samples(cell: Cell, requests: int) -> Samples:
    """A closed loop of requests with gamma-distributed gaps between their events."""
    load = cell.load
    lanes = min(int(load.level), requests)
    rng = np.random.default_rng(int(cell.id, 16) % 2**32)
    pace = 5e6 * (1 + 0.04 * lanes) / cell.deployment.parallelism.tp**0.5
    gaps = rng.gamma(4, pace / 4, (requests, TOKENS)).astype(np.int64)
    gaps[:, 0] += 25_000_000
    took = gaps.sum(axis=1)
    index = np.arange(requests)
    sent = np.full(requests, 10**12, np.int64)
    for i in range(lanes, requests):
        sent[i] = sent[i - lanes] + took[i - lanes] + 50_000
    arrivals = sent[:, None] + np.cumsum(gaps, axis=1)
    nothing, unknown = np.zeros(requests, np.int64), np.full(requests, -1, np.int64)
    return Samples(
        index=index, asked_input_tokens=nothing + 128, asked_output_tokens=nothing + TOKENS, due_ns=sent, sent_ns=sent,
        headers_ns=sent + 1000, end_ns=arrivals[:, -1] + 20_000, input_tokens=nothing + 128, output_tokens=nothing + TOKENS,
        cached_tokens=nothing, status_code=nothing + 200, outcome=("ok",) * requests, error=(None,) * requests,
        finish_reason=("length",) * requests, event_ns=arrivals.ravel(), event_tokens=np.ones(requests * TOKENS, np.int32),
        event_chars=np.full(requests * TOKENS, 4, np.int32), offsets=np.arange(requests + 1) * TOKENS, server_timings=(None,) * requests,
        first_answer_ns=arrivals[:, 0].copy(), local_tokens=unknown, conversation=unknown, turn=nothing, reasoning_tokens=unknown,
    )  # fmt: skip


def record(cell: Cell, its: Samples) -> CellRecord:
    at = tuple(10**12 + i * 10**9 for i in range(SECONDS))
    readings = {
        "host": {name: tuple(float(i) * 0.37 for i in range(SECONDS)) for name in VALUES["host"]},
        "processes": {name: tuple(float(i) * 1.37 for i in range(SECONDS)) for name in VALUES["processes"]},
    }
    counters = {
        name: tuple(float(i) for i in range(SECONDS)) for name in ("output_tokens", "running", "waiting", "kv_use", "prompt_tokens")
    }
    health: dict[str, JSON] = {"loop_lag_p99_ms": 0.21, "cpu_fraction": 0.31, "achieved_concurrency": cell.load.level, "loop": "uvloop"}
    return CellRecord(
        cell.id, cell.launch_id, cell.deployment, cell.load, cell.repeat, "ok", started_at="2026-01-02T03:04:05+00:00", wall_s=SECONDS,
        prompts=PromptFacts("ids"), traits=CellTraits(gpus=2), delivery=Delivery((int(its.sent_ns[0]), int(its.end_ns[-1]))),
        client=ClientFacts(health, {"events_per_s": 1e6, "streams": 2048}),
        counters=EngineCounters({"prompt_tokens": 1e5, "cached_tokens": 0.0}, CounterSeries(at, counters, 0.01)),
        telemetry=(
            Subject("host", "this machine", {"cores": 96}, CounterSeries(at, readings["host"], 0.01)),
            Subject("processes", "engine", {}, CounterSeries(at, readings["processes"], 0.01)),
        ),
        identity="proven",
    )  # fmt: skip


def make_run(path: Path, plan: list[Cell], requests: int) -> Run:
    """A finished run of these cells, through the real store."""
    head = RunRecord(
        path.name,
        "2026-01-02T03:00:00+00:00",
        {"title": "made", "repeats": RESTARTS},
        "p" * 12,
        tuple(c.id for c in plan),
        MACHINE,
        "0.2.0",
    )
    run = Run.create(path, head, f"name: {path.name}\n")
    for launch, cell in {cell.launch_id: cell for cell in plan}.items():
        run.add_launch(LaunchRecord(launch, cell.deployment, cell.repeat, "2026-01-02T03:00:00+00:00", Startup(start_s=41.2)))
    for cell in plan:
        made = samples(cell, requests)
        run.add_cell(record(cell, made), made)
    return run


def make_runs(folder: Path, count: int) -> None:
    """So many runs, one a day: a run of 16 cells, copied with another name and date."""
    template = make_run(folder.parent / "template", list(cells(2, 2, 1)), 16)
    for i in range(count):
        day = dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=i)
        path = folder / f"{day.date().isoformat()}-nightly"
        shutil.copytree(template.path, path)
        run = Run(path)
        run.update(replace(run.record, name="nightly", created_at=day.isoformat(timespec="seconds")))


def seconds(home: Path, *arguments: str, repeats: int = 1) -> float:
    """Median wall time of `bench` with these arguments."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "enginebench", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, HOME_VARIABLE: str(home)},
        )
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        large, many = folder / f"run-{given.cells}-{given.requests}", folder / f"runs-{given.runs}"
        if given.cells and not large.exists():
            make_run(large, list(islice(cells(), given.cells)), given.requests)
        if given.runs and not many.exists():
            make_runs(many, given.runs)
        with tempfile.TemporaryDirectory() as home:
            for what, target, arguments in (
                (f"report of {given.cells:,} cells of {given.requests} requests", given.cells, ("report", str(large))),
                (f"list of {given.runs:,} runs", given.runs, ("list", str(many))),
            ):
                if target:
                    cold, warm = seconds(Path(home), *arguments), seconds(Path(home), *arguments, repeats=5)
                    print(f"{what}: {cold:.2f} s cold, {warm:.2f} s warm")


if __name__ == "__main__":
    main()
