"""The offload curve that `bench offload` predicts beside the one that was measured, as a table and as JSON.

Reads the newest run in a folder, whose deployments differ in n_cpu_moe. Speeds are of decoding: streams over the median time per token. The
host's bandwidth is measured here, as in every run. Exit code 1 where a measured speed is above the bound, which then is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import enginebench as eb
import psutil
from enginebench.machine.accelerators import gpus
from enginebench.physics.detect import local_machine
from enginebench.physics.this_cpu import memory_bandwidth

SLACK = 1.02


def measured(run: eb.Run) -> Iterator[tuple[int, int, float]]:
    """(layers whose experts are on the host, streams, tokens per second while decoding) of every cell that has them."""
    for row in run.analysis.rows:
        per_token, layers = row.figures["tpot_p50"], row.deployment.options.get("n_cpu_moe")
        streams = getattr(row.load, "concurrency", None)
        if per_token is not None and isinstance(layers, int) and isinstance(streams, int):
            yield layers, streams, streams / per_token.value


def compared(run: eb.Run, file: Path) -> list[dict[str, Any]]:
    machine = local_machine(gpus())
    if machine is None:
        sys.exit("offload_compared.py: this GPU is not in the catalogue, so nothing is predicted for it")
    hardware = f"{machine.device.name}+{psutil.virtual_memory().total // 10**9}gb"
    lines = []
    for layers, streams, speed in sorted(measured(run), key=lambda each: (each[1], each[0])):
        context = max(row.deployment.max_context for row in run.analysis.rows)
        curve = eb.offload(str(file), hardware, host_gb_s=memory_bandwidth() / 1e9, context=context, concurrency=streams)
        split = next(each for each in curve.splits if each.layers == layers)
        bound, expected = split.step.tokens_per_s, split.expected.to_dict() if split.expected else None
        lines.append(
            {"layers": layers, "streams": streams, "bound": bound, "expected": expected, "measured": speed, "share": speed / bound}
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--file", type=Path, required=True, help="the GGUF that was served")
    given = parser.parse_args()
    lines = compared(eb.latest_run(given.results), given.file)
    Path("offload.json").write_text(json.dumps({"host_bytes_s": memory_bandwidth(), "splits": lines}, indent=1, default=str) + "\n")
    print(f"host memory: {memory_bandwidth() / 1e9:.1f} GB/s")
    print(f"{'streams':>7} {'N':>3} {'tok/s at most':>14} {'measured':>9} {'share':>6}")
    for each in lines:
        print(f"{each['streams']:>7} {each['layers']:>3} {each['bound']:14.1f} {each['measured']:9.1f} {each['share']:6.0%}")
    return 1 if any(each["share"] > SLACK for each in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
