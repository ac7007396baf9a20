"""What `vllm bench serve --save-result --save-detailed` writes, one file per cell, and the `.pytorch.json` beside each.

Fields and definitions as in vllm/benchmarks/serve.py of vLLM 0.33. `summary.json` lists all results, as `vllm bench sweep plot` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from enginebench.domain import OpenLoop
from enginebench.metrics.slo import Slo
from enginebench.report.exporter import File, Material, as_json, exporter
from enginebench.report.measured import Measured, summary

_BACKENDS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp", "trtllm": "tensorrt-llm"}
_PERCENTILES = (50, 90, 95, 99)
_DETAILED = ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "errors")
_PYTORCH = [
    "median_ttft_ms", "mean_ttft_ms", "std_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "std_tpot_ms", "p99_tpot_ms",
    "median_itl_ms", "mean_itl_ms", "std_itl_ms", "p99_itl_ms",
]  # fmt: skip
_NAMES = {"e2e": "e2el"}
_STATED = {
    "request_throughput": ("request_throughput", 1.0), "output_throughput": ("output_throughput", 1.0),
    **{f"{theirs}_{key}_ms": (f"{ours}_{p}", 1e3) for key, ours in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2el", "e2e"))
       for theirs, p in (("median", "p50"), ("p90", "p90"), ("p99", "p99"))},
}  # fmt: skip
"""Field -> (our figure, factor) of the same definition, for cells that hold figures and no samples."""


@exporter(
    "vllm", "vLLM `bench serve` JSON, with .pytorch.json",
    read_by="vllm bench sweep plot and plot_pareto, vLLM's timeline plot, InferenceX process_result.py, the PyTorch benchmark database",
    definitions={
        "duration": "first send until the last response is complete (vLLM: until its last task has ended)",
        "ttfts": "first output event - sent",
        "latencies": "last output event - sent",
        "tpot": "(latency - ttft) / (output tokens - 1), requests with at least 2 tokens; an answer in one event has 0",
        "queue_times": "sent - due, in an open loop",
        "itls": "gaps between events, however many tokens each holds",
        "output_throughput": "output tokens of successful requests / duration, over the whole load",
        "request_goodput": "requests within the run's SLO / duration, counted from sent",
        "pNN": "numpy.percentile over the whole load, however few requests there are",
    },
    left_out={
        "steady window": "vLLM measures the whole load, so its throughput includes filling and draining",
        "generated_texts": "enginebench stores no texts",
        "latencies from scheduled arrival": "the format has none",
    },
)  # fmt: skip
def vllm(run: Material) -> Iterator[File]:
    """One result, and its metrics for the PyTorch benchmark database, per cell."""
    every = []
    for cell in run.cells:
        result = {**_about(cell), **(_stated(cell) if cell.samples is None else _measured(cell, run))}
        yield f"{cell.stem}.json", as_json(result, infinity=True)
        if cell.samples is not None:
            yield f"{cell.stem}.pytorch.json", as_json(_pytorch(cell, result), infinity=True)
        every.append({name: value for name, value in result.items() if name not in _DETAILED})
    if every:
        yield "summary.json", as_json(every, infinity=True)


def result_of(cell: Measured, run: Material) -> dict[str, Any]:
    """The result of a cell with samples, which InferenceX rows are made of."""
    return {**_about(cell), **_measured(cell, run)}


def _about(cell: Measured) -> dict[str, Any]:
    deployment, load = cell.record.deployment, cell.record.load
    backend = "openai-chat" if load.api == "chat" else _BACKENDS.get(deployment.engine, "openai")
    date = (cell.record.started_at or "").partition("+")[0].replace("-", "").replace(":", "").replace("T", "-")
    rate: Any = "inf"
    if isinstance(load, OpenLoop):
        rate = load.rate
    elif load.mean_rate is not None:
        rate = load.mean_rate
    shape = load.value("burstiness") if load.value("arrivals") == "gamma" else 1.0
    constant = isinstance(load, OpenLoop) and load.arrivals == "constant"
    return {
        "date": date, "endpoint_type": backend, "backend": backend, "label": cell.row.name,
        "model_id": deployment.model, "tokenizer_id": deployment.checkpoint, "num_prompts": load.requests,
        "request_rate": rate, "burstiness": math.inf if constant else shape, "max_concurrency": load.concurrency or None,
        **_rise(load), **_metadata(cell),
    }  # fmt: skip


def _rise(load: Any) -> dict[str, Any]:
    if not isinstance(load, OpenLoop) or load.rate_to is None:
        return {}
    return {"ramp_up_strategy": "linear", "ramp_up_start_rps": load.rate, "ramp_up_end_rps": load.rate_to}


def _metadata(cell: Measured) -> dict[str, Any]:
    """What `--metadata KEY=VALUE` adds: facts that the format has no field for."""
    deployment = cell.record.deployment
    facts = {
        "engine": deployment.engine, "engine_version": cell.version, "precision": deployment.known_precision,
        "hardware": cell.hardware, "num_gpus": cell.record.traits.gpus, "tensor_parallel_size": deployment.parallelism.tp,
        "pipeline_parallel_size": deployment.parallelism.pp, "data_parallel_size": deployment.parallelism.dp_replicas,
        "enginebench_cell": cell.record.id, "enginebench_repeat": cell.record.repeat, "enginebench_verdict": cell.cell.verdict,
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _stated(cell: Measured) -> dict[str, Any]:
    """What a cell without samples can say: figures whose definitions are the same."""
    found = {name: cell.figures.get(figure) for name, (figure, _) in _STATED.items()}
    lasted = {} if cell.record.wall_s is None else {"duration": cell.record.wall_s}
    return lasted | {name: value * _STATED[name][1] for name, value in found.items() if value is not None}


def _measured(cell: Measured, run: Material) -> dict[str, Any]:
    s, ok, duration = cell.s, cell.ok, cell.duration_s
    tokens, total_in = cell.output_tokens, int(cell.input_tokens[ok].sum())
    out: dict[str, Any] = {
        "duration": duration, "completed": int(ok.sum()), "failed": int((~ok).sum()), "total_input_tokens": total_in,
        "request_throughput": float(ok.sum()) / duration if duration else 0.0,
        "input_lens": cell.input_tokens.tolist(), "start_times": cell.start_s.tolist(), "errors": [error or "" for error in s.error],
        "max_concurrent_requests": _most_in_flight(cell),
    }  # fmt: skip
    if cell.withheld("ttft") is None:
        out |= {"ttfts": cell.ttft_s.tolist(), "itls": [list(gaps) for gaps in cell.gaps_s], "latencies": cell.e2e_s.tolist()}
    found = {"ttft": cell.ttft_s[ok], "itl": cell.all_gaps_s, "e2e": cell.e2e_s[ok]}
    if cell.record.load.open_loop:  # in its closed loop every request is due at the start, which ours does not mean
        out["queue_times"] = (np.maximum(s.sent_ns - s.due_ns, 0) / 1e9).tolist()
    if cell.counted:
        total = int(tokens.sum())
        out |= {
            "total_output_tokens": total,
            "output_lens": tokens.astype(int).tolist(),
            "output_throughput": total / duration if duration else 0.0,
        }
        out["total_token_throughput"] = (total_in + total) / duration if duration else 0.0
        found["tpot"] = cell.tpot_s()
    else:
        run.say("cells whose output tokens nobody counted have no tpot, output_lens or output_throughput")
    for name, values in run.kept(cell, found).items():
        if name != "e2e" and not cell.streamed.any():
            run.say("cells whose answers were not streamed have no ttft, tpot and itl")
            continue
        for kind, value in (summary(values, _PERCENTILES, 1e3) or {}).items():
            if kind not in ("min", "max"):
                out[f"{kind}_{_NAMES.get(name, name)}_ms"] = value
    out["request_goodput"] = _goodput(cell, run.analysis.slo)
    return out


def _most_in_flight(cell: Measured) -> int:
    """The most successful requests that touched one second, counted from the first start."""
    if not cell.ok.any():
        return 0
    start = cell.start_s[cell.ok] - cell.start_s[cell.ok].min()
    first, last = np.floor(start).astype(int), np.floor(start + cell.e2e_s[cell.ok]).astype(int)
    change = np.zeros(last.max() + 2)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    return int(np.cumsum(change).max())


def _goodput(cell: Measured, slo: Slo | None) -> float | None:
    """Requests within every limit that the format knows / duration; None without an SLO, or with a limit that it does not know."""
    if slo is None or not cell.counted or set(slo.limits) - {"ttft", "tpot", "e2e"} or not cell.duration_s:
        return None
    tokens = cell.output_tokens
    tpot = np.where(tokens > 1, (cell.e2e_s - cell.ttft_s) / np.maximum(tokens - 1, 1), 0.0)
    values = {"ttft": cell.ttft_s, "tpot": tpot, "e2e": cell.e2e_s}
    good = cell.ok & np.all([values[name] <= limit for name, limit in slo.limits.items()], axis=0)
    return float(good.sum()) / cell.duration_s


def _pytorch(cell: Measured, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One record per metric, with everything else as its extra information."""
    others = {k: v for k, v in result.items() if k not in _PYTORCH and k not in ("ttfts", "itls", "errors")}
    arguments = {
        "model": cell.record.deployment.model,
        "backend": result["backend"],
        "tensor_parallel_size": cell.record.deployment.parallelism.tp,
    }
    about = {"args": arguments, "compilation_config.mode": "", "optimization_level": "", "use_compile": True}
    return [
        {
            "benchmark": {"name": "vLLM benchmark", "extra_info": about},
            "model": {"name": cell.record.deployment.model},
            "metric": {"name": name, "benchmark_values": [result[name]], "extra_info": others},
        }
        for name in _PYTORCH
        if name in result and math.isfinite(result[name])
    ]
