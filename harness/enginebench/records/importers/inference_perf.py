"""Results of inference-perf: summary, stage and per-request lifecycle metrics; the load is in config.yaml beside them.

Each stage becomes a cell; the summary, over all stages, only where there are no stages beside it. Single requests become samples if there
is one stage: the file does not say to which stage a request belongs. A chunk of several tokens has one time for all of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import Requests
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

DIALECT = Dialect(
    (
        Term("TTFT", "time_to_first_token", "first chunk with text - request sent", "ttft"),
        Term("TPOT", "time_per_output_token", "(last chunk - first chunk) / (n - 1), of requests with 2 or more token times", "tpot"),
        Term("TPOT", "normalized_time_per_output_token", "E2E / n: the first token is inside"),
        Term("ITL", "inter_token_latency", "gap between tokens: those of one chunk have its time, so all but one of their gaps are 0"),
        Term("E2E", "request_latency", "end of the response - request sent", "e2e", 1.0, differs="the end of the stream is inside"),
        Term("output throughput", "output_tokens_per_sec", "output tokens / (last end - first start)", "output_throughput"),
        Term("output throughput", "total_tokens_per_sec", "input and output tokens / the same time"),
        Term("request throughput", "requests_per_sec", "successful requests / the same time", "request_throughput"),
        Term("lengths", "input_tokens", "prompt tokens as the client's tokenizer counts them", "isl"),
        Term("lengths", "output_tokens", "output tokens as the client's tokenizer counts them, or the server's by an option", "osl"),
        Term("client queue", "schedule_delay", "start - scheduled time; outside of TTFT", "schedule_delay"),
        Term("percentiles", "percentiles", "linear interpolation (numpy) over the successful requests"),
        Term("goodput", "goodput", "requests that meet the configured limits"),
    ),
    (
        Caveat("a chunk is split into tokens by the client's tokenizer, and each counts as one"),
        Caveat("its client alone is late: TTFT by 16 ms on average and 295 ms at p99 at 256 streams", "docs/fidelity.md, one core", 256),
    ),
)  # fmt: skip
_LATENCIES = ("time_to_first_token", "time_per_output_token", "normalized_time_per_output_token", "inter_token_latency", "request_latency")
_RATES = ("output_tokens_per_sec", "total_tokens_per_sec", "requests_per_sec")
_STATISTICS = ("mean", "min", "max", "median", "p90", "p95", "p99", "p99.9")
_MARKS = ("load_summary", "successes", "failures")
_SKIP = ("request", "response", "info.response_metrics.response_chunks", "info.request_metrics.image")


@importer(
    "inference-perf",
    forms=(
        Form("stage", _MARKS, pattern="stage_*_lifecycle_metrics.json", named=True),
        Form("summary", _MARKS, part_of="stage", pattern="summary_lifecycle_metrics.json"),
        Form("requests", ("start_time", "end_time", "info"), part_of="stage", pattern="per_request_lifecycle_metrics.json"),
    ),
    dialect=DIALECT,
)
def inference_perf(source: Source) -> Iterator[ImportedCell]:
    """One cell per stage."""
    config = _config(source.file)
    if source.form == "requests":
        requests = _requests(source)
        yield ImportedCell(
            _deployment(config), _load(config, 0, len(requests)), {}, len(requests) - len(requests.errors), requests=requests
        )  # fmt: skip
        return
    for record in source.records():
        stages = len(source.beside.get("stage", ())) + (source.form == "stage")
        beside = source.other("requests") if stages <= 1 else None
        yield _cell(source, record, config, _requests(beside) if beside is not None else None)


def _config(file: Path) -> ForeignRecord:
    """What config.yaml beside the file says; nothing without one."""
    data: Any = None
    with suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
        data = yaml.safe_load((file.parent / "config.yaml").read_text(encoding="utf-8"))
    return ForeignRecord(file.parent / "config.yaml", None, data if isinstance(data, dict) else {})


def _cell(source: Source, record: ForeignRecord, config: ForeignRecord, requests: Requests | None) -> ImportedCell:
    good, sent = record.part("successes"), record.whole("load_summary.count")
    completed = good.whole("count")
    if completed > sent:
        raise record.error(f"the file is damaged: {completed} of {sent} requests succeeded", "successes.count")
    figures: dict[str, float] = {"success_rate": completed / max(1, sent)}
    own: dict[str, float] = {}
    for name in _LATENCIES:
        if isinstance(good.get(f"latency.{name}"), Mapping):
            ours, theirs = DIALECT.figures(name, good.part("latency").numbers_in(name, _STATISTICS))
            figures, own = figures | ours, own | theirs
    for name in _RATES:
        if good.has(f"throughput.{name}"):
            ours, theirs = DIALECT.figures(name, {"": good.number(f"throughput.{name}")})
            figures, own = figures | ours, own | theirs
    wall_s = record.number("benchmark_time_seconds") if record.has("benchmark_time_seconds") else None
    stage = int(name) if (name := source.file.name.removeprefix("stage_").split("_")[0]).isdigit() else 0
    return ImportedCell(_deployment(config), _load(config, stage, sent, record), figures, completed, wall_s, own, requests)


def _deployment(config: ForeignRecord) -> Deployment:
    model = str(config.get("server.model_name") or "unknown")
    engine = str(config.get("server.type") or "openai")
    return Deployment(engine, model, UNKNOWN_PRECISION, model, runtime="attach")


def _load(config: ForeignRecord, stage: int, sent: int, record: ForeignRecord | None = None) -> Load:
    """The load of a stage: a concurrency, or a rate."""
    stages = config.get("load.stages")
    its = stages[stage] if isinstance(stages, list) and stage < len(stages) and isinstance(stages[stage], Mapping) else {}
    common: Mapping[str, Any] = {
        "requests": sent, "input_tokens": _length(config, "input"), "output_tokens": _length(config, "output"), "prompts": "unknown",
        "prefix_cache": "allowed", "api": "chat" if config.get("api.type") == "chat" else "completions",
    }  # fmt: skip
    kind = config.get("load.type")
    streams, rate = its.get("concurrency_level"), its.get("rate")
    if record is not None:
        streams = record.get("load_summary.concurrency") or streams
        rate = record.get("load_summary.requested_rate") or rate
    if kind == "concurrent" or (streams and not kind):
        return ClosedLoop(concurrency=max(1, int(streams or 1)), **common)
    if not isinstance(rate, int | float) or rate <= 0:
        where = record or config
        raise where.error("the load is unknown: config.yaml of inference-perf is not beside this file, and it states no rate")
    return OpenLoop(rate=float(rate), concurrency=0, arrivals="poisson" if kind == "poisson" else "constant", **common)


def _length(config: ForeignRecord, which: str) -> int | str:
    its = config.get(f"data.{which}_distribution")
    if isinstance(its, Mapping) and its.get("min") == its.get("max") and isinstance(its.get("mean"), int | float):
        return int(its["mean"])
    return "data"


def _requests(source: Source) -> Requests:
    """The single requests. A chunk is an event: tokens with the same time came in one."""
    made = Requests()
    for record in source.records(skip=_SKIP):
        start, end = record.number("start_time"), record.number("end_time")
        response, asked = "info.response_metrics", "info.request_metrics.text.input_tokens"
        times = record.numbers(f"{response}.output_token_times") if record.has(f"{response}.output_token_times") else ()
        chunks = sorted(set(times))
        error, local, server = record.get("error"), record.get(f"{response}.output_tokens"), record.get(f"{response}.server_usage")
        usage: Mapping[str, Any] = server if isinstance(server, Mapping) else {}
        made.add(
            sent_s=start, due_s=record.number("scheduled_time") if record.has("scheduled_time") else None,
            first_s=chunks[0] - start if chunks else None, last_s=None if chunks else end - start,
            gaps_s=[later - earlier for earlier, later in pairwise(chunks)], output_tokens=usage.get("completion_tokens"),
            local_tokens=int(local) if isinstance(local, int | float) else None, input_tokens=usage.get("prompt_tokens"),
            asked_input=record.whole(asked) if record.has(asked) else None,
            error=str(error.get("error_msg") if isinstance(error, Mapping) else error) if error else None,
        )  # fmt: skip
    return made
