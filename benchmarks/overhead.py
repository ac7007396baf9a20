"""Measures the overhead of the harness: between cells, around a launch, at plan time, in memory. `make bench-overhead`.

Uses the fake engine. The time around a launch is compared with a bare start of the same engine in the same session, so that other load
slows both. Prints a table; asserts nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from enginebench.adapter import WORKERS
from enginebench.records.run_folder import Run, open_run
from enginebench.runtime import free_port

CELLS = """
name: overhead
deployments:
  - {engine: fake, model: any, precision: none, options: {ttft_ms: 5, itl_ms: 1, slots: [4, 5]}}
loads:
  - {concurrency: 4, input_tokens: [16, 17, 18, 19, 20, 21, 22, 23], output_tokens: 16, requests: 16, warmup_requests: 0}
repeats: 2
"""
WIDE = """
name: wide
deployments:
  - {engine: fake, model: any, precision: none, options: {ttft_ms: [1, 2, 3, 4, 5], itl_ms: [1, 2]}}
loads:
  - concurrency: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    input_tokens: [16, 32, 64, 128, 256]
    output_tokens: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
repeats: 2
"""
MILLION = """
import resource, sys
from enginebench.dialects import OpenAICompletions
from enginebench.loadgen import LoadSpec, Target, WireRequest, run_load
from enginebench.records.samples import Samples
import pyarrow.parquet
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
body = b'{"model":"any","prompt":"a","max_tokens":10000,"stream":true,"stream_options":{"include_usage":true}}'
requests = [WireRequest(i, "/v1/completions", body, 1, 10000) for i in range(100)]
result = run_load(LoadSpec(Target("127.0.0.1", int(sys.argv[1])), requests, 16, OpenAICompletions(), 300.0))
events = sum(len(s.event_ns) for s in result.samples)
samples = Samples.collect(result.samples)
samples.write(sys.argv[2])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unit = 1024 if sys.platform != "darwin" else 1
print(events, base * unit, peak * unit)
"""


def bench(folder: Path, *arguments: str) -> float:
    """Run `bench` and return its wall time in s."""
    began = time.monotonic()
    environment = {**os.environ, "ENGINEBENCH_HOME": str(folder / "home")}
    subprocess.run([sys.executable, "-m", "enginebench", *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def gaps(run: Run) -> tuple[list[float], list[float]]:
    """Seconds from the end of one window to the start of the next: within a deployment, and across launches."""
    windows = sorted((cell.delivery.window_ns, cell.launch_id) for cell in run.cells() if cell.delivery.window_ns)
    within: list[float] = []
    across: list[float] = []
    for (before, a), (after, b) in itertools.pairwise(windows):
        (within if a == b else across).append((after[0] - before[1]) / 1e9)
    return sorted(within), sorted(across)


def bare_engine() -> float:
    """Seconds to start the fake engine, wait until it is healthy and end it, with subprocess only."""
    port = free_port()
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, str(WORKERS / "fake_worker.py"), "--port", str(port)], stdout=subprocess.DEVNULL)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.005)
    process.terminate()
    process.wait()
    return time.monotonic() - began


def million_events(folder: Path) -> tuple[int, float, float]:
    """(events, peak memory in MB, growth in MB) of one cell, including writing its samples."""
    port = free_port()
    engine = subprocess.Popen(
        [sys.executable, str(WORKERS / "fake_worker.py"), "--port", str(port), "--ttft-ms", "1", "--itl-ms", "0"], stdout=subprocess.DEVNULL
    )
    try:
        time.sleep(1)
        done = subprocess.run(
            [sys.executable, "-c", MILLION, str(port), str(folder / "m.parquet")], check=True, capture_output=True, text=True
        )
    finally:
        engine.terminate()
        engine.wait()
    events, base, peak = map(int, done.stdout.split())
    return events, peak / 1e6, (peak - base) / 1e6


def main() -> None:
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cells.yaml").write_text(CELLS)
        (folder / "wide.yaml").write_text(WIDE)
        bench(folder, "run", "cells.yaml", "--no-html")
        (path,) = (folder / "results").iterdir()
        within, across = gaps(open_run(path))
        bare = sorted(bare_engine() for _ in range(5))[2]
        median_across = across[len(across) // 2]
        rows.append(("between two cells of a deployment, median", f"{within[len(within) // 2]:.3f} s", "under 0.3 s"))
        rows.append(("between two cells of a deployment, worst", f"{within[-1]:.3f} s", f"n={len(within)}"))
        rows.append(
            ("around a launch, beyond the engine's own start and stop", f"{median_across - bare:.3f} s", f"under 1 s (bare: {bare:.3f} s)")
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "enginebench", "plan", "wide.yaml", "--json"], cwd=folder, check=True, capture_output=True, text=True
        )
        rows.append((f"bench plan of {json.loads(done.stdout)['cells']:,} cells", f"{time.monotonic() - began:.2f} s", "under 2 s"))
        help_s = sorted(bench(folder, "--help") for _ in range(5))[2]
        rows.append(("bench --help", f"{help_s:.3f} s", "under 0.25 s"))
        events, peak, growth = million_events(folder)
        rows.append((f"one cell of {events:,} stream events, samples written", f"{peak:.0f} MB (+{growth:.0f})", "under 300 MB"))
    width = max(len(row[0]) for row in rows)
    for name, figure, target in rows:
        print(f"{name:<{width}}  {figure:>16}  {target}")


if __name__ == "__main__":
    main()
