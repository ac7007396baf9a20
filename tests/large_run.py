"""A run of 360 cells as `scenarios/scout_4xh100.yaml` plans it: ten deployments, twelve loads with four contexts, three restarts.

Its figures are invented: samples come from arithmetic, as those of `conftest.synthetic_run`. For the size of a page, and to look at one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from enginebench.domain import Cell, ClosedLoop, Deployment, Parallelism
from enginebench.metrics.slo import Slo
from enginebench.records.cell import CellRecord, CellTraits, ClientFacts, Delivery, EngineCounters, PromptFacts
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples

from .conftest import MACHINE, Pace, synthetic_launch, synthetic_samples, synthetic_series

DEPLOYMENTS = tuple(
    Deployment(engine, "scout", precision, "hf:scout", runtime="docker", parallelism=Parallelism(tp=tp, ep=ep), options=options)
    for engine, precision, tp, ep, options in (
        ("vllm", "bf16", 4, 1, {}), ("vllm", "fp8", 4, 1, {}), ("vllm", "bf16", 4, 4, {}), ("vllm", "fp8", 4, 4, {}),
        ("vllm", "fp8", 2, 1, {}), ("vllm", "fp8", 2, 1, {"connector": "NixlConnector"}), ("sglang", "bf16", 4, 4, {}),
        ("sglang", "fp8", 4, 4, {}),
        ("sglang", "fp8", 4, 4, {"attention_backend": "fa3"}), ("trtllm", "fp8", 4, 1, {}),
    )
)  # fmt: skip
"""Order: engine, precision, tp, ep, options."""
PACES = ((0.030, 0.0080), (0.026, 0.0061), (0.031, 0.0075), (0.027, 0.0058), (0.034, 0.0085), (0.029, 0.0090), (0.028, 0.0072),
         (0.022, 0.0056), (0.023, 0.0057), (0.040, 0.0050))  # fmt: skip
"""Seconds to the first token, and per token, of each."""
LOADS = ((1792, (1, 4, 16, 64, 256)), (7936, (1, 8, 64)), (32512, (1, 8)), (130816, (1, 2)))
REPEATS = 3
OUTPUT_TOKENS = 32
SLO = Slo(ttft_s=2.0, tpot_s=0.05)


def cells(deployments: int = len(DEPLOYMENTS)) -> Iterator[Cell]:
    for repeat in range(REPEATS):
        for deployment in DEPLOYMENTS[:deployments]:
            for tokens, levels in LOADS:
                for streams in levels:
                    load = ClosedLoop(concurrency=streams, input_tokens=tokens, output_tokens=OUTPUT_TOKENS, requests=max(24, streams // 4))
                    yield Cell(deployment, load, repeat)


def large_run(folder: Path, *, deployments: int = len(DEPLOYMENTS)) -> Run:
    """deployments: 36 cells each."""
    all_cells = list(cells(deployments))
    ids = tuple(each.id for each in all_cells)
    scenario = {
        "name": "scout_4xh100",
        "file": "scout_4xh100.yaml",
        "title": "Llama 4 Scout on 4x H100 (synthetic figures)",
        "repeats": REPEATS,
    }
    slo = {"ttft_s": SLO.ttft_s, "tpot_s": SLO.tpot_s}
    run = Run.create(
        folder, RunRecord("scout_4xh100", "2026-01-02T03:00:00+00:00", scenario, "0123456789ab", ids, MACHINE, "0.2.0", slo), ""
    )
    for cell in all_cells:
        if cell.load == all_cells[0].load:
            run.add_launch(replace(synthetic_launch(replace(cell, deployment=replace(cell.deployment, engine="vllm"))),
                               id=cell.launch_id, deployment=cell.deployment))  # fmt: skip
        run.add_cell(_record(cell), _samples(cell))
    return run


def _samples(cell: Cell) -> Samples:
    place = DEPLOYMENTS.index(cell.deployment)
    first, each = PACES[place]
    drift = 1 + 0.008 * ((cell.repeat + place) % REPEATS - 1)
    crowd = 1 + 0.02 * cell.load.level * (1.3 if place % 3 else 0.9)  # the curves cross
    pace = Pace(first * drift / 40 * crowd**0.5, each * drift * crowd**0.6 / (1 + 0.12 * (cell.load.level - 1)))
    return synthetic_samples(cell.load, pace, seed=cell.repeat + 3 * place)


def _record(cell: Cell) -> CellRecord:
    health = {"loop_lag_p99_ms": 0.21, "cpu_fraction": 0.31, "achieved_concurrency": cell.load.level, "loop": "uvloop"}
    known = {"started_at": "2026-01-02T03:04:05+00:00", "identity": "proven"}
    record = CellRecord(
        cell.id, cell.launch_id, cell.deployment, cell.load, cell.repeat, "ok", wall_s=12.5, client=ClientFacts(health), **known
    )  # fmt: skip
    counters = EngineCounters({"prompt_tokens": float(cell.load.requests)}, series=synthetic_series(cell.load))
    delivery = Delivery((1_000_000_000, 60_000_000_000))
    return replace(record, counters=counters, delivery=delivery, prompts=PromptFacts("ids"), traits=CellTraits(gpus=4))
