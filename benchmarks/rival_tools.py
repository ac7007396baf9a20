"""Command lines and report formats of other load generators, for the versions in docs/fidelity.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rivals import INPUT_TOKENS, MODEL, Figures, Rival, Work, interpreter


def _report(folder: Path, name: str) -> Any:
    """The JSON file with this name, at any depth. FileNotFoundError if there is none."""
    return json.loads(next(folder.rglob(name), folder / name).read_text())


def _guidellm(work: Work) -> list[str]:
    return [
        "run", "--disable-console",
        "--backend", f"kind=openai_http,target={work.url},model={MODEL},request_format=/v1/completions",
        "--profile", f"kind=concurrent,streams={work.streams}",
        "--constraint", f"kind=max_requests,count={work.requests}",
        "--tokenizer", f"kind=hf_auto,model={work.tokenizer}",
        "--data", f"kind=synthetic_text,prompt_tokens={INPUT_TOKENS},output_tokens={work.tokens}",
        "--output", f"kind=json,path={work.folder / 'guidellm.json'}",
    ]  # fmt: skip


def _guidellm_report(folder: Path) -> Figures:
    metrics = _report(folder, "guidellm.json")["benchmarks"][0]["metrics"]
    ttft = metrics["time_to_first_token_ms"]["successful"]
    succeeded = metrics["request_totals"]["successful"]
    return Figures(succeeded, ttft["mean"], ttft["percentiles"]["p50"], ttft["percentiles"]["p99"], None)


def _inference_perf(work: Work) -> list[str]:
    """One worker process, because all run on one core, with as many requests as streams (default 100)."""
    lengths = {
        name: {"min": tokens, "max": tokens, "mean": tokens, "std_dev": 0, "total_count": work.requests}
        for name, tokens in (("input_distribution", INPUT_TOKENS), ("output_distribution", work.tokens))
    }
    load = {
        "type": "concurrent",
        "stages": [{"num_requests": work.requests, "concurrency_level": work.streams}],
        "num_workers": 1,
        "worker_max_concurrency": work.streams,
    }
    config = {
        "api": {"type": "completion", "streaming": True},
        "load": load,
        "data": {"type": "random", **lengths},
        "server": {"type": "vllm", "model_name": MODEL, "base_url": work.url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(work.tokenizer)},
        "storage": {"local_storage": {"path": str(work.folder)}},
    }
    path = work.folder / "inference-perf.json"
    path.write_text(json.dumps(config))
    return ["--config_file", str(path)]


def _inference_perf_report(folder: Path) -> Figures:
    successes = _report(folder, "summary_lifecycle_metrics.json")["successes"]
    ttft, itl = successes["latency"]["time_to_first_token"], successes["latency"]["inter_token_latency"]
    return Figures(successes["count"], ttft["mean"] * 1e3, ttft["median"] * 1e3, ttft["p99"] * 1e3, itl["p99"] * 1e3)


def _aiperf(work: Work) -> list[str]:
    return [
        "profile", "--model", MODEL, "--url", work.url, "--endpoint-type", "completions", "--streaming",
        "--concurrency", str(work.streams), "--request-count", str(work.requests), "--tokenizer", str(work.tokenizer),
        "--isl", str(INPUT_TOKENS), "--osl", str(work.tokens), "--output-artifact-dir", str(work.folder / "artifacts"), "--ui", "none",
    ]  # fmt: skip


def _aiperf_report(folder: Path) -> Figures:
    """inter_chunk_latency is the gap between events; inter_token_latency is one mean per request."""
    report = _report(folder, "profile_export_aiperf.json")
    ttft = report["time_to_first_token"]
    return Figures(round(report["request_count"]["avg"]), ttft["avg"], ttft["p50"], ttft["p99"], report["inter_chunk_latency"]["p99"])


def _evalscope(work: Work) -> list[str]:
    return [
        "perf", "--model", MODEL, "--url", f"{work.url}/v1/completions", "--api", "openai", "--stream",
        "--parallel", str(work.streams), "--number", str(work.requests), "--tokenizer-path", str(work.tokenizer),
        "--dataset", "random", "--min-prompt-length", str(INPUT_TOKENS), "--max-prompt-length", str(INPUT_TOKENS),
        "--no-apply-chat-template", "--min-tokens", str(work.tokens), "--max-tokens", str(work.tokens),
        "--outputs-dir", str(work.folder), "--no-timestamp",
    ]  # fmt: skip


def _evalscope_report(folder: Path) -> Figures:
    summary = _report(folder, "benchmark_summary.json")
    at = {row["Percentiles"]: row for row in _report(folder, "benchmark_percentile.json")}
    half, most = at["50%"], at["99%"]
    return Figures(summary["Success Requests"], summary["Avg TTFT (ms)"], half["TTFT (ms)"], most["TTFT (ms)"], most["ITL (ms)"])


def _vllm(work: Work) -> list[str]:
    return [
        "--backend", "openai", "--base-url", work.url, "--endpoint", "/v1/completions",
        "--model", MODEL, "--tokenizer", str(work.tokenizer), "--dataset-name", "random",
        "--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(work.tokens), "--ignore-eos",
        "--num-prompts", str(work.requests), "--max-concurrency", str(work.streams), "--disable-tqdm",
        "--percentile-metrics", "ttft,itl", "--metric-percentiles", "99",
        "--save-result", "--result-dir", str(work.folder), "--result-filename", "vllm.json",
    ]  # fmt: skip


_EXTENSION = """
import glob, importlib.util as u, sys
folder = u.find_spec("sglang").submodule_search_locations[0]
spec = u.spec_from_file_location("_bench", glob.glob(folder + "/srt/rust_extensions/_bench.*.so")[0])
client = u.module_from_spec(spec)
spec.loader.exec_module(client)
client.run_argv(["sglang-bench", *sys.argv[1:]])
"""
"""Equivalent to `python -m sglang.benchmark.rust_client` without importing sglang, so that `pip install --no-deps sglang` suffices."""


def _extension_of(command: Path) -> list[str]:
    return [str(interpreter(command)), "-c", _EXTENSION]


def _sglang(work: Work) -> list[str]:
    return [
        "--backend", "vllm", "--base-url", work.url, "--model", MODEL, "--tokenizer", str(work.tokenizer),
        "--dataset-name", "random-ids", "--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(work.tokens),
        "--random-range-ratio", "1", "--num-prompts", str(work.requests), "--max-concurrency", str(work.streams), "--disable-tqdm",
        "--output-file", str(work.folder / "sglang.json"),
    ]  # fmt: skip


def _serving_report(name: str) -> Callable[[Path], Figures]:
    """Reader for the format of vLLM and SGLang."""

    def read(folder: Path) -> Figures:
        report = _report(folder, name)
        return Figures(report["completed"], report["mean_ttft_ms"], report["median_ttft_ms"], report["p99_ttft_ms"], report["p99_itl_ms"])

    return read


RIVALS: tuple[Rival, ...] = (
    Rival("sglang", _sglang, _serving_report("sglang.json"), "SGLang's Rust client", _extension_of),
    Rival("vllm", _vllm, _serving_report("vllm.json"), "vllm bench serve", lambda command: [str(command), "bench", "serve"]),
    Rival("guidellm", _guidellm, _guidellm_report),
    Rival("inference-perf", _inference_perf, _inference_perf_report),
    Rival("aiperf", _aiperf, _aiperf_report),
    Rival("evalscope", _evalscope, _evalscope_report),
)
