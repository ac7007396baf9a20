"""Detail logs of MLPerf Inference's LoadGen: `mlperf_log_detail.txt` of a performance run.

The scenario says how queries are sent: one after another (SingleStream), some at a time (MultiStream), all at once (Offline), or at a rate
with Poisson arrivals (Server). The log says whether the run is VALID by MLPerf's rules, and not what was measured: name engine, model and
hardware. Keys as in loadgen/results.cc and test_settings_internal.cc (6.0); older logs lack those about tokens.
"""

import re
from collections.abc import Iterator
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

_FROM_SCHEDULE = "it counts from when the query was scheduled, not from when it was sent"
DIALECT = Dialect(
    (
        Term("TTFT", "first_token_latency", "FirstTokenComplete - scheduled time of the query, in ns; the system under test calls it",
             becomes="ttft_due", factor=1e-9, differs="the system under test itself says when the first token was there"),
        Term("TPOT", "time_per_output_token", "per sample (latency - first token latency) / (tokens - 1), in ns", becomes="tpot",
             factor=1e-9,
             differs="the system under test itself says when tokens were there"),
        Term("TTFT", "first_token_latency, not Server", "the same from when the query was issued, which is when it was due",
             becomes="ttft", factor=1e-9,
             differs="the system under test itself says when the first token was there"),
        Term("E2E", "latency, not Server", "the same from when the query was issued, which is when it was due", becomes="e2e", factor=1e-9,
             differs="the system under test itself says when a reply is complete"),
        Term("ITL", "-", "none"),
        Term("E2E", "latency", "completion - scheduled time of the query, in ns", becomes="e2e_due", factor=1e-9,
             differs="the system under test itself says when a reply is complete"),
        Term("output throughput", "result_completed_tokens_per_second", "Server: tokens / time until the last sample was done",
             becomes="output_throughput"),
        Term("output throughput", "result_tokens_per_second", "Offline: tokens / the longest latency", becomes="output_throughput"),
        Term("output throughput", "result_token_throughput_with_loadgen_overhead", "tokens / time at which the last query was issued"),
        Term("output throughput", "result_token_throughput",
             "tokens / (mean latency in ns x samples): tokens per ns of all latencies together"),
        Term("request throughput", "result_completed_samples_per_sec", "Server: (samples - 1) / time until the last sample was done",
             becomes="request_throughput"),
        Term("request throughput", "result_samples_per_second", "Offline: samples / the longest latency", becomes="request_throughput"),
        Term("request throughput", "result_qps_with_loadgen_overhead",
             "SingleStream: (samples - 1) / time at which the last query was issued", becomes="request_throughput"),
        Term("request throughput", "result_scheduled_samples_per_sec",
             "Server: (samples - 1) / scheduled time of the last query: what was offered"),
        Term("request throughput", "result_qps_without_loadgen_overhead", "SingleStream: 1 / mean latency"),
        Term("lengths", "-", "none: the data set is known by its number of samples only"),
        Term("client queue", "-", _FROM_SCHEDULE),
        Term("percentiles", "-", "sorted[int(n p)], without interpolation: the next higher value"),
        Term("goodput", "-", "none; a run beyond its latency limits is INVALID"),
    ),
    (Caveat("times of tokens are what the system under test reported to LoadGen; LoadGen sees no stream"),),
)  # fmt: skip
_LATENCY = re.compile(r"result_(?:(first_token)_|(time_per_output_token)_)?(\d+\.\d+)_percentile_(?:latency_)?ns$")
_PER_QUERY = re.compile(r"result_(\d+\.\d+)_percentile_per_query_latency_ns$")
_OFFERED = (
    "result_scheduled_samples_per_sec",
    "result_qps_without_loadgen_overhead",
    "result_token_throughput_with_loadgen_overhead",
    "result_token_throughput",
)
_RATES = {term.theirs: term.becomes for term in DIALECT.terms if term.becomes in ("output_throughput", "request_throughput")}


