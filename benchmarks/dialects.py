"""Runs other load generators against two servers, imports what they write, and compares three figures: true, the tool's own, imported.

    python benchmarks/dialects.py --out FOLDER [TOOL...]    # keeps the tools' files in FOLDER/<server>/<tool>
    python benchmarks/dialects.py --write                   # also their lines in dialects_measured.jsonl, of which docs/dialects.md is made

truthserver logs when each token was sent, which gives the true figures; of the fake engine the pace is known, so its latencies are.
Tools are found as `benchmarks/rivals.py` says. The load is short: it shows definitions. docs/fidelity.md has the errors under load.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dialect_tools
import enginebench
import numpy as np
from enginebench.adapter import WORKERS
from enginebench.metrics.context import Context
from enginebench.metrics.registry import figures_of
from enginebench.records.run_folder import Run
from enginebench.runtime import free_port
from instrument import build, records, serving
from rival_tools import RIVALS
from rivals import INPUT_TOKENS, MODEL, Rival, RivalError, Work, _run, write_tokenizer

MEASURED = Path(__file__).with_name("dialects_measured.jsonl")
STREAMS, REQUESTS, TOKENS = 4, 40, 16
SERVER = ("--ttft-ms", "40", "--ttft-sigma", "0.3", "--itl-ms", "5", "--itl-sigma", "0.3", "--spin")
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Tool:
    """A tool with the arguments that make it write single requests, and its own figures."""

    package: str
    more: Callable[[Work], list[str]]
    file: str
    """Name of the file to import, at any depth."""
    own: Callable[[Path], Figures]
    """Folder -> the tool's own figures, in the metrics' units."""


def serving_figures(name: str) -> Callable[[Path], Figures]:
    def read(folder: Path) -> Figures:
        report = json.loads(next(folder.rglob(name)).read_text().splitlines()[0])
        latencies = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2el": "e2e", "e2e_latency": "e2e"}
        found = {
            f"{ours}_{q}": report[f"{word}_{theirs}_ms"] / 1e3
            for theirs, ours in latencies.items()
            for word, q in (("median", "p50"), ("p90", "p90"))
            if f"{word}_{theirs}_ms" in report
        }
        return {**found, **{name: report[name] for name in ("output_throughput", "request_throughput")}}

    return read


def guidellm_figures(folder: Path, name: str = "guidellm.json") -> Figures:
    metrics = json.loads(next(folder.rglob(name)).read_text())["benchmarks"][0]["metrics"]
    names = {"time_to_first_token_ms": "ttft", "inter_token_latency_ms": "tpot"}
    found = {f"{ours}_{q}": metrics[theirs]["successful"]["percentiles"][q] / 1e3 for theirs, ours in names.items() for q in ("p50", "p90")}
    e2e = metrics["request_latency"]["successful"]["percentiles"]
    rates = {"output_tokens_per_second": "output_throughput", "requests_per_second": "request_throughput"}
    return {
        **found,
        "e2e_p50": e2e["p50"],
        "e2e_p90": e2e["p90"],
        **{ours: metrics[name]["successful"]["mean"] for name, ours in rates.items()},
    }


def inference_perf_figures(folder: Path) -> Figures:
    report = json.loads(next(folder.rglob("summary_lifecycle_metrics.json")).read_text())["successes"]
    names = {"time_to_first_token": "ttft", "time_per_output_token": "tpot", "inter_token_latency": "itl", "request_latency": "e2e"}
    found = {
        f"{ours}_{q}": report["latency"][theirs][word]
        for theirs, ours in names.items()
        for word, q in (("median", "p50"), ("p90", "p90"))
        if report["latency"].get(theirs)
    }
    return {
        **found,
        "output_throughput": report["throughput"]["output_tokens_per_sec"],
        "request_throughput": report["throughput"]["requests_per_sec"],
    }


def aiperf_figures(folder: Path) -> Figures:
    report = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
    names = {"time_to_first_token": "ttft", "inter_token_latency": "tpot", "inter_chunk_latency": "itl", "request_latency": "e2e"}
    found = {f"{ours}_{q}": report[theirs][q] / 1e3 for theirs, ours in names.items() for q in ("p50", "p90")}
    rates = {"output_token_throughput": "output_throughput", "request_throughput": "request_throughput"}
    return {**found, **{ours: report[theirs]["avg"] for theirs, ours in rates.items()}}


def single_requests(work: Work) -> list[str]:
    """Have inference-perf write the single requests: the configuration is in a file that its arguments name."""
    file = work.folder / "inference-perf.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "report": {"request_lifecycle": {"per_request": True}}}))
    return []


_DETAILED = ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"]
TOOLS = (
    Tool("vllm", lambda _: [*_DETAILED, "--save-detailed"], "vllm.json", serving_figures("vllm.json")),
    Tool("sglang", lambda _: ["--output-details"], "sglang.json", serving_figures("sglang.json")),
    Tool("aiperf", lambda _: [], "profile_export_aiperf.json", aiperf_figures),
    Tool("guidellm", lambda _: [], "guidellm.json", guidellm_figures),
    Tool("inference-perf", single_requests, "stage_0_lifecycle_metrics.json", inference_perf_figures),
    Tool("evalscope", lambda _: [], "benchmark_summary.json", dialect_tools.evalscope_figures),
    Tool("genai-bench", lambda _: [], "D*_num_concurrency_*.json", dialect_tools.genai_bench_figures),
    Tool("llama-benchy", lambda _: [], "benchy.json", dialect_tools.llama_benchy_figures),
)


def true_figures(log: Path) -> Figures:
    """The figures of the last REQUESTS requests in the server's log, by the definitions of docs/metrics.md."""
    known = sorted((its for _, its in records(log) if len(its[1])), key=lambda its: its[0])[-REQUESTS:]
    ttft = np.array([int(tokens[0]) - arrived for arrived, tokens in known]) / 1e9
    spans = np.array([int(tokens[-1] - tokens[0]) for _, tokens in known]) / 1e9
    counts = np.array([len(tokens) for _, tokens in known])
    gaps = np.concatenate([np.diff(tokens) for _, tokens in known]) / 1e9
    length = (max(int(tokens[-1]) for _, tokens in known) - known[0][0]) / 1e9
    latencies = {"ttft": ttft, "tpot": spans / (counts - 1), "itl": gaps, "e2e": ttft + spans}
    found = {f"{name}_p{q}": float(np.percentile(values, q)) for name, values in latencies.items() for q in (50, 90)}
    return {**found, "output_throughput": float(counts.sum()) / length, "request_throughput": len(known) / length}


