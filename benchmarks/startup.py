"""Measures start-up time: the load generator with one request of one token, and `bench run` with one request."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from instrument import serving
from targets import BENCH_RUN, LOAD_GENERATOR

ONE_REQUEST = """
import sys
from enginebench.dialects import OpenAICompletions
from enginebench.loadgen import LoadSpec, Target, WireRequest, run_load
body = b'{"model":"truth","prompt":"a","max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}'
spec = LoadSpec(Target("127.0.0.1", int(sys.argv[1])), [WireRequest(0, "/v1/completions", body, 1, 1)], 1, OpenAICompletions(), 10.0)
assert run_load(spec).samples[0].outcome == "ok"
"""
ATTACH = """
name: one
deployments: [{{engine: openai, model: truth, runtime: attach, url: "http://127.0.0.1:{port}"}}]
loads: [{{input_tokens: 8, output_tokens: 1, requests: 1, warmup_requests: 0}}]
"""


def seconds(program: Path, folder: Path, core: int, times: int) -> dict[str, float]:
    """Median seconds of each command, run alternately. The server has its own core."""
    with serving(program, ("--ttft-ms", "0.1", "--itl-ms", "0.1"), None, core) as server:
        (folder / "one.yaml").write_text(ATTACH.format(port=server.port))
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["ENGINEBENCH_HOME"] = str(folder / "home")
        bench = [sys.executable, "-m", "enginebench", "run", "one.yaml", "--fresh", "--no-html"]
        commands = {
            LOAD_GENERATOR: [sys.executable, "-c", ONE_REQUEST, str(server.port)],
            BENCH_RUN: bench,
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(times):
            for name, argv in commands.items():
                began = time.monotonic()
                subprocess.run(argv, cwd=folder, env=environment, check=True, capture_output=True)
                took[name].append(time.monotonic() - began)
    return {name: statistics.median(values) for name, values in took.items()}
