"""What `aiperf profile` writes: a folder per cell with profile_export_aiperf.json (schema 1.4) and profile_export.jsonl.

Tags, units and definitions as in aiperf/metrics/types of AIPerf 0.13.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from enginebench.domain import OpenLoop
from enginebench.report.exporter import File, Material, as_json, exporter
from enginebench.report.measured import Floats, Measured, summary

_PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_SCHEMA, _VERSION = "1.4", "0.13.0"
_OURS = {
    "time_to_first_token": "ttft", "inter_token_latency": "tpot", "inter_chunk_latency": "itl", "request_latency": "e2e",
    "output_token_throughput_per_user": "tpot",
}  # fmt: skip
"""Tag -> the metric of ours whose withholding applies to it."""


@exporter(
    "aiperf", "AIPerf JSON and JSONL, a folder per cell",
    read_by="aiperf plot",
    definitions={
        "time_to_first_token": "first content response - start, ms",
        "inter_token_latency": "(request latency - TTFT) / (output sequence length - 1), ms: our TPOT",
        "inter_chunk_latency": "gaps between content responses, ms: our ITL",
        "request_latency": "last content response - start, ms",
        "output_token_throughput": "output tokens of valid requests / benchmark duration",
        "benchmark_duration": "last response - first start, s",
        "output_token_throughput_per_user": "1 / inter token latency of each request",
        "good_request_count, goodput": "requests within the run's SLO, counted from the start",
    },
    left_out={
        "steady window": "AIPerf measures the whole load",
        "telemetry_data": "its GPU readings are DCGM's; ours come from NVML under other names",
        "credit_issued_ns": "the time at which our client was due is in it only for open loops",
    },
)  # fmt: skip
def aiperf(run: Material) -> Iterator[File]:
    """The summary and the records of each cell."""
    for cell in run.sampled("AIPerf's JSON"):
        yield f"{cell.stem}/profile_export_aiperf.json", as_json(_summary(cell, run))
        yield f"{cell.stem}/profile_export.jsonl", "".join(f"{json.dumps(_record(cell, i))}\n" for i in range(len(cell.s))).encode()


def _start_ns(cell: Measured) -> int:
    return round(cell.epoch_s * 1e9)


def _summary(cell: Measured, run: Material) -> dict[str, Any]:
    s, ok, duration = cell.s, cell.ok, cell.duration_s
    tokens = cell.output_tokens[ok]
    per_record: dict[str, tuple[Floats, str]] = {"request_latency": (cell.e2e_s[ok] * 1e3, "ms")}
    if cell.streamed.any():
        per_record["time_to_first_token"] = (cell.ttft_s[cell.streamed] * 1e3, "ms")
        per_record["inter_chunk_latency"] = (cell.all_gaps_s * 1e3, "ms")
    per_record["input_sequence_length"] = (cell.input_tokens[ok].astype(np.float64), "tokens")
    totals: dict[str, tuple[float, str]] = {
        "request_throughput": (float(ok.sum()) / duration if duration else 0.0, "requests/sec"),
        "request_count": (float(ok.sum()), "requests"),
        "error_request_count": (float((~ok).sum()), "requests"), "benchmark_duration": (duration, "sec"),
        "total_isl": (float(cell.input_tokens[ok].sum()), "tokens"),
    }  # fmt: skip
    if cell.counted:
        pace = cell.tpot_s(cell.streamed) * 1e3
        per_record["output_sequence_length"] = (tokens, "tokens")
        if cell.streamed.any():
            per_record["inter_token_latency"] = (pace, "ms")
            per_record["output_token_throughput_per_user"] = (1e3 / pace[pace > 0], "tokens/sec/user")
        totals["total_osl"] = (float(tokens.sum()), "tokens")
        totals["output_token_throughput"] = (float(tokens.sum()) / duration if duration else 0.0, "tokens/sec")
    else:
        run.say("cells whose output tokens nobody counted have no sequence lengths, throughput and inter token latency")
    kept = run.kept(cell, {ours: None for tag, ours in _OURS.items() if tag in per_record})
    found = {tag: _spread(*its) for tag, its in per_record.items() if _OURS.get(tag, "") in ("", *kept) and len(its[0])}
    return {
        "schema_version": _SCHEMA, "aiperf_version": _VERSION, "benchmark_id": cell.record.id, **found,
        **{tag: {"unit": unit, "avg": value} for tag, (value, unit) in totals.items()}, **_goodput(cell, run),
        "input_config": _config(cell), "was_cancelled": cell.record.delivery.stopped is not None,
        "start_time": _time(cell.epoch_s), "end_time": _time(cell.epoch_s + duration),
        "error_summary": _errors(s.error), "enginebench": _facts(cell),
    }  # fmt: skip


def _spread(values: Floats, unit: str) -> dict[str, Any]:
    found = summary(values, _PERCENTILES) or {}
    kept = {name: value for name, value in found.items() if name not in ("mean", "median")}
    return {"unit": unit, "avg": found["mean"], **kept, "count": len(values), "sum": float(values.sum())}


def _goodput(cell: Measured, run: Material) -> dict[str, Any]:
    slo = run.analysis.slo
    if slo is None or not cell.counted or not cell.duration_s:
        return {}
    pace = (cell.e2e_s - cell.ttft_s) / np.maximum(cell.output_tokens - 1, 1)
    values = {"ttft": cell.ttft_s, "tpot": np.where(cell.output_tokens > 1, pace, 0.0), "e2e": cell.e2e_s}
    if set(slo.limits) - set(values):
        return {}
    good = float((cell.ok & np.all([values[name] <= limit for name, limit in slo.limits.items()], axis=0)).sum())
    return {"good_request_count": {"unit": "requests", "avg": good}, "goodput": {"unit": "requests/sec", "avg": good / cell.duration_s}}


def _config(cell: Measured) -> dict[str, Any]:
    """The load, where `aiperf plot` looks for it."""
    load, deployment = cell.record.load, cell.record.deployment
    phase: dict[str, Any] = {"name": "profiling", "requests": load.requests, "concurrency": load.concurrency or None}
    if isinstance(load, OpenLoop):
        phase["rate"] = load.rate
    endpoint = {"type": "chat" if load.api == "chat" else "completions", "streaming": True, "urls": [deployment.url or "http://localhost"]}
    return {"models": {"items": [{"name": deployment.model}]}, "endpoint": endpoint, "phases": [phase]}


def _facts(cell: Measured) -> dict[str, Any]:
    """What the format has no place for."""
    deployment = cell.record.deployment
    return {
        "engine": deployment.engine, "engine_version": cell.version, "precision": deployment.known_precision, "hardware": cell.hardware,
        "cell": cell.record.id, "verdict": cell.cell.verdict,
    }  # fmt: skip


def _time(epoch_s: float) -> str:
    return dt.datetime.fromtimestamp(epoch_s, dt.UTC).isoformat()


def _errors(errors: tuple[str | None, ...]) -> list[dict[str, Any]]:
    texts = [error for error in errors if error]
    return [{"error_details": {"message": text}, "count": texts.count(text)} for text in dict.fromkeys(texts)]


def _record(cell: Measured, i: int) -> dict[str, Any]:
    """One line of the JSONL: times of the request on the wall clock, and its metrics."""
    s, start = cell.s, _start_ns(cell)
    alone = int(s.conversation[i]) < 0
    about: dict[str, Any] = {
        "session_num": int(s.index[i]) if alone else int(s.conversation[i]), "x_request_id": f"{cell.record.id}-{int(s.index[i])}",
        "turn_index": int(s.turn[i]), "request_start_ns": start + int(s.sent_ns[i]) - cell.zero_ns,
        "request_ack_ns": start + int(s.headers_ns[i]) - cell.zero_ns if s.headers_ns[i] else None,
        "request_end_ns": start + int(s.end_ns[i]) - cell.zero_ns, "worker_id": "enginebench", "record_processor_id": "enginebench",
        "benchmark_phase": "profiling", "was_cancelled": False,
    }  # fmt: skip
    if cell.record.load.open_loop:
        about["credit_issued_ns"] = start + int(s.due_ns[i]) - cell.zero_ns
    if not cell.ok[i]:
        code = int(s.status_code[i])
        error = {"code": code if code > 0 else None, "type": s.outcome[i], "message": s.error[i] or s.outcome[i]}
        return {"metadata": about, "metrics": {}, "error": error}
    found = {tag: its for tag, its in _metrics(cell, i).items() if cell.withheld(_OURS.get(tag, tag)) is None}
    return {"metadata": about, "metrics": {tag: {"value": value, "unit": unit} for tag, (value, unit) in found.items()}, "error": None}


def _metrics(cell: Measured, i: int) -> Mapping[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {"request_latency": (float(cell.e2e_s[i]) * 1e3, "ms")}
    found["input_sequence_length"] = (int(cell.input_tokens[i]), "tokens")
    if cell.streamed[i]:
        found["time_to_first_token"] = (float(cell.ttft_s[i]) * 1e3, "ms")
        if cell.gaps_s[i]:
            found["inter_chunk_latency"] = ([gap * 1e3 for gap in cell.gaps_s[i]], "ms")
            found["time_to_second_token"] = (cell.gaps_s[i][0] * 1e3, "ms")
    tokens = cell.output_tokens[i]
    if not np.isnan(tokens):
        found["output_sequence_length"] = found["output_token_count"] = (int(tokens), "tokens")
        if tokens > 1 and cell.streamed[i]:
            pace = float(cell.e2e_s[i] - cell.ttft_s[i]) / (tokens - 1)
            found["inter_token_latency"] = (pace * 1e3, "ms")
            if pace > 0:  # else all tokens came at once
                found["output_token_throughput_per_user"] = (1 / pace, "tokens/sec/user")
    return found
