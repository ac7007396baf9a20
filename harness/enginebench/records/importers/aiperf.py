"""Results of AIPerf: profile_export_aiperf.json, and profile_export.jsonl with the single requests; a sweep is a folder of such folders.

Times of requests are ns of the wall clock. AIPerf's `inter_token_latency` is TPOT here, its `inter_chunk_latency` is ITL.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import Requests
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

NVIDIA_TERMS = (
    Term("TTFT", "time_to_first_token", "first chunk with content - request sent", "ttft", 1e-3),
    Term("TPOT", "inter_token_latency", "(E2E - TTFT) / (n - tokens of the first chunk, usually 1)", "tpot", 1e-3),
    Term("E2E", "request_latency", "last chunk with content - request sent", "e2e", 1e-3),
    Term("output throughput", "output_token_throughput", "output tokens of successful requests / duration", "output_throughput"),
    Term("output throughput", "output_token_throughput_per_user", "1 / TPOT of each request"),
    Term("request throughput", "request_throughput", "successful requests / duration of the load", "request_throughput"),
    Term("lengths", "input_sequence_length", "prompt tokens as the client's tokenizer counts them", "isl"),
    Term("percentiles", "percentiles", "linear interpolation (numpy) over the successful requests"),
)  # fmt: skip
DIALECT = Dialect(
    (
        *NVIDIA_TERMS,
        Term("TTFT", "time_to_second_token", "second chunk - first chunk"),
        Term("ITL", "inter_chunk_latency", "gap between chunks with content, over all requests", "itl", 1e-3),
        Term("lengths", "output_sequence_length", "output tokens as the client's tokenizer counts them", "osl"),
        Term("client queue", "credit_issued_ns", "when a request was due; the wait until it is sent is outside of TTFT", "schedule_delay"),
        Term("goodput", "goodput", "requests/s that meet the limits of --goodput"),
    ),
    (
        Caveat("the set-up of a new connection is inside of TTFT"),
        Caveat("chunks that arrive in one read share its time, so gaps of 0 ms are its own and not the server's"),
        Caveat("its client holds 153 of 256 streams, and TTFT is 120 ms late on average", "docs/fidelity.md, one core", 256),
    ),
)  # fmt: skip
LATENCIES = ("time_to_first_token", "time_to_second_token", "inter_token_latency", "inter_chunk_latency", "request_latency")
RATES = ("output_token_throughput", "request_throughput", "goodput")
_STATISTICS = ("avg", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "min", "max", "std")
_SKIP = ("telemetry_data", "server_metrics")


@importer(
    "aiperf",
    forms=(
        Form("summary", ("request_latency.unit", "input_config.endpoint.urls"), pattern="profile_export_aiperf*.json"),
        Form("summary", ("request_latency.unit", "input_config.loadgen"), pattern="profile_export_aiperf*.json"),
        Form("requests", ("metadata.request_start_ns", "metrics.request_latency.value"), part_of="summary", pattern="*.jsonl"),
    ),
    dialect=DIALECT,
)
def aiperf(source: Source) -> Iterator[ImportedCell]:
    """One cell: with its single requests if they lie beside the summary."""
    if source.form == "requests":
        yield _alone(source, read_requests(source, None))
        return
    for record in source.records(skip=_SKIP):
        beside = source.other("requests")
        requests = read_requests(beside, _fixed(record, "osl")) if beside is not None else None
        yield _cell(record, requests)


def nvidia_figures(record: ForeignRecord, dialect: Dialect) -> tuple[dict[str, float], dict[str, float]]:
    """Figures and own figures of a summary of AIPerf or GenAI-Perf."""
    figures: dict[str, float] = {}
    own: dict[str, float] = {}
    declared = {term.theirs for term in dialect.terms}
    for name in (*LATENCIES, *RATES, "output_token_throughput_per_user"):
        if record.has(name) and name in declared:
            values = record.numbers_in(name, ("avg",) if name in RATES else _STATISTICS)
            ours, theirs = dialect.figures(name, {"": values["avg"]} if name in RATES and "avg" in values else values)
            figures, own = figures | ours, own | theirs
    return figures, own


def _cell(record: ForeignRecord, requests: Requests | None) -> ImportedCell:
    completed = record.whole("request_count.avg") if record.has("request_count") else 0
    failed = record.whole("error_request_count.avg") if record.has("error_request_count") else 0
    figures, own = nvidia_figures(record, DIALECT)
    figures["success_rate"] = completed / max(1, completed + failed)
    model = _model(record)
    deployment = Deployment("openai", model, UNKNOWN_PRECISION, model, runtime="attach")
    wall_s = record.number("benchmark_duration.avg") if record.has("benchmark_duration") else None
    version = str(record.get("aiperf_version")) if record.get("aiperf_version") else None
    caveats = ("the run was cancelled before its end",) if record.get("was_cancelled") is True else ()
    return ImportedCell(
        deployment, _load(record, completed + failed), figures, completed, wall_s, own, requests, version, caveats=caveats
    )  # fmt: skip


def _model(record: ForeignRecord) -> str:
    items, names = record.get("input_config.models.items"), record.get("input_config.endpoint.model_names")
    if isinstance(items, list) and items and isinstance(items[0], Mapping):
        return str(items[0].get("name"))
    return str(names[0]) if isinstance(names, list) and names else "unknown"


def _load(record: ForeignRecord, sent: int) -> Load:
    """The load of the profiling phase; in older files that of `loadgen`."""
    phases = record.get("input_config.phases")
    phase = next((p for p in phases if isinstance(p, Mapping) and p.get("kind", "profiling") == "profiling"), None) if phases else None
    its = ForeignRecord(record.file, record.line, phase or record.get("input_config.loadgen") or {})
    common: Mapping[str, Any] = {
        "requests": sent, "input_tokens": _fixed(record, "isl") or "data", "output_tokens": _fixed(record, "osl") or "data",
        "prompts": "unknown", "prefix_cache": "allowed",
        "api": "chat" if record.get("input_config.endpoint.type") == "chat" else "completions",
    }  # fmt: skip
    rate = next((name for name in ("rate", "request_rate") if its.has(name)), None)
    limit = its.whole("concurrency") if its.has("concurrency") else 0
    if rate is None:
        return ClosedLoop(concurrency=max(1, limit), **common)
    arrivals: Literal["constant", "poisson"] = (
        "constant" if "constant" in str(its.get("type") or its.get("request_rate_mode")) else "poisson"
    )
    return OpenLoop(rate=its.positive(rate), concurrency=limit, arrivals=arrivals, **common)


def _fixed(record: ForeignRecord, which: str) -> int | None:
    """The length that was asked for, if it is the same for all requests."""
    sets = record.get("input_config.datasets")
    of = ForeignRecord(record.file, record.line, sets[0]).get(f"prompts.{which}") if isinstance(sets, list) and sets else None
    if not isinstance(of, Mapping) or of.get("stddev") or not isinstance(of.get("mean"), int | float):
        return None
    return int(of["mean"])


def read_requests(source: Source, asked_output: int | None) -> Requests:
    """The requests of profile_export.jsonl, without warm-up."""
    made = Requests()
    for record in source.records(skip=("metadata.payload",)):
        about = record.part("metadata")
        if about.get("benchmark_phase") in (None, "profiling"):
            _add(made, record, about, asked_output)
    return made


def _add(made: Requests, record: ForeignRecord, about: ForeignRecord, asked_output: int | None) -> None:
    def value(name: str) -> float | None:
        return record.number(f"metrics.{name}.value") if record.has(f"metrics.{name}.value") else None

    def count(name: str) -> int | None:
        return None if (found := value(name)) is None else int(found)

    error = record.get("error")
    first, last = value("time_to_first_token"), value("request_latency")
    gaps = record.numbers("metrics.inter_chunk_latency.value") if record.has("metrics.inter_chunk_latency.value") else None
    single = gaps is None and first is not None and first == last
    made.add(
        sent_s=about.number("request_start_ns") / 1e9,
        due_s=about.number("credit_issued_ns") / 1e9 if about.has("credit_issued_ns") else None,
        first_s=None if first is None else first / 1e3, last_s=None if last is None else last / 1e3,
        gaps_s=() if single else None if gaps is None else [gap / 1e3 for gap in gaps],
        input_tokens=count("usage_prompt_tokens"), output_tokens=count("usage_completion_tokens"),
        local_tokens=count("output_sequence_length"), cached_tokens=count("usage_prompt_cache_read_tokens"),
        asked_input=count("input_sequence_length"), asked_output=asked_output,
        error=str(error.get("message") if isinstance(error, Mapping) else error) if error else None,
        outcome="cancelled" if about.get("was_cancelled") is True else "error",
    )  # fmt: skip


def _alone(source: Source, requests: Requests) -> ImportedCell:
    """Of requests without a summary: neither model nor load are stated; the load is said to be what was in flight."""
    if not len(requests):
        raise source.error("has no requests of the profiling phase")
    deployment = Deployment("openai", "unknown", UNKNOWN_PRECISION, "unknown", runtime="attach")
    common: Mapping[str, Any] = {"input_tokens": "data", "output_tokens": "data", "prompts": "unknown", "prefix_cache": "allowed"}
    load = ClosedLoop(concurrency=max(1, requests.most_in_flight), requests=len(requests), **common)
    why = "the file does not say what load was sent: it is shown as a closed loop of what was in flight"
    return ImportedCell(deployment, load, {}, len(requests) - len(requests.errors), requests=requests, caveats=(why,))
