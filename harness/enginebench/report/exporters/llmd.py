"""llm-d Benchmark Report 0.2, one JSON file (which is YAML) per cell.

Fields as in the published schema, llmdbenchmark/analysis/benchmark_report/br_v0_2_json_schema.json. Its statistics are those of the whole
load; `time_per_output_token` and `inter_token_latency` are told apart as its authors' notes do.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np

from enginebench.domain import Length, OpenLoop, fingerprint, plain
from enginebench.report.exporter import File, Material, as_json, exporter
from enginebench.report.measured import Floats, Measured, summary

_PERCENTILES = {"p0p1": 0.1, "p1": 1, "p5": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99, "p99p9": 99.9}


@exporter(
    "llm-d", "llm-d Benchmark Report 0.2",
    read_by="llm-d-benchmark's report validator and its analysis notebooks",
    definitions={
        "time_to_first_token": "first output event - sent",
        "time_per_output_token": "per request (last event - first event) / (output tokens - 1)",
        "inter_token_latency": "gaps between output events, over all requests",
        "normalized_time_per_output_token": "per request E2E / output tokens",
        "request_latency": "last output event - sent",
        "*_rate": "the mean over the duration: the schema wants a distribution of which only `mean` is required",
    },
    left_out={
        "steady window": "the report covers the whole load",
        "time_series, observability": "not written",
        "precision": "the schema's model has only a name; it is in `native.config`",
    },
)  # fmt: skip
def llmd(run: Material) -> Iterator[File]:
    """A report per cell."""
    for cell in run.sampled("a Benchmark Report"):
        yield f"{cell.stem}.json", as_json(_report(cell, run))


def _report(cell: Measured, run: Material) -> dict[str, Any]:
    start, record = cell.epoch_s, cell.record
    return {
        "version": "0.2",
        "run": {
            "uid": record.id, "eid": run.analysis.run.plan_id,
            "time": {"start": _time(start), "end": _time(start + cell.duration_s), "duration": f"PT{cell.duration_s!r}S"},
            "description": f"{run.analysis.run.name}: {cell.row.name} at {record.load.level_text}; enginebench says {cell.cell.verdict}",
        },
        "scenario": {"stack": [_engine(cell)], "load": _load(cell, run)},
        "results": {"request_performance": {"aggregate": _aggregate(cell, run)}},
    }  # fmt: skip


def _time(epoch_s: float) -> str:
    return dt.datetime.fromtimestamp(epoch_s, dt.UTC).isoformat().replace("+00:00", "Z")


def _engine(cell: Measured) -> dict[str, Any]:
    deployment, launch = cell.record.deployment, cell.launch
    spread = deployment.parallelism
    command = launch.startup.command if launch is not None else None
    return {
        "metadata": {"label": cell.row.name, "cfg_id": fingerprint(plain(deployment))},
        "standardized": {
            "kind": "inference_engine", "tool": deployment.engine, "tool_version": cell.version or "unknown", "role": "replica",
            "replicas": spread.dp_replicas, "model": {"name": deployment.model},
            "accelerator": {
                "model": cell.hardware, "count": cell.devices // spread.dp_replicas or 1,
                "parallelism": {"tp": spread.tp, "pp": spread.pp, "ep": spread.ep, "dp": spread.attention_dp, "dp_local": 1, "workers": 1},
            },
        },
        "native": {
            "args": {"argv": list(command.argv)} if command is not None else None,
            "envars": dict(command.env) if command is not None else None, "config": plain(deployment.shown),
        },
    }  # fmt: skip


def _load(cell: Measured, run: Material) -> dict[str, Any]:
    load, record = cell.record.load, cell.record
    standard: dict[str, Any] = {
        "tool": "enginebench", "tool_version": run.analysis.run.enginebench,
        "source": "random" if load.prompts == "random" else "unknown" if load.prompts == "unknown" else "sampled",
        "input_seq_len": _length(load.token_lengths[0], load.lengths, cell.input_tokens[cell.ok]),
        "output_seq_len": _length(load.token_lengths[1], load.lengths, cell.output_tokens[cell.ok]),
        "multi_turn": {"enabled": True, "max_turns": {"distribution": "fixed", "value": load.turns}} if load.turns > 1 else None,
        "rate_qps": load.rate if isinstance(load, OpenLoop) else load.mean_rate, "concurrency": load.concurrency or None,
    }  # fmt: skip
    return {
        "metadata": {"cfg_id": fingerprint(plain(load)), "description": f"{load.level_text}, {load.shape_text}"},
        "standardized": {name: value for name, value in standard.items() if value is not None},
        "native": {"config": {"load": plain(load), "cell": record.id, "repeat": record.repeat}},
    }


def _length(asked: Length, pairs: str | None, counted: Any) -> dict[str, Any] | None:
    """The length that was asked for; where it varies, what was counted."""
    if isinstance(asked, int) and pairs is None:
        return {"distribution": "fixed", "value": asked}
    values = np.asarray(counted, dtype=np.float64)
    if not len(values) or np.isnan(values).any():
        return None
    uniform = isinstance(asked, str) and asked.startswith("uniform") and pairs is None
    found = {"distribution": "uniform" if uniform else "other", "value": float(values.mean()), "std_dev": float(values.std())}
    return found | {"min": int(values.min()), "max": max(1, int(values.max()))}


def _aggregate(cell: Measured, run: Material) -> dict[str, Any]:
    ok, duration = cell.ok, cell.duration_s
    made = cell.output_tokens[ok]
    latency: dict[str, tuple[Floats, str, str]] = {"request_latency": (cell.e2e_s[ok], "s", "e2e")}
    if cell.streamed.any():
        latency["time_to_first_token"] = (cell.ttft_s[cell.streamed], "s", "ttft")
        latency["inter_token_latency"] = (cell.all_gaps_s, "s/token", "itl")
    rates = {"request_rate": (float(ok.sum()), "queries/s"), "input_token_rate": (float(cell.input_tokens[ok].sum()), "tokens/s")}
    if cell.counted:
        latency["time_per_output_token"] = (cell.tpot_s(cell.streamed), "s/token", "tpot")
        latency["normalized_time_per_output_token"] = ((cell.e2e_s[ok] / np.maximum(made, 1))[made > 0], "s/token", "e2e")
        rates["output_token_rate"] = (float(made.sum()), "tokens/s")
        rates["total_token_rate"] = (rates["input_token_rate"][0] + float(made.sum()), "tokens/s")
    else:
        run.say("cells whose output tokens nobody counted have no time per output token and no output rate")
    kept = run.kept(cell, {ours: None for _, _, ours in latency.values()})
    requests: dict[str, Any] = {"total": len(ok), "failures": int((~ok).sum()), "incomplete": cell.record.delivery.unsent}
    requests["input_length"] = _statistics(cell.input_tokens[ok].astype(np.float64), "count")
    requests["output_length"] = _statistics(made, "count") if cell.counted else None
    return {
        "requests": {name: value for name, value in requests.items() if value is not None},
        "latency": {name: found for name, (values, unit, ours) in latency.items() if ours in kept and (found := _statistics(values, unit))},
        "throughput": {name: {"units": unit, "mean": total / duration if duration else 0.0} for name, (total, unit) in rates.items()},
    }


def _statistics(values: Floats, units: str) -> dict[str, Any] | None:
    found = summary(values, tuple(_PERCENTILES.values()))
    if found is None:
        return None
    spread = {name: found[f"p{q:g}"] for name, q in _PERCENTILES.items()}
    return {"units": units, "mean": found["mean"], "stddev": found["std"], "min": found["min"], **spread, "max": found["max"]}
