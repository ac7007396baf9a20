"""Reports of `trtllm-bench throughput` and `latency`: `--report_json FILE`, and the single requests of `--request_json FILE`.

The engine runs in the client's process: no HTTP. All requests are handed over at once unless `--concurrency` limits them. Facts as in
tensorrt_llm/bench/dataclasses (reporting.py, statistics.py); older reports lack `machine`, `streaming_metrics` and others.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from enginebench.domain import ClosedLoop, Deployment, Load, Parallelism
from enginebench.domain.precisions import from_torch
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import Requests
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

_STATISTICS = {"p50": "p50", "p90": "p90", "p99": "p99"}
_INSIDE = "the engine runs in the client's process and its queue is inside"
DIALECT = Dialect(
    (
        Term("TTFT", "ttft_percentiles", "first token - handing the request over, in ms; only with --streaming", becomes="ttft",
             factor=1e-3,
             differs=_INSIDE, in_samples=True),
        Term("TTFT", "avg_ttft_ms", "mean of the same"),
        Term("TPOT", "tpot_percentiles", "per request (end - first token) / (output tokens - 1), in ms; 0 below 2 tokens", becomes="tpot",
             factor=1e-3),
        Term("TPOT", "avg_tpot_ms", "mean of the same"),
        Term("TPOT", "token_output_speed_tok_s", "mean over the requests of (output tokens - 1) / (end - first token)"),
        Term("TPOT", "gen_tps_percentiles", "percentiles of the same"),
        Term("ITL", "-", "none"),
        Term("E2E", "request_latency_percentiles_ms", "end - handing the request over", becomes="e2e", factor=1e-3,
             differs=_INSIDE, in_samples=True),
        Term("E2E", "avg_request_latency_ms", "mean of the same"),
        Term("output throughput", "system_output_throughput_tok_s", "output tokens / (last end - first start)",
             becomes="output_throughput"),
        Term("output throughput", "system_total_throughput_tok_s", "prompt and output tokens / (last end - first start)"),
        Term("output throughput", "output_throughput_per_user_tok_s", "mean over the requests of output tokens / latency"),
        Term("output throughput", "output_throughput_per_gpu_tok_s", "the system's / world size"),
        Term("request throughput", "request_throughput_req_s", "requests / (last end - first start)", becomes="request_throughput"),
        Term("lengths", "avg_input_length, avg_output_length", "tokens given to and returned by the engine"),
        Term("client queue", "-", "none: requests wait in the engine, inside TTFT"),
        Term("percentiles", "-", "sorted[int(n p)], without interpolation: the next higher value"),
        Term("goodput", "-", "none"),
    ),
    (Caveat("requests that failed are among those that are counted: it has no count of errors"),),
)  # fmt: skip
_PLAIN = (
    "system_output_throughput_tok_s", "system_total_throughput_tok_s", "output_throughput_per_user_tok_s",
    "output_throughput_per_gpu_tok_s",
    "request_throughput_req_s", "avg_request_latency_ms",
)  # fmt: skip
_SPREAD = {
    "performance.request_latency_percentiles_ms",
    "streaming_metrics.ttft_percentiles",
    "streaming_metrics.tpot_percentiles",
    "streaming_metrics.gen_tps_percentiles",
}
_ALL = ("p50", "p90", "p95", "p99", "minimum", "maximum", "average")


@importer(
    "trtllm-bench",
    forms=(
        Form("report", ("world_info.tp_size", "request_info.num_requests", "performance.total_latency_ms")),
        Form("requests", ("first_token_timestamp", "end_timestamp", "start_timestamp", "num_input_tokens")),
    ),
    dialect=DIALECT,
)
def trtllm_bench(source: Source) -> Iterator[ImportedCell]:
    """One cell per report, or of all requests of a file of requests."""
    if source.form == "requests":
        yield _of_requests(source)
        return
    for report in source.records():
        yield _of_report(report)


def _of_report(report: ForeignRecord) -> ImportedCell:
    count, wall_s = report.whole("request_info.num_requests"), report.positive("performance.total_latency_ms") / 1e3
    figures, own = dict[str, float](), dict[str, float]()
    stated = {name: {"": report.number(f"performance.{name}")} for name in _PLAIN if report.has(f"performance.{name}")}
    streamed = [name for name in ("avg_ttft_ms", "avg_tpot_ms", "token_output_speed_tok_s") if report.has(f"streaming_metrics.{name}")]
    stated |= {name: {"": report.number(f"streaming_metrics.{name}")} for name in streamed}
    stated |= {path.split(".")[1]: report.numbers_in(path, _ALL) for path in sorted(_SPREAD) if report.has(path)}
    for name, values in stated.items():
        ours, theirs = DIALECT.figures(name, values, {"": ""} | _STATISTICS)
        figures |= ours
        own |= theirs
    own |= {
        f"{name}.{statistic}": value for name, values in stated.items() for statistic, value in values.items() if statistic in _STATISTICS
    }
    input_length = report.number("request_info.avg_input_length") if report.has("request_info.avg_input_length") else None
    if input_length is not None:
        figures["input_throughput"] = input_length * count / wall_s
    version = report.text("engine.version") if report.has("engine.version") else None
    facts = ({"engine_version": version} if version else {}) | _hardware(report)
    return ImportedCell(_deployment(report), _load(report, count), figures, count, wall_s, own, version=version, facts=facts)


def _hardware(report: ForeignRecord) -> dict[str, str]:
    if not report.has("machine.name"):
        return {}
    count = report.whole("world_info.world_size") if report.has("world_info.world_size") else 1
    return {"hardware": f"{count}x{report.text('machine.name')}"}


def _deployment(report: ForeignRecord) -> Deployment:
    model = report.text("engine.model")
    quantized, dtype = report.get("engine.quantization"), report.get("engine.dtype")
    precision = str(quantized).lower() if quantized else from_torch(str(dtype)) if dtype else None
    degrees = {
        name: max(1, report.whole(f"world_info.{theirs}"))
        for name, theirs in (("tp", "tp_size"), ("pp", "pp_size"))
        if report.has(f"world_info.{theirs}")
    }
    ep = report.number("world_info.ep_size") if report.has("world_info.ep_size") else 1  # -1: not set
    options = {name: report.get(f"engine.{name}") for name in ("backend", "kv_cache_dtype") if report.has(f"engine.{name}")}
    options |= {
        name: report.get(f"world_info.{name}")
        for name in ("max_batch_size", "max_num_tokens", "scheduling_policy", "kv_cache_percentage")
        if report.has(f"world_info.{name}")
    }
    spread = Parallelism(ep=max(1, int(ep)), **degrees)
    return Deployment("trtllm", model, precision or UNKNOWN_PRECISION, model, "in-process", spread, options=options)


def _load(report: ForeignRecord, count: int) -> Load:
    """Its `--concurrency` is not in the report; the mean number in flight is."""
    mean = report.number("request_info.avg_num_concurrent_requests") if report.has("request_info.avg_num_concurrent_requests") else count
    lengths = dict[str, int | str]()
    for ours, theirs in (("input_tokens", "avg_input_length"), ("output_tokens", "avg_output_length")):
        length = report.number(f"request_info.{theirs}") if report.has(f"request_info.{theirs}") else 0.5
        lengths[ours] = int(length) if length == int(length) else "data"
    streams = max(1, min(round(mean), count))
    return ClosedLoop(concurrency=streams, requests=count, prompts="unknown", prefix_cache="allowed", **lengths)  # type: ignore[arg-type]


def _of_requests(source: Source) -> ImportedCell:
    """Times are ns of one clock."""
    requests, lengths_in, lengths_out = Requests(), set[int](), set[int]()
    first_start, last_end, done = float("inf"), 0.0, 0
    for row in source.records(skip=("output", "tokens")):
        start, end = row.seconds("start_timestamp", 1e-9), row.number("end_timestamp") * 1e-9
        first = row.number("first_token_timestamp") * 1e-9 if row.has("first_token_timestamp") else -1
        count = row.whole("output_tokens" if row.has("output_tokens") else "num_output_tokens")
        failed = end < start or bool(row.has("error_tokens") and row.number("error_tokens"))
        requests.add(
            sent_s=start, due_s=start, first_s=None if first <= 0 else first - start,
            last_s=None if failed else end - start, input_tokens=row.whole("num_input_tokens"), output_tokens=count,
            error="the engine reported an error" if failed else None,
        )  # fmt: skip
        first_start, last_end, done = min(first_start, start), max(last_end, end), done + (not failed)
        lengths_in.add(row.whole("num_input_tokens"))
        lengths_out.add(count)
    wall_s = max(0.0, last_end - first_start)
    one_in, one_out = (lengths.pop() if len(lengths) == 1 else "data" for lengths in (lengths_in, lengths_out))
    load = ClosedLoop(
        concurrency=max(1, len(requests)),
        requests=len(requests),
        prompts="unknown",
        prefix_cache="allowed",
        input_tokens=one_in,
        output_tokens=one_out,
    )
    name = PurePosixPath(source.file.name).stem
    return ImportedCell(
        Deployment("trtllm", "unknown", UNKNOWN_PRECISION, name, "in-process"), load, {}, done, wall_s, requests=requests,
        caveats=("a file of requests does not say how many were allowed at once; all are taken as handed over together",),
    )  # fmt: skip
