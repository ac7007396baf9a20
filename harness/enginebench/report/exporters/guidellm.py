"""A GuideLLM report, benchmarks.json (report schema 2), with one benchmark per cell and every request.

Fields and definitions as in guidellm/benchmark/schemas and guidellm/schemas/base of GuideLLM 0.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from enginebench.domain import Load, OpenLoop, TraceReplay, plain
from enginebench.report.exporter import File, Material, as_json, exporter
from enginebench.report.exporters.guidellm_metrics import metrics_of, wall
from enginebench.report.measured import Measured

_VERSION = "0.8.1"


@exporter(
    "guidellm", "GuideLLM report (benchmarks.json, schema 2)",
    read_by="guidellm's report loader, and through it `guidellm benchmark from-file`",
    definitions={
        "request_latency": "request end - request start, s: until the reply is complete, not the last token",
        "time_to_first_token_ms": "first token iteration - request start",
        "inter_token_latency_ms": "(last - first token iteration) / (output tokens - 1): our TPOT",
        "time_per_output_token_ms": "(last token iteration - request start) / output tokens",
        "requests_per_second, output_tokens_per_second": "events over half the time to their neighbours, weighted by that time",
        "request_concurrency": "requests in flight, weighted by time",
        "percentiles": "the lowest value whose cumulative share reaches q, without interpolation",
        "targeted_start": "scheduled arrival, in an open loop",
    },
    left_out={
        "steady window": "GuideLLM cuts warm-up and cool-down by share or time; none is stated here, so all requests count",
        "gaps between events": "a request has its first and last token iteration and their number",
        "loads in steps, with a changing rate or gamma arrivals": "its strategies are concurrent, constant, poisson and trace",
        "confidence intervals": "of requests of one benchmark; ours are over restarts",
        "outputs": "enginebench stores no texts",
    },
)  # fmt: skip
def guidellm(run: Material) -> Iterator[File]:
    """One report of all cells."""
    found = [(cell, strategy) for cell in run.sampled("a GuideLLM report") if (strategy := _strategy(cell, run)) is not None]
    if not found:
        return
    if not all(cell.counted for cell, _ in found):
        run.say("GuideLLM's report has 0 where output tokens were not counted")
    benchmarks = [_benchmark(cell, strategy, i, run) for i, (cell, strategy) in enumerate(found)]
    about = {
        "version": 2,
        "guidellm_version": _VERSION,
        "python_version": "-",
        "platform": str(found[0][0].machine.get("system") or "unknown"),
    }
    config = {
        "metadata": {"labels": {"name": run.analysis.run.name, "description": f"exported by enginebench {run.analysis.run.enginebench}"}},
        "spec": _spec(found[0][0]),
    }
    yield "benchmarks.json", as_json({"metadata": about, "config": config, "benchmarks": benchmarks, "conclusions": []})


def _strategy(cell: Measured, run: Material) -> dict[str, Any] | None:
    """The load as one of its strategies; None if none fits."""
    load: Load = cell.record.load
    if (why := cell.withheld("ttft")) is not None:
        run.say(f"{cell.row.name} is left out: {why}, and the report has no place to leave latencies out")
        return None
    most = {"max_concurrency": load.concurrency or None}
    if isinstance(load, OpenLoop) and load.rate_to is None and load.arrivals != "gamma":
        seed = {"random_seed": load.seed} if load.arrivals == "poisson" else {}
        return {"type_": load.arrivals, "rate": load.rate, **most, **seed}
    if isinstance(load, TraceReplay):
        return {"type_": "trace", "time_scale": load.time_scale}
    if load.open_loop:
        run.say(f"{cell.row.name} at {load.level_text}: GuideLLM has no strategy for this load")
        return None
    return {"type_": "concurrent", "streams": load.concurrency, "rampup_duration": load.start_spread_s}


def _spec(cell: Measured) -> dict[str, Any]:
    """What its own command line would have been called with, as far as it can be said."""
    deployment, load = cell.record.deployment, cell.record.load
    lengths = [
        round(float(np.nanmean(values))) if len(values) else 1 for values in (cell.input_tokens[cell.ok], cell.output_tokens[cell.ok])
    ]
    return {
        "backend": {"kind": "openai_http", "target": deployment.url or "http://localhost:8000", "model": deployment.model},
        "profile": {"kind": "concurrent", "streams": [max(1, load.concurrency)]},
        "data": [{"kind": "synthetic_text", "prompt_tokens": max(1, lengths[0]), "output_tokens": max(1, lengths[1])}],
    }


def _benchmark(cell: Measured, strategy: Mapping[str, Any], index: int, run: Material) -> dict[str, Any]:
    record, start = cell.record, cell.epoch_s
    end, ok = start + cell.duration_s, int(cell.ok.sum())
    counts = {"successful": ok, "incomplete": 0, "errored": len(cell.s) - ok, "total": len(cell.s)}
    times = dict.fromkeys(("start_time", "request_start_time", "measure_start_time"), start)
    times |= dict.fromkeys(("measure_end_time", "request_end_time", "end_time"), end)
    delays = ("queued_time", "resolve_start_delay", "resolve_targeted_start_delay", "request_start_delay", "resolve_end_delay",
              "resolve_time", "finalized_delay", "processed_delay")  # fmt: skip
    scheduler = {
        **times, "requests_made": counts, "request_time_avg": float((cell.s.end_ns - cell.s.sent_ns)[cell.ok].mean() / 1e9) if ok else -1.0,
        "request_targeted_start_delay_avg": float((cell.s.sent_ns - cell.s.due_ns).mean() / 1e9), "strategy_type": strategy["type_"],
        **{f"{name}_avg": -1.0 for name in delays},
    }  # fmt: skip
    requests = [_request(cell, i) for i in range(len(cell.s))]
    return {
        "type_": "generative_benchmark",
        "config": {
            "id_": record.id, "run_id": run.analysis.run.plan_id, "run_index": index, "strategy": dict(strategy), "constraints": {},
            "profile": {"type_": strategy["type_"]}, "requests": {"load": plain(record.load)},
            "backend": {"type_": "openai_http", "model": record.deployment.model, "engine": cell.engine, "engine_version": cell.version},
            "environment": {"hardware": cell.hardware, "deployment": plain(record.deployment.shown), "verdict": cell.cell.verdict},
        },
        "scheduler_state": {
            "start_time": start, "end_time": end, "processed_requests": len(requests), "successful_requests": ok,
            "errored_requests": counts["errored"],
        },
        "scheduler_metrics": scheduler, "metrics": metrics_of(cell, counts),
        "requests": {
            "successful": [each for i, each in enumerate(requests) if cell.ok[i]], "incomplete": [],
            "errored": [each for i, each in enumerate(requests) if not cell.ok[i]], "total": None,
        },
        "warnings": [], "start_time": start, "end_time": end, "duration": cell.duration_s, "warmup_duration": 0.0, "cooldown_duration": 0.0,
    }  # fmt: skip


def _request(cell: Measured, i: int) -> dict[str, Any]:
    """One request with its timings on the wall clock."""
    s = cell.s
    sent, end = (float(wall(cell, times[i])) for times in (s.sent_ns, s.end_ns))
    timings: dict[str, Any] = {"request_start": sent, "resolve_start": sent, "request_end": end, "resolve_end": end, "finalized": end}
    if cell.record.load.open_loop:
        timings["targeted_start"] = float(wall(cell, s.due_ns[i]))
    if s.events[i]:
        first, last = (float(wall(cell, edge[i])) for edge in (cell.first_ns, cell.last_ns))
        timings |= {"first_request_iteration": first, "first_token_iteration": first, "last_token_iteration": last}
        timings |= {"last_request_iteration": last, **dict.fromkeys(("request_iterations", "token_iterations"), int(s.events[i]))}
        if s.first_answer_ns[i]:
            timings["first_output_token_iteration"] = float(wall(cell, s.first_answer_ns[i]))
    made, name = cell.output_tokens[i], f"{cell.record.id}-{int(s.index[i])}"
    cached = {"cached_tokens": int(s.cached_tokens[i])} if s.cached_tokens[i] >= 0 else {}
    turn = {"turn_index": int(s.turn[i]), "conversation_id": str(s.conversation[i])} if s.conversation[i] >= 0 else {}
    counted = None if np.isnan(made) else int(made)
    return {
        "type_": "generative_request_stats", "request_id": name,
        "info": {
            "request_id": name, "status": "completed" if cell.ok[i] else "errored", "scheduler_start_time": cell.epoch_s,
            "timings": timings, "error": s.error[i], **turn,
        },
        "input_metrics": {"text_tokens": int(cell.input_tokens[i]), "total_tokens": int(cell.input_tokens[i]), **cached},
        "output_metrics": {"text_tokens": counted, "total_tokens": counted},
        **_computed(timings, int(cell.input_tokens[i]), counted), **cached,
    }  # fmt: skip


def _computed(timings: Mapping[str, Any], entered: int, counted: int | None) -> dict[str, Any]:
    """What GuideLLM computes of a request and writes with it. Its readers compute it again; other programs read it here."""
    sent, end, n = timings["request_start"], timings["request_end"], timings.get("token_iterations", 0)
    first, last, due = (timings.get(name) for name in ("first_token_iteration", "last_token_iteration", "targeted_start"))
    made = (n or None) if counted is None else counted
    total = entered + (made or 0)
    answer = timings.get("first_output_token_iteration")
    delay = None if due is None else sent - due
    return {
        "request_start_time": sent, "request_end_time": end, "request_latency": end - sent,
        "request_dispatch_delay": delay, "turn_predecessor_delay": None if due is None else 0.0, "turn_scheduling_delay": delay,
        "request_scheduled_latency": None if due is None else end - due,
        "prompt_tokens": entered, "output_tokens": made, "total_tokens": total,
        "time_to_first_token_ms": None if first is None else 1000 * (first - sent),
        "time_to_first_output_token_ms": None if answer is None else 1000 * (answer - sent),
        "time_per_output_token_ms": 1000 * ((last or end) - sent) / made if made else None,
        "inter_token_latency_ms": 1000 * (last - first) / (made - 1) if last and first and made and made > 1 else None,
        "tokens_per_second": total / (end - sent) if end > sent else None,
        "output_tokens_per_second": made / (end - sent) if end > sent and made is not None else None,
        "output_tokens_per_iteration": made / n if made is not None and n else None,
        "iter_tokens_per_iteration": (made - 1.0) / (n - 1.0) if made and made > 1 and n > 1 else None,
    }  # fmt: skip
