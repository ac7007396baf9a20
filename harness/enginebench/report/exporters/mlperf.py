"""MLPerf-style summaries, one per cell: result_summary.json of MLPerf Endpoints, and the key lines of LoadGen's mlperf_log_summary.txt.

Fields as in inference_endpoint/metrics/report.py (2026-08). Percentiles are numpy's 'lower', spread is that of a sample, times are ns. A
summary in this form is no MLPerf result: nothing was submitted or audited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from enginebench.domain import OpenLoop
from enginebench.report.exporter import File, Material, as_json, exporter
from enginebench.report.measured import Floats, Measured

_PERCENTILES = (99.9, 99, 97, 95, 90, 80, 75, 50, 25, 10, 5, 1)


@exporter(
    "mlperf", "MLPerf-style summary (result_summary.json of MLPerf Endpoints, and a text in the form of LoadGen's)",
    read_by="scripts for MLPerf Endpoints results, and people",
    definitions={
        "latency": "end of the reply - scheduled arrival, ns",
        "ttft": "first output event - scheduled arrival, ns",
        "tpot": "(end of the reply - first output event) / (output tokens - 1), ns",
        "qps": "completed requests / duration",
        "tps": "output tokens / duration",
        "duration_ns": "first scheduled arrival until the last reply is complete",
        "percentiles": "without interpolation, the lower value; `std_dev` of a sample (n - 1)",
    },
    left_out={
        "histogram, early_stopping_percentiles": "not written",
        "VALID or INVALID": "MLPerf's rules (minimum duration, number of queries, early stopping) are not applied; the verdict is our own",
    },
)  # fmt: skip
def mlperf(run: Material) -> Iterator[File]:
    """A summary per cell."""
    for cell in run.sampled("an MLPerf-style summary"):
        report = _report(cell, run)
        yield f"{cell.stem}/result_summary.json", as_json(report)
        yield f"{cell.stem}/mlperf_log_summary.txt", _text(cell, report).encode()


def _report(cell: Measured, run: Material) -> dict[str, Any]:
    s, ok = cell.s, cell.ok
    sent = s.sent_ns > 0
    duration = int(s.end_ns.max() - s.due_ns[sent].min()) if sent.any() else 0
    first = cell.first_ns
    series: dict[str, Floats] = {"e2e": (s.end_ns - s.due_ns)[ok].astype(np.float64)}
    if cell.streamed.any():
        series["ttft"] = (first - s.due_ns)[cell.streamed].astype(np.float64)
    tokens = cell.output_tokens
    some = cell.streamed & (tokens >= 2)
    if cell.counted and cell.streamed.any():
        series["tpot"] = (s.end_ns - first)[some] / (tokens[some] - 1)
    kept = run.kept(cell, series)
    total = float(tokens[ok].sum()) if cell.counted else None
    return {
        "version": f"enginebench {run.analysis.run.enginebench}", "git_sha": None, "test_started_at": round(cell.epoch_s * 1e9),
        "n_samples_issued": len(s), "n_samples_completed": int(ok.sum()), "n_samples_failed": int((~ok).sum()), "duration_ns": duration,
        "state": "complete" if cell.record.delivery.stopped is None else "interrupted", "complete": cell.record.delivery.stopped is None,
        "ttft": _series(kept.get("ttft")), "tpot": _series(kept.get("tpot")), "latency": _series(kept.get("e2e")),
        "output_sequence_lengths": _series(tokens[ok]) if cell.counted else {},
        "input_sequence_lengths": _series(cell.input_tokens[ok].astype(np.float64)),
        "qps": float(ok.sum()) / duration * 1e9 if duration else None,
        "tps": total / duration * 1e9 if duration and total is not None else None,
        "finish_reason_counts": _counts([reason for reason in s.finish_reason if reason]),
        "run_config": {
            "load_pattern": _pattern(cell), "model": cell.record.deployment.model, "engine": cell.engine, "hardware": cell.hardware,
            "verdict": cell.cell.verdict,
        },
    }  # fmt: skip


def _series(values: Floats | None) -> dict[str, Any]:
    if values is None or not len(values):
        return {}
    found = np.percentile(values, _PERCENTILES, method="lower")
    return {
        "total": float(values.sum()), "min": float(values.min()), "max": float(values.max()),
        "median": float(np.percentile(values, 50, method="lower")), "avg": float(values.mean()),
        "std_dev": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "percentiles": {f"{q:g}": float(value) for q, value in zip(_PERCENTILES, found, strict=True)},
    }  # fmt: skip


def _counts(texts: list[str]) -> dict[str, int]:
    return {text: texts.count(text) for text in dict.fromkeys(texts)}


def _pattern(cell: Measured) -> dict[str, Any]:
    load = cell.record.load
    if isinstance(load, OpenLoop) and load.rate_to is None:
        return {"type": load.arrivals, "target_qps": load.rate, "target_concurrency": load.concurrency or None}
    if load.open_loop:
        return {"type": load.kind, "target_qps": load.mean_rate}
    return {"type": "concurrency", "target_qps": None, "target_concurrency": load.concurrency}


def _text(cell: Measured, report: Mapping[str, Any]) -> str:
    """The lines that people read, in the form of LoadGen's summary."""
    rows: list[tuple[str, Any]] = [
        ("SUT name", f"{cell.row.name} {cell.version or ''}".strip()),
        ("Scenario", "Server" if cell.record.load.open_loop else "Concurrency"),
        ("Completed samples per second", report["qps"]), ("Completed tokens per second", report["tps"]),
        ("Verdict of enginebench (not of MLPerf)", cell.cell.verdict),
    ]  # fmt: skip
    for title, name in (("latency", "latency"), ("first token latency", "ttft"), ("time per output token", "tpot")):
        its = report[name]
        rows += [(f"{what} {title} (ns)", its[key]) for what, key in (("Min", "min"), ("Max", "max"), ("Mean", "avg")) if its]
        rows += [(f"{float(q):.2f} percentile {title} (ns)", its["percentiles"][q]) for q in ("50", "90", "95", "97", "99", "99.9") if its]
    lines = [
        f"{name:<46}: {value:.2f}" if isinstance(value, float) else f"{name:<46}: {value}" for name, value in rows if value is not None
    ]
    bar = "=" * 48
    return "\n".join([bar, "MLPerf-style results summary", bar, *lines]) + "\n"
