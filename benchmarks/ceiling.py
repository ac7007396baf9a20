"""Measures how close llama.cpp comes to the roofline on this machine, with random-weight GGUFs larger than the caches. `make
bench-ceiling`.

Two mixtures of experts and a dense model, in several precisions, at batch 1 to 16, through llama-server and enginebench's load generator.
Several passes over all models, alternately forwards and backwards, so that drift of the machine affects all alike. Each measurement is one
line of FOLDER/measured.jsonl, with the CPU time that the hypervisor took meanwhile; `predicted.py` compares them with the ceiling. Weights
are random, so routing is nearly uniform. Needs Linux, `bench engines install llamacpp`, 20 GB of disk and 12 GB of memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from enginebench.adapter import Site
from enginebench.checkpoints.gguf_file import write_gguf
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.dialects import OpenAICompletions
from enginebench.domain import Deployment, Sample
from enginebench.engines.environments import Pins, python_of
from enginebench.engines.registry import constraints_of, discover
from enginebench.loadgen import LoadSpec, Target, WireRequest, run_load
from enginebench.physics.this_cpu import this_cpu
from enginebench.runtime import free_port

_ATTENTION = "hidden=2048&heads=16&kv_heads=4&head_dim=128&context=4096"
SHAPES = {
    "dense": f"random:llama?{_ATTENTION}&layers=28&experts=1&top_k=1&expert_intermediate=8192",
    "8-top-2": f"random:mixtral?{_ATTENTION}&layers=8&experts=8&top_k=2&expert_intermediate=4096",
    "64-top-8": f"random:qwen3moe?{_ATTENTION}&layers=6&experts=64&top_k=8&expert_intermediate=768",
    "8-top-2-large": f"random:mixtral?{_ATTENTION}&layers=24&experts=8&top_k=2&expert_intermediate=4096",
}
CASES = (
    ("dense", "q8_0"), ("8-top-2", "q8_0"), ("64-top-8", "q8_0"), ("dense", "q4_0"), ("8-top-2", "q4_0"), ("64-top-8", "q4_0"),
    ("dense", "f16"), ("8-top-2", "f16"), ("8-top-2-large", "q8_0"),
)  # fmt: skip
"""(shape, precision) in the order of the first pass; every second pass goes backwards."""
PROMPT = 2
"""Prompt tokens; as few as possible, so that prefill and KV cache take no time compared with the weights."""
STEPS = {1: 24, 2: 20, 4: 14, 8: 10, 16: 8}
"""Output tokens of each sequence, by batch."""


def weights(folder: Path, shape: str, precision: str) -> Path:
    """The GGUF of a case. Written once, which takes a minute per two billion weights."""
    path = folder / f"{shape}-{precision}.gguf"
    if not path.exists():
        write_gguf(RandomMoE.from_reference(SHAPES[shape]), precision, path)
    return path


@contextmanager
def serving(folder: Path, file: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Run llama.cpp as `bench run` starts it, with a slot for every request. Yields its port and process.

    The file is read, not mapped; otherwise the first use of an expert would wait for the disk or for page faults.
    """
    adapter = discover()["llamacpp"]
    python = python_of(adapter.name, Pins(adapter.requirements, constraints_of(adapter)))
    deployment = Deployment(
        "llamacpp",
        "random",
        "f16",
        str(file),
        max_context=PROMPT + max(STEPS.values()) + 8,
        max_concurrency=max(STEPS),
        options={"gpu_layers": 0, "load_mode": "none"},
    )
    install = adapter.choose(deployment, adapter.find(python))
    port = free_port()
    launch = adapter.launch(deployment, install, Site("127.0.0.1", port, folder, str(file)))
    with (
        (folder / "server.log").open("wb") as log,
        subprocess.Popen(launch.argv, stdout=log, stderr=log, env=os.environ | dict(launch.env)) as server,
    ):
        try:
            _wait(port, server)
            yield port, psutil.Process(server.pid)
        finally:
            server.kill()


def _wait(port: int, server: subprocess.Popen[bytes], patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):  # our own server on the loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)  # not within a measurement
    sys.exit("llama.cpp did not start; see server.log in the folder")


