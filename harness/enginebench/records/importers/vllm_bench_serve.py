"""Results of `vllm bench serve --save-result`, also with --append-result and --save-detailed.

Keys as in vllm/benchmarks/serve.py. The per-request lists of --save-detailed are used for the lengths only. The file does not say what
the server ran with, so precision and parallelism are unknown; the engine is the client's `backend`, which is often just 'openai'.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Length, Load, OpenLoop
from enginebench.records.importer import ForeignRecord, ImportedCell, importer

_ENGINES = {"openai-chat": "openai", "tensorrt-llm": "trtllm", "llama.cpp": "llamacpp"}
"""Backends that have another name here."""
_THROUGHPUT = {"output_throughput": ("output_throughput", 1.0), "request_throughput": ("request_throughput", 1.0)}
_LATENCY = {
    f"{theirs}_{name}_ms": (f"{figure}_{ours}", 1e-3)
    for name, figure in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2el", "e2e"))
    for theirs, ours in (("median", "p50"), ("p50", "p50"), ("p90", "p90"), ("p99", "p99"))
}
"""Present as far as --percentile-metrics and --metric-percentiles asked for them."""


@importer("vllm bench serve", recognised_by=("model_id", "num_prompts", "request_rate", "max_concurrency"))
def vllm_bench_serve(record: ForeignRecord) -> Iterator[ImportedCell]:
    """One cell per result."""
    completed, duration_s = record.whole("completed"), record.number("duration")
    sent = completed + record.whole("failed") if record.has("failed") else record.whole("num_prompts")
    if duration_s <= 0 or completed > sent:
        raise record.error(f"the file is damaged: {completed} of {sent} requests completed in {duration_s:g} s", "completed")
    latency = {figure: value for figure, value in record.figures(_LATENCY).items() if value > 0}  # 0: nothing was streamed
    input_throughput = record.number("total_input_tokens") / duration_s
    success_rate = completed / max(sent, 1)
    figures = {**record.figures(_THROUGHPUT), **latency, "input_throughput": input_throughput, "success_rate": success_rate}
    yield ImportedCell(_deployment(record), _load(record, sent, completed), figures, completed, duration_s)


def _deployment(record: ForeignRecord) -> Deployment:
    model = record.text("model_id")
    backend = record.text("backend" if record.has("backend") else "endpoint_type")
    label = record.text("label") if record.has("label") else backend
    engine = _ENGINES.get(backend, backend)
    return Deployment(engine, model, "unknown", model, runtime="attach", label=None if label == backend else label)


def _load(record: ForeignRecord, sent: int, completed: int) -> Load:
    if record.has("ramp_up_strategy"):
        raise record.error("a ramp-up over requests is not a load that enginebench has", "ramp_up_strategy")
    limit = record.whole("max_concurrency") if record.has("max_concurrency") else 0
    backend = record.data.get("backend", record.data.get("endpoint_type"))
    common: Mapping[str, Any] = {
        "requests": sent,
        "input_tokens": _length(record, "input_lens", "total_input_tokens", completed),
        "output_tokens": _length(record, "output_lens", "total_output_tokens", completed),
        "prompts": "unknown",
        "prefix_cache": "allowed",  # nothing kept it cold
        "api": "chat" if backend == "openai-chat" else "completions",
    }
    if record.data["request_rate"] in ("inf", math.inf):
        return ClosedLoop(concurrency=max(1, min(limit or sent, sent)), **common)
    burstiness = record.data.get("burstiness", 1.0)
    if burstiness == math.inf:
        arrivals: Mapping[str, Any] = {"arrivals": "constant"}
    else:
        shape = record.number("burstiness") if record.has("burstiness") else 1.0
        arrivals = {"arrivals": "poisson"} if shape == 1 else {"arrivals": "gamma", "burstiness": shape}
    return OpenLoop(rate=record.number("request_rate"), concurrency=limit, **arrivals, **common)


def _length(record: ForeignRecord, each: str, total: str, completed: int) -> Length:
    """Tokens per request if all have the same number, otherwise 'data'. Failed requests have no tokens."""
    listed = record.data.get(each)
    if isinstance(listed, list):
        lengths = {length for length in listed if length}
        (only,) = lengths if len(lengths) == 1 else ("data",)
        return only if isinstance(only, int) else "data"
    mean, rest = divmod(record.whole(total), max(completed, 1))
    return mean if mean and not rest else "data"
