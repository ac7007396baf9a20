"""Load generators that only benchmarks/dialects.py runs, and what their own files state: evalscope perf, genai-bench and llama-benchy."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from rivals import INPUT_TOKENS, MODEL, Rival, Work

Own = Mapping[str, float]
"""A tool's own figures, in the metrics' units."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name in the standard library
        pass


def _genai_bench(work: Work) -> list[str]:
    return [
        "benchmark", "--api-backend", "vllm", "--api-base", work.url, "--api-key", "none", "--api-model-name", MODEL,
        "--model-tokenizer", str(work.tokenizer), "--task", "text-to-text", "--traffic-scenario", f"D({INPUT_TOKENS},{work.tokens})",
        "--num-concurrency",
        str(work.streams), "--max-requests-per-run", str(work.requests), "--max-time-per-run", "2", "--experiment-base-dir",
        str(work.folder),
        "--experiment-folder-name", "exp",
    ]  # fmt: skip


def _llama_benchy(work: Work) -> list[str]:
    """It downloads a book for its prompts: here from a server in this process, which ends with it."""
    (work.folder / "book.txt").write_text("tok " * 6_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(work.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return [
        "--base-url", f"{work.url}/v1", "--model", MODEL, "--tokenizer", str(work.tokenizer), "--pp", str(INPUT_TOKENS), "--tg",
        str(work.tokens), "--concurrency", str(work.streams), "--runs", str(work.requests // work.streams), "--skip-coherence",
        "--no-warmup",
        "--latency-mode", "none", "--no-adapt-prompt", "--book-url", f"http://127.0.0.1:{server.server_port}/book.txt", "--save-result",
        str(work.folder / "benchy.json"), "--format", "json",
    ]  # fmt: skip


RIVALS = (Rival("genai-bench", _genai_bench, None), Rival("llama-benchy", _llama_benchy, None))


def evalscope_figures(folder: Path) -> Own:
    summary = _json(folder, "benchmark_summary.json")
    at = {row["Percentiles"]: row for row in _json(folder, "benchmark_percentile.json")}
    columns = {"ttft": ("TTFT (ms)", 1e-3), "tpot": ("TPOT (ms)", 1e-3), "itl": ("ITL (ms)", 1e-3), "e2e": ("Latency (s)", 1.0)}
    found = {f"{name}_p{q}": at[f"{q}%"][column] * factor for name, (column, factor) in columns.items() for q in (50, 90)}
    return {
        **found,
        "output_throughput": summary["Output Throughput (tok/s)"],
        "request_throughput": summary["Req Throughput (req/s)"],
    }


def genai_bench_figures(folder: Path) -> Own:
    whole = _json(folder, "D*_num_concurrency_*.json")["aggregated_metrics"]
    names = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e_latency"}
    found = {f"{ours}_p{q}": whole["stats"][theirs][f"p{q}"] for ours, theirs in names.items() for q in (50, 90)}
    return {
        **found,
        "output_throughput": whole["mean_output_throughput_tokens_per_s"],
        "request_throughput": whole["requests_per_second"],
    }


def llama_benchy_figures(folder: Path) -> Own:
    """It states means and single values; the percentiles are those of the values."""
    (part,) = _json(folder, "benchy.json")["benchmarks"]
    ttft, pace = np.array(part["e2e_ttft"]["values"]) / 1e3, 1 / np.array(part["tg_req_throughput"]["values"])
    return {f"{name}_p{q}": float(np.percentile(values, q)) for name, values in (("ttft", ttft), ("tpot", pace)) for q in (50, 90)}


def _json(folder: Path, name: str):  # type: ignore[no-untyped-def]  # a file of another tool
    return json.loads(next(folder.rglob(name)).read_text())