@importer(
    "MLPerf LoadGen",
    forms=(
        Form("detail", ("loadgen_version", "effective_scenario", "result_validity")),
        Form("no result", ("loadgen_version", "effective_scenario"), aside=True),
    ),
    dialect=DIALECT,
)
def mlperf_loadgen(source: Source) -> Iterator[ImportedCell]:
    """One cell: a log holds one run."""
    for run in source.records():
        if run.get("effective_test_mode") == "AccuracyOnly":
            raise run.error("holds no performance: it is the log of an accuracy run", "effective_test_mode")
        if not run.has("result_validity"):
            raise run.error("the file is damaged or incomplete: it has no 'result_validity', so the run did not end", "result_validity")
        samples = _samples(run)
        figures, own = _figures(run)
        version = run.text("loadgen_version").split()[0]
        sut = run.text("sut_name") if run.has("sut_name") else "unknown"
        deployment = Deployment("unknown", sut, UNKNOWN_PRECISION, sut, runtime="attach")
        wall_s = samples / figures["request_throughput"] if figures.get("request_throughput") else None
        yield ImportedCell(
            deployment,
            _load(run, samples),
            figures,
            samples,
            wall_s,
            own,
            version=version,
            caveats=tuple(_remarks(run)),
            rejected=_verdict(run),
        )


def _samples(run: ForeignRecord) -> int:
    queries = run.whole("result_query_count")
    each = run.whole("effective_samples_per_query") if run.has("effective_samples_per_query") else 1
    return queries * max(1, each)


def _figures(run: ForeignRecord) -> tuple[dict[str, float], dict[str, float]]:
    figures = {ours: run.number(theirs) for theirs, ours in _RATES.items() if run.has(theirs)}
    own = {name: run.number(name) for name in _OFFERED if run.has(name)}
    own |= {key: run.number(key) for key in run.data if re.search(r"^result_.*(mean|min|max).*_ns$|^early_stopping_latency_\w+$", key)}
    scenario = run.get("effective_scenario")
    for key in run.data:
        found = _LATENCY.match(key)
        if found is None:
            if _PER_QUERY.match(key):
                own[key] = run.number(key)
            continue
        own[key] = value = run.number(key)
        theirs = "first_token_latency" if found[1] else found[2] or "latency"
        from_issue = "latency" in theirs and scenario != "Server"
        term, percentile = DIALECT.term(f"{theirs}, not Server" if from_issue else theirs), float(found[3])
        if percentile in (50, 90, 99) and value > 0:
            figures[f"{term.becomes}_p{percentile:.0f}"] = value * term.factor
    return figures, own


def _load(run: ForeignRecord, samples: int) -> Load:
    scenario = run.text("effective_scenario").replace(" ", "")  # 'Single Stream' before 0.7
    common: dict[str, Any] = {
        "requests": samples, "input_tokens": "data", "output_tokens": "data", "prompts": "unknown", "prefix_cache": "allowed",
        "seed": run.whole("effective_schedule_rng_seed") % 2**63 if run.has("effective_schedule_rng_seed") else 0,
    }  # fmt: skip
    if scenario == "Server":
        return OpenLoop(rate=run.positive("effective_target_qps"), concurrency=0, arrivals="poisson", **common)
    at_once = {"SingleStream": 1, "MultiStream": run.whole("effective_samples_per_query"), "Offline": samples}
    if scenario not in at_once:
        raise run.error(f"must be SingleStream, MultiStream, Offline or Server, not '{scenario[:40]}'", "effective_scenario")
    return ClosedLoop(concurrency=max(1, at_once[scenario]), **common)


def _verdict(run: ForeignRecord) -> str:
    """Why LoadGen calls the run INVALID; '' if it does not."""
    if run.text("result_validity") == "VALID":
        return ""
    rules = {
        "result_perf_constraints_met": "latency limits", "result_min_duration_met": "minimum duration",
        "result_min_queries_met": "minimum number of queries", "early_stopping_met": "early stopping",
    }  # fmt: skip
    broken = ", ".join(text for key, text in rules.items() if run.get(key) is False)
    reason = " ".join(str(run.get("result_invalid_reason") or "").split())
    why = "; ".join(filter(None, (broken, reason))) or "no reason is given"
    return f"LoadGen calls this run INVALID ({why})"


def _remarks(run: ForeignRecord) -> Iterator[str]:
    scenario = run.text("effective_scenario")
    target = f" at a target of {run.number('effective_target_qps'):g} queries/s" if scenario == "Server" else ""
    yield f"MLPerf's {scenario} scenario{target}"
    if run.has("num_errors") and run.number("num_errors"):
        yield f"LoadGen logged {run.number('num_errors'):g} errors"
    if run.get("effective_test_mode") not in ("PerformanceOnly", None):
        yield f"its test mode is {run.get('effective_test_mode')}, not PerformanceOnly"