def decode(port: int, server: psutil.Process, batch: int, steps: int, seed: int) -> dict[str, Any]:
    """Decode `batch` sequences at once, each with its own prompt and seed, and measure the steps in which all of them took part."""
    rng = np.random.default_rng(seed)
    dialect = OpenAICompletions()
    requests = [
        WireRequest(i, dialect.path, json.dumps(_body(rng.integers(300, 900, PROMPT).tolist(), steps, seed + i)).encode(), PROMPT, steps)
        for i in range(batch)
    ]
    stolen, others, ran = *_disturbance(server), time.monotonic()
    result = run_load(LoadSpec(Target("127.0.0.1", port), requests, batch, dialect, 120.0))
    seconds = (time.monotonic() - ran) * (os.cpu_count() or 1)
    after = _disturbance(server)
    bad = [sample for sample in result.samples if sample.outcome != "ok" or sample.output_tokens != steps]
    if bad:
        sys.exit(f"batch {batch}: {len(bad)} requests failed: {bad[0].outcome} {bad[0].error}")
    gaps = steps_together(result.samples)
    found = {"batch": batch, "step_s": statistics.median(gaps), "quickest_s": min(gaps), "steps": len(gaps)}
    return found | {"stolen": (after[0] - stolen) / seconds, "others": (after[1] - others) / seconds}


def _disturbance(server: psutil.Process) -> tuple[float, float]:
    """CPU seconds that the hypervisor gave to other machines, and that other programs used."""
    everything, own = psutil.cpu_times(), (server.cpu_times(), psutil.Process().cpu_times())
    busy = sum(everything) - everything.idle - everything.iowait - everything.steal - everything.guest - everything.guest_nice
    return everything.steal, busy - sum(each.user + each.system for each in own)


def _body(prompt: list[int], steps: int, seed: int) -> dict[str, Any]:
    forced = {"max_tokens": steps, "ignore_eos": True, "cache_prompt": False, "stream": True, "stream_options": {"include_usage": True}}
    return {"model": "random", "prompt": prompt, "temperature": 1.0, "seed": seed, **forced}


def steps_together(samples: Sequence[Sample]) -> list[float]:
    """Seconds between tokens of each stream while all streams decoded."""
    begin, end = max(s.event_ns[0] for s in samples), min(s.event_ns[-1] for s in samples)
    gaps = [
        (late - early) / 1e9
        for s in samples
        for early, late in itertools.pairwise(s.event_ns)
        if begin <= early and late <= end + 1_000_000
    ]
    if not gaps:
        sys.exit("no step in which every sequence took part: the server did not batch them")
    return gaps


def measure(folder: Path, shape: str, precision: str, turn: int) -> Iterator[dict[str, Any]]:
    """One line per batch. The machine's limits are measured again for each model, because they depend on other load."""
    file = weights(folder, shape, precision)
    machine = this_cpu.__wrapped__()
    about = {"shape": shape, "precision": precision, "turn": turn, "bytes_s": machine.bandwidth, "fp32": machine.flops["fp32"]}
    with serving(folder, file) as (port, server):
        decode(port, server, 1, 2, 0)  # warm-up
        for batch, steps in sorted(STEPS.items(), reverse=bool(turn % 2)):
            yield about | decode(port, server, batch, steps, 1000 * turn + batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for weights and measurements")
    parser.add_argument("--passes", type=int, default=4, help="over all models: forwards, backwards, forwards, ...")
    parser.add_argument("--only", type=int, metavar="N", help="only the Nth measurement, counted from 0 over all passes")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    turns = [(turn, case) for turn in range(given.passes) for case in CASES[:: -1 if turn % 2 else 1]]
    for turn, (shape, precision) in turns if given.only is None else [turns[given.only]]:
        for line in measure(given.folder, shape, precision, turn):
            with (given.folder / "measured.jsonl").open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(
                f"{shape:14} {precision:5} batch {line['batch']:>2}: {line['batch'] / line['step_s']:7.2f} tok/s; "
                f"{line['stolen']:.0%} of the time stolen, {line['others']:.0%} to other programs",
                flush=True,
            )


if __name__ == "__main__":
    main()
