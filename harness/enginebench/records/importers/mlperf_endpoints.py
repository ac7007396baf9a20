"""Summaries of MLPerf Endpoints: `result_summary.json` of `inference-endpoint benchmark`.

An HTTP client like ours. The summary has statistics only. It names neither engine nor model. Facts as in metrics/report.py and
services/metrics_aggregator (2026-08).
"""

from collections.abc import Iterator
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

DIALECT = Dialect(
    (
        Term("TTFT", "ttft", "first chunk - issue of the request to a worker, in ns", becomes="ttft", factor=1e-9,
             differs="it counts from the issue, so the way to the worker process that sends it is inside"),
        Term("TPOT", "tpot",
             "per request (end of the reply - first chunk) / tokens of the text after the first chunk, in ns: over n - 1 if the first "
             "chunk has one token. Counted by its own tokenizer", becomes="tpot", factor=1e-9,
             differs="it divides by the tokens behind the first chunk, as its own tokenizer counts them"),
        Term("ITL", "-", "chunk_delta_ns is in its snapshot only"),
        Term("E2E", "latency", "end of the reply - issue of the request, in ns", becomes="e2e", factor=1e-9,
             differs="it counts from the issue to the end of the reply"),
        Term("output throughput", "tps",
             "tokens / duration; with `legacy_loadgen_window_duration_ns` / that window, which ends when the last-issued "
             "request is complete", becomes="output_throughput"),
        Term("request throughput", "qps", "completed / duration; with the legacy window (completed - 1) / that window",
             becomes="request_throughput"),
        Term("lengths", "input_sequence_lengths, output_sequence_lengths",
             "tokens as its own tokenizer counts them, not as the server does"),
        Term("client queue", "-", "inside: times count from the issue"),
        Term("percentiles", "-", "numpy with method 'lower', without interpolation, once the run is complete; of an HDR histogram before"),
        Term("goodput", "-", "none"),
    ),
    (Caveat("lengths are counted by its own tokenizer; a server may have counted others"),),
)  # fmt: skip
_STATISTICS = {"median": "p50", "50": "p50", "90": "p90", "99": "p99"}


@importer(
    "MLPerf Endpoints",
    forms=(Form("summary", ("n_samples_issued", "n_samples_completed", "duration_ns", "latency"), pattern="result_summary*.json"),),
    dialect=DIALECT,
)
def mlperf_endpoints(source: Source) -> Iterator[ImportedCell]:
    """One cell."""
    for report in source.records(skip=("*.histogram",)):
        completed, issued = report.whole("n_samples_completed"), report.whole("n_samples_issued")
        if completed > issued:
            raise report.error(f"the file is damaged: {completed} of {issued} requests completed", "n_samples_completed")
        figures, own = dict[str, float](), dict[str, float]()
        for name in ("ttft", "tpot", "latency"):
            stated = _spread(report, name)
            ours, _ = DIALECT.figures(name, stated, _STATISTICS)
            figures |= ours
            own |= {f"{name}.{statistic}": value for statistic, value in stated.items()}
        for name in ("qps", "tps"):
            if report.has(name):
                figures[DIALECT.term(name).becomes] = report.number(name)
        if issued:
            figures["success_rate"] = completed / issued
        wall_s = report.number("duration_ns") / 1e9 if report.has("duration_ns") else None
        if wall_s and report.has("input_sequence_lengths.total"):
            figures["input_throughput"] = report.number("input_sequence_lengths.total") / wall_s
        version = report.text("version") if report.has("version") else None
        deployment = Deployment("openai", "unknown", UNKNOWN_PRECISION, "unknown", runtime="attach")
        yield ImportedCell(
            deployment,
            _load(report, issued),
            figures,
            completed,
            wall_s,
            own,
            version=version,
            caveats=tuple(_remarks(report)),
            rejected="the run was interrupted" if report.get("state") == "interrupted" else "",
        )


def _spread(report: ForeignRecord, name: str) -> dict[str, float]:
    """The statistics of a series; a value that was not finite is null in the file, and left out. Percentiles may be '50' or '50.0'."""
    stated = report.numbers_in(name, ("min", "max", "median", "avg", "std_dev")) if report.has(name) else {}
    found = report.get(f"{name}.percentiles") or {}
    if not isinstance(found, dict):
        raise report.error("must be an object", f"{name}.percentiles")
    part = report.part(f"{name}.percentiles") if found else None
    for key, value in found.items():
        if value is not None and part is not None:
            stated[f"{float(key):g}" if key.replace(".", "", 1).isdigit() else key] = part.number(key)
    return stated


def _load(report: ForeignRecord, issued: int) -> Load:
    lengths = {
        ours: _length(report, f"{theirs}_sequence_lengths") for ours, theirs in (("input_tokens", "input"), ("output_tokens", "output"))
    }
    common: dict[str, Any] = {"requests": issued, "prompts": "unknown", "prefix_cache": "allowed", "api": "chat", **lengths}
    pattern = report.get("run_config.load_pattern")
    kind = pattern.get("type") if isinstance(pattern, dict) else None
    if kind == "poisson":
        return OpenLoop(rate=report.positive("run_config.load_pattern.target_qps"), concurrency=0, arrivals="poisson", **common)
    if kind == "concurrency":
        return ClosedLoop(concurrency=max(1, report.whole("run_config.load_pattern.target_concurrency")), **common)
    return ClosedLoop(concurrency=max(1, issued), **common)  # max_throughput: all at once; or unknown


def _length(report: ForeignRecord, key: str) -> int | str:
    if not (report.has(f"{key}.min") and report.has(f"{key}.max")):
        return "data"
    least, most = report.number(f"{key}.min"), report.number(f"{key}.max")
    return int(least) if least == most and least == int(least) else "data"


def _remarks(report: ForeignRecord) -> Iterator[str]:
    if report.get("complete") is False:
        yield "its report is incomplete: some replies were not counted before it was written"
    if not isinstance(report.get("run_config.load_pattern"), dict):
        yield "the file does not say how requests were sent; they are taken as sent all at once"
    if report.has("legacy_loadgen_window_duration_ns"):
        yield "its throughput is of MLPerf's window, which ends when the last-issued request is complete, and leaves out one request"
