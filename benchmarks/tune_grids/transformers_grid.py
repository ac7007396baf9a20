"""The exhaustive grid of benchmarks/tune.py on transformers: 60 combinations of options, in one process of the engine's environment.

        PYTHONPATH=adapters/workers OMP_NUM_THREADS=1 ENGINE/bin/python benchmarks/tune_grids/transformers_grid.py CHECKPOINT START_S OUT

The worker of the adapter loads the model anew for each combination and batches as in-process; a server start for each would be a minute of
importing torch on a busy machine. The figure is output tokens per second of CPU time of the process. START_S: engine time of one server
start, which the replay charges for each restart. One line of tune_measured.jsonl is added to OUT.
"""

import itertools
import json
import sys
import time
from pathlib import Path

from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.integrations import moe
from transformers_flags import parser
from transformers_worker import Offline
from worker_protocol import Batch

OPTIONS = {
    "experts_implementation": [None, "eager", "batched_mm"],
    "attn_implementation": [None, "eager"],
    "cb_page_size": [None, 32],
    "cb_max_batch_tokens": [None, 32, 64, 128, 1024],
}
OBSERVED = moe.ExpertsInterface.get_interface, moe._can_use_grouped_mm, PagedAttentionCache.search_prefix_match  # noqa: SLF001
"""What the worker wraps to observe it: put back before each engine, or the wrappers would add up."""
STREAMS, PROMPTS, INPUT, OUTPUT = 4, 8, 96, 8
TWICE = 10
"""Combinations that are measured twice, for the noise."""


def flags(checkpoint: str, options: dict[str, object]) -> list[str]:
    """As the adapter writes them."""
    page = int(str(options["cb_page_size"] or 256))
    blocks = 2 * STREAMS * -(-(INPUT + OUTPUT) // page)
    fixed = ["--dtype", "float32", "--device", "cpu", "--cb-num-blocks", str(blocks), "--cb-max-requests-per-batch", str(STREAMS)]
    chosen = [word for name, value in options.items() if value is not None for word in (f"--{name.replace('_', '-')}", str(value))]
    return [checkpoint, *fixed, *chosen]


def measure(checkpoint: str, options: dict[str, object], seed: int) -> tuple[float, float]:
    """Output tokens per second of CPU time, and the seconds that the batch took."""
    moe.ExpertsInterface.get_interface, moe._can_use_grouped_mm, PagedAttentionCache.search_prefix_match = OBSERVED  # noqa: SLF001
    engine = Offline(parser().parse_args(["offline", *flags(checkpoint, options)]))
    prompts = [[(seed * 7919 + 31 * i + j) % 500 + 10 for j in range(INPUT)] for i in range(PROMPTS)]
    wall, cpu = time.monotonic(), time.process_time()
    outcome = engine.run(Batch(prompts, output_tokens=OUTPUT, batch=STREAMS))
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    assert len(outcome.requests) == PROMPTS  # noqa: S101
    return PROMPTS * OUTPUT / cpu, wall


def main(checkpoint: str, start_s: str, out: str) -> None:
    found: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    grid = list(itertools.product(*OPTIONS.values()))
    for point in [*grid, *grid[:: len(grid) // TWICE]]:
        its = found.setdefault(point, [])
        its.append(measure(checkpoint, dict(zip(OPTIONS, point, strict=True)), len(its)))
        print(point, [round(value, 1) for value, _ in its], file=sys.stderr, flush=True)
    points = [
        {
            "options": dict(zip(OPTIONS, point, strict=True)),
            "values": [round(value, 2) for value, _ in its],
            "start_s": float(start_s),
            "cells_s": round(sum(wall for _, wall in its) / len(its), 2),
        }
        for point, its in found.items()
    ]
    line = {"engine": "transformers", "precision": "f32", "measured": time.strftime("%Y-%m-%d"), "fixed": {"threads": 1}}
    with Path(out).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "options": [[name, values] for name, values in OPTIONS.items()], "points": points}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
