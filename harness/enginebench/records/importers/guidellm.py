"""Results of GuideLLM: JSON with one benchmark for each rate, and its single requests; versions 0.3 to 0.8.

GuideLLM's `inter_token_latency_ms` is TPOT here; its `time_per_output_token_ms` is E2E / n and has no equal.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop
from enginebench.records.dialect import Caveat, Dialect, Term, not_reported
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import Requests
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

DIALECT = Dialect(
    (
        Term("TTFT", "time_to_first_token_ms", "first iteration with text - start of the request in its worker", "ttft", 1e-3),
        Term(
            "TPOT", "inter_token_latency_ms", "(last - first iteration) / (n - 1) of each request", "tpot", 1e-3,
            differs="percentiles count a request once for each of its tokens",
        ),
        Term("TPOT", "time_per_output_token_ms", "0.8: (last iteration - start) / n; 0.3: (last - first token) / n"),
        *not_reported("ITL"),
        Term("E2E", "request_latency", "end of the response - start of the request", "e2e", 1.0, differs="the end of the stream is inside"),
        Term("output throughput", "output_tokens_per_second", "output tokens / duration of the benchmark", "output_throughput"),
        Term("output throughput", "tokens_per_second", "input and output tokens / duration"),
        Term("request throughput", "requests_per_second", "successful requests / duration", "request_throughput"),
        Term("lengths", "prompt_tokens", "the server's usage, else the client's tokenizer", "isl"),
        Term("lengths", "output_tokens", "the server's usage, else the client's tokenizer", "osl"),
        Term("client queue", "targeted_start", "when a request was due; the wait until it starts is outside of TTFT", "schedule_delay"),
        Term("percentiles", "percentiles", "the smallest value with at least that share at or below it, no interpolation"),
        Term("goodput", "request_goodput", "requests/s that meet the limits of --slo"),
    ),
    (
        Caveat("the set-up of a connection is inside of TTFT"),
        Caveat("its client holds 124 of 256 streams, and TTFT is 260 ms late on average", "docs/fidelity.md, one core", 200),
    ),
)  # fmt: skip
_LATENCIES = ("time_to_first_token_ms", "inter_token_latency_ms", "time_per_output_token_ms", "request_latency")
_RATES = ("output_tokens_per_second", "tokens_per_second", "requests_per_second")
_STATISTICS = ("mean", "median", "std_dev", "min", "max")
_PERCENTILES = ("p50", "p90", "p95", "p99")
_STATES = ("successful", "errored", "incomplete")
_TEXTS = ("request_args", "output", "prompt", "reasoning_output")
_SKIP = tuple(f"benchmarks.*.requests.{state}.*.{text}" for state in _STATES for text in _TEXTS)
_NO_PDF = tuple(
    f"benchmarks.*.metrics.{name}.{state}.pdf" for name in (*_LATENCIES, *_RATES) for state in ("successful", "errored", "total")
)


@importer("guidellm", forms=(Form("report", ("benchmarks.*.metrics", "benchmarks.*.requests")),), dialect=DIALECT)
def guidellm(source: Source) -> Iterator[ImportedCell]:
    """One cell per benchmark."""
    cells: list[ImportedCell] = []
    made = Requests()

    def add(state: str, request: ForeignRecord) -> None:
        _add(made, state, request)  # of the benchmark that is being read

    def ended(benchmark: ForeignRecord) -> None:
        nonlocal made
        cells.append(_cell(benchmark, made if len(made) else None))
        made = Requests()

    rows: dict[str, Any] = {f"benchmarks.*.requests.{state}": partial(add, state) for state in _STATES}
    version = None
    for record in source.records(skip=(*_SKIP, *_NO_PDF), rows={**rows, "benchmarks": ended}):
        version = str(record.get("metadata.guidellm_version") or "") or None
    yield from (replace(cell, version=version) for cell in cells)


def _add(made: Requests, state: str, request: ForeignRecord) -> None:
    """One request, of version 0.8 or of 0.3, which has fewer times."""
    timings = request.part("info.timings" if request.has("info.timings") else "scheduler_info")
    sent = _first(request, "request_start_time", "start_time")
    first_ms, last = (
        _first(request, "time_to_first_token_ms"),
        _first(timings, "last_token_iteration") or _first(request, "last_token_time"),
    )
    latency, n = _first(request, "request_latency"), _first(request, "output_tokens")
    per_token_ms = _first(request, "inter_token_latency_ms")
    last_s: float | None = None
    if last is not None and sent is not None:
        last_s = last - sent
    elif first_ms is not None and per_token_ms is not None and n is not None:
        last_s = (first_ms + per_token_ms * (n - 1)) / 1e3
    due, entered, cached = (
        _first(timings, "targeted_start", "targeted_start_time"),
        _first(request, "prompt_tokens"),
        _first(request, "cached_tokens"),
    )
    error = None if state == "successful" else str(request.get("info.error") or request.get("error") or state)
    made.add(
        sent_s=sent, due_s=due, first_s=None if first_ms is None else first_ms / 1e3, last_s=last_s if last_s is not None else latency,
        output_tokens=None if n is None else int(n), input_tokens=None if entered is None else int(entered),
        cached_tokens=None if cached is None else int(cached), error=error, outcome="cancelled" if state == "incomplete" else "error",
    )  # fmt: skip


def _first(record: ForeignRecord, *names: str) -> float | None:
    """The first of these values that is there."""
    return next((record.number(name) for name in names if record.has(name)), None)


def _cell(benchmark: ForeignRecord, requests: Requests | None) -> ImportedCell:
    metrics = benchmark.part("metrics")
    totals = metrics.part("request_totals") if metrics.has("request_totals") else benchmark.part("request_totals")
    completed = totals.whole("successful")
    figures: dict[str, float] = {}
    own: dict[str, float] = {}
    for name in (*_LATENCIES, *_RATES):
        if isinstance(metrics.get(f"{name}.successful"), Mapping):
            its = metrics.part(f"{name}.successful")
            ours, theirs = DIALECT.figures(name, {"": its.number("mean")} if name in _RATES else _statistics(its))
            figures, own = figures | ours, own | theirs
    figures["success_rate"] = completed / max(1, totals.whole("total"))
    model = str(
        benchmark.get("config.backend.model") or benchmark.get("args.backend.model") or benchmark.get("worker.backend_model")
        or benchmark.get("benchmarker.backend.model") or "unknown"
    )  # fmt: skip
    deployment = Deployment("openai", model, UNKNOWN_PRECISION, model, runtime="attach")
    load = _load(benchmark, totals.whole("total"))
    wall_s = _first(benchmark, "duration", "run_duration")
    return ImportedCell(deployment, load, figures, completed, wall_s, own, requests)


def _statistics(its: ForeignRecord) -> dict[str, float]:
    found = {name: its.number(name) for name in _STATISTICS if its.has(name) and name != "median"}
    return found | {name: its.number(f"percentiles.{name}") for name in _PERCENTILES if its.has(f"percentiles.{name}")}


def _load(benchmark: ForeignRecord, sent: int) -> Load:
    """The load of a strategy; lengths are not fixed in the file."""
    place = next((name for name in ("config.strategy", "args.strategy", "scheduler.strategy") if benchmark.has(name)), None)
    if place is None:
        raise benchmark.error("the file is damaged or incomplete: it has no 'config.strategy'")
    its = benchmark.part(place)
    kind = str(its.get("type_") or its.get("kind"))
    route = str(benchmark.get("config.backend.request_format") or benchmark.get("worker.backend_info.request_format") or "")
    common: Mapping[str, Any] = {
        "requests": sent, "input_tokens": "data", "output_tokens": "data", "prompts": "unknown", "prefix_cache": "allowed",
        "api": "chat" if "chat" in route else "completions",
    }  # fmt: skip
    if kind == "synchronous":
        return ClosedLoop(concurrency=1, **common)
    if kind in ("concurrent", "throughput"):
        streams = _first(its, "streams", "max_concurrency") or sent
        return ClosedLoop(concurrency=max(1, int(min(streams, sent) if kind == "throughput" else streams)), **common)
    if kind in ("constant", "poisson"):
        limit = int(_first(its, "max_concurrency") or 0)
        return OpenLoop(rate=its.positive("rate"), concurrency=limit, arrivals=kind, **common)  # type: ignore[arg-type]  # one of the two
    raise its.error(f"'{kind}' is not a load that can be imported", "type_")