def imported_figures(run: Run) -> Mapping[str, float | None]:
    """The figures of the only cell of an imported run, over its whole load: a tool cuts off neither start nor end."""
    (record,) = run.cells()
    samples = run.samples(record.id)
    whole = figures_of(Context(samples, record)) if samples is not None else {}
    return {**(record.stated.figures if record.stated is not None else {}), **{name: its for name, its in whole.items() if its is not None}}


Truth = Callable[[], Figures]
"""The true figures, once the server has ended."""


@contextmanager
def truthserver(out: Path) -> Iterator[tuple[int, Truth]]:
    """Its port, and the figures of its log."""
    log = out / "truth.bin"
    with serving(build(out), SERVER, log, None) as server:
        yield server.port, lambda: true_figures(log)


def wait_until_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    """RivalError if the server ends before it listens."""
    while server.poll() is None:
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise RivalError(f"the server ended with status {server.returncode}")


@contextmanager
def fake_engine(out: Path) -> Iterator[tuple[int, Truth]]:
    """The engine that ships with enginebench; its latencies are those that it was told to have."""
    port, ttft_s, itl_s = free_port(), 0.040, 0.005
    argv = [sys.executable, str(WORKERS / "fake_worker.py"), "--host", "127.0.0.1", "--port", str(port), "--model", MODEL]
    argv += ["--context", "131072", "--ttft-ms", str(1e3 * ttft_s), "--itl-ms", str(1e3 * itl_s)]
    known = {"ttft": ttft_s, "tpot": itl_s, "itl": itl_s, "e2e": ttft_s + (TOKENS - 1) * itl_s}
    with (out / "fake.log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as server:
        try:
            wait_until_listening(port, server)
            yield port, lambda: {f"{name}_p{q}": value for name, value in known.items() for q in (50, 90)}
        finally:
            server.terminate()


SERVERS = {"truthserver": truthserver, "fake engine": fake_engine}


def run(tool: Tool, rival: Rival, server: str, out: Path) -> dict[str, Any]:
    """Run the tool once. RivalError if it is not installed, or fails."""
    command = rival.find()
    if command is None:
        raise RivalError(f"{tool.package} is not installed")
    folder = out / server.replace(" ", "-") / tool.package
    folder.mkdir(parents=True)
    with SERVERS[server](folder) as (port, truth_of):
        work = Work(f"http://127.0.0.1:{port}", STREAMS, REQUESTS, TOKENS, folder, write_tokenizer(folder / "tokenizer"))
        _run([*rival.launcher(command), *rival.arguments(work), *tool.more(work)], folder)
    truth, own = truth_of(), tool.own(folder)
    found = imported_figures(enginebench.import_file(next(folder.rglob(tool.file)), results=out / "runs").folder)
    figures = {
        name: {"truth": truth.get(name), "tool": value, "imported": imported}
        for name, value in own.items()
        if (imported := found.get(name)) is not None
    }
    title = rival.title(command)
    load = f"{STREAMS} streams, {REQUESTS} requests, {INPUT_TOKENS} + {TOKENS} tokens"
    return {"tool": title.rpartition(" ")[0], "version": title.rpartition(" ")[2], "server": server, "load": load, "figures": figures}


def line_of(package: str, server: str, name: str, its: Mapping[str, float | None]) -> str:
    truth = "    unknown" if its["truth"] is None else f"{its['truth']:11.5g}"
    return f"{package:16} {server:12} {name:20} truth {truth}  tool {its['tool']:10.5g}  imported {its['imported']:10.5g}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="*", help=f"{', '.join(tool.package for tool in TOOLS)}; default: all that are installed")
    parser.add_argument("--out", type=Path, help="keep the tools' files in this folder")
    parser.add_argument("--write", action="store_true", help=f"replace the lines of these tools in {MEASURED.name}")
    given = parser.parse_args(arguments)
    rivals = {its.package: replace(its) for its in (*RIVALS, *dialect_tools.RIVALS)}
    out = given.out or Path(tempfile.mkdtemp(prefix="dialects-"))
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for tool, server in itertools.product(TOOLS, SERVERS):
        if given.tools and tool.package not in given.tools:
            continue
        try:
            found.append(its := run(tool, rivals[tool.package], server, out))
        except RivalError as error:
            print(f"{tool.package}, {server}: {error}")
            continue
        print("\n".join(line_of(tool.package, server, name, figures) for name, figures in its["figures"].items()))
    if given.write and found:
        stored = [json.loads(line) for line in MEASURED.read_text().splitlines()] if MEASURED.exists() else []
        new = {(its["tool"], its["server"]) for its in found}
        kept = [its for its in stored if (its["tool"], its["server"]) not in new]
        lines = sorted([*kept, *found], key=lambda its: (its["server"], its["tool"]))
        MEASURED.write_text("".join(json.dumps(its) + "\n" for its in lines))
        print(f"wrote {os.path.relpath(MEASURED)}")


if __name__ == "__main__":
    main()
