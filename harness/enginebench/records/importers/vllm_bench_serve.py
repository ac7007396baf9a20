"""Results of `vllm bench serve --save-result`, also with --append-result and --save-detailed, and of `vllm bench sweep`.

Keys as in vllm/benchmarks/serve.py. With --save-detailed every request is a sample. The file does not say what the server ran with, so
precision and parallelism are unknown; the engine is the client's `backend`, which is often just 'openai'.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Length, Load, OpenLoop
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import GapLists, Requests
from enginebench.records.importer import Form, ImportedCell, Source, importer

SERVING_TERMS = (
    Term("TTFT", "ttft", "first chunk with a choice - request sent", "ttft", 1e-3),
    Term("TPOT", "tpot", "(E2E - TTFT) / (n - 1) of each request with n > 1 output tokens", "tpot", 1e-3),
    Term("ITL", "itl", "gap between chunks, over all requests; a chunk may hold several tokens", "itl", 1e-3),
    Term("E2E", "e2el", "last chunk - request sent", "e2e", 1e-3),
    Term("output throughput", "output_throughput", "output tokens of successful requests / duration of the load", "output_throughput"),
    Term("output throughput", "total_token_throughput", "input and output tokens / duration"),
    Term("output throughput", "max_output_tokens_per_s", "the most output tokens in one second of the load"),
    Term("request throughput", "request_throughput", "successful requests / duration of the load", "request_throughput"),
    Term("lengths", "input_lens", "prompt tokens as the client's tokenizer counts them", "isl"),
    Term("lengths", "output_lens", "the server's usage, else the client's tokenizer over the text", "osl"),
    Term("client queue", "queue_times", "wait for --max-concurrency, outside of TTFT and E2E", "schedule_delay"),
    Term("percentiles", "percentiles", "linear interpolation (numpy) over the requests that succeeded"),
    Term("goodput", "request_goodput", "requests/s that meet the limits of --goodput"),
)  # fmt: skip
_FIDELITY = "docs/fidelity.md, one core"
DIALECT = Dialect(
    SERVING_TERMS,
    (
        Caveat("its client alone is late: TTFT by 46 ms on average at 256 streams, ITL p99 by 2.7 ms", _FIDELITY, 256),
        Caveat("its client holds 801 of 1,024 streams, and TTFT is 315 ms late on average", _FIDELITY, 1000),
    ),
)  # fmt: skip
_ENGINES = {"openai-chat": "openai", "tensorrt-llm": "trtllm", "llama.cpp": "llamacpp"}
"""Backends that have another name here."""
_STATISTICS = ("median", "p50", "p90", "p99", "mean", "std", "p95", "p99.9")
_RATES = ("output_throughput", "request_throughput", "total_token_throughput", "max_output_tokens_per_s", "request_goodput")
_LATENCIES = ("ttft", "tpot", "itl", "e2el")
_PER_REQUEST = ("start_times", "queue_times", "output_lens", "input_lens")
_DETAILS = ("generated_texts", "errors.*.traceback")


_MARKS = ("model_id", "num_prompts", "request_rate", "max_concurrency", "burstiness")


@importer(
    "vllm bench serve",
    forms=(
        Form("run of a sweep", _MARKS, pattern="run=*.json", named=True),
        Form("sweep", _MARKS, part_of="run of a sweep", pattern="summary.*", named=True),
        Form("warm-up", _MARKS, part_of="run of a sweep", pattern="warmup.json", named=True),
        Form("result", _MARKS),
    ),
    dialect=DIALECT,
)
def vllm_bench_serve(source: Source) -> Iterator[ImportedCell]:
    """One cell per result."""
    for record, gaps in results(source, _DETAILS):
        yield _cell(record, gaps)


def results(source: Source, skip: Sequence[str]) -> Iterator[tuple[ForeignRecord, GapLists]]:
    """The results of a file in the form that vLLM and SGLang have in common, each with the gaps of its requests. skip: as in `records`."""
    gaps = GapLists()

    def add(item: ForeignRecord) -> None:
        gaps.add(item)  # of the result that is being read

    for record in source.records(skip=skip, rows={"itls": add}):
        yield record, gaps
        gaps = GapLists()


def _cell(record: ForeignRecord, gaps: GapLists) -> ImportedCell:
    completed = record.whole("completed" if record.has("completed") else "num_prompts")
    sent = completed + record.whole("failed") if record.has("failed") else record.whole("num_prompts")
    duration_s = record.number("duration") if record.has("duration") else None
    if completed > sent or (duration_s is not None and duration_s <= 0):
        raise record.error(f"the file is damaged: {completed} of {sent} requests completed in {duration_s or 0:g} s", "completed")
    figures, own = stated(record, DIALECT, _LATENCIES, _RATES)
    if duration_s is not None and record.has("total_input_tokens"):
        figures["input_throughput"] = record.number("total_input_tokens") / duration_s
    if record.has("completed"):
        figures["success_rate"] = completed / max(sent, 1)
    requests = _requests(record, gaps) if record.has("ttfts") and len(gaps.sums) else None
    return ImportedCell(
        _deployment(record), _load(record, sent, completed), figures, completed, duration_s, own, requests,
        caveats=() if record.has("completed") else ("the file does not say how many requests succeeded: all of them are assumed to",),
    )  # fmt: skip


def stated(
    record: ForeignRecord, dialect: Dialect, latencies: Sequence[str], rates: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Figures and own figures of a result, in the form that vLLM and SGLang have in common. A latency of 0: nothing was streamed."""
    figures: dict[str, float] = {}
    own: dict[str, float] = {}
    for name in latencies:
        keys = {f"{statistic}_{name}_ms": statistic for statistic in _STATISTICS}
        values = {statistic: value for key, statistic in keys.items() if record.has(key) and (value := record.number(key)) > 0}
        ours, theirs = dialect.figures(name, values)
        figures, own = figures | ours, own | theirs
    for name in rates:
        if record.has(name):
            ours, theirs = dialect.figures(name, {"": record.number(name)})
            figures, own = figures | ours, own | theirs
    return figures, own


def _requests(record: ForeignRecord, gaps: GapLists) -> Requests:
    """The requests of --save-detailed. Versions before 0.12 or so have no start times."""
    ttfts = record.numbers("ttfts")
    made, n = Requests(), len(ttfts)
    lists = {name: record.numbers(name) for name in _PER_REQUEST if record.has(name)}
    errors = record.get("errors") or [""] * n
    if any(len(each) != n for each in (gaps.sums, errors, *lists.values())):
        raise record.error("the file is damaged: its lists of single requests differ in length", "itls")
    for i in range(n):
        sent, wait, counted, entered = (lists[name][i] if name in lists else None for name in _PER_REQUEST)
        failed = bool(errors[i]) or not counted
        own, sum_s = gaps.of(i)
        made.add(
            sent_s=sent, due_s=None if sent is None or wait is None else sent - wait, first_s=None if failed or not ttfts[i] else ttfts[i],
            gaps_s=() if failed else own,
            last_s=None if failed else ttfts[i] + sum_s, local_tokens=None if counted is None else int(counted),
            input_tokens=None if entered is None else int(entered), error=str(errors[i] or "no output") if failed else None,
        )  # fmt: skip
    return made


def _deployment(record: ForeignRecord) -> Deployment:
    model = record.text("model_id")
    backend = record.text("backend" if record.has("backend") else "endpoint_type")
    label = record.text("label") if record.has("label") else backend
    engine = _ENGINES.get(backend, backend)
    return Deployment(engine, model, "unknown", model, runtime="attach", label=None if label == backend else label)


def _load(record: ForeignRecord, sent: int, completed: int) -> Load:
    if record.has("ramp_up_strategy"):
        raise record.error("a ramp-up over requests is not a load that enginebench has", "ramp_up_strategy")
    limit = record.whole("max_concurrency") if record.has("max_concurrency") else 0
    backend = record.data.get("backend", record.data.get("endpoint_type"))
    common: Mapping[str, Any] = {
        "requests": sent,
        "input_tokens": length(record, "input_lens", "total_input_tokens", completed),
        "output_tokens": length(record, "output_lens", "total_output_tokens", completed),
        "prompts": "unknown",
        "prefix_cache": "allowed",  # nothing kept it cold
        "api": "chat" if backend == "openai-chat" else "completions",
    }
    if record.data["request_rate"] in ("inf", math.inf):
        return ClosedLoop(concurrency=max(1, min(limit or sent, sent)), **common)
    burstiness = record.data.get("burstiness", 1.0)
    if burstiness == math.inf:
        arrivals: Mapping[str, Any] = {"arrivals": "constant"}
    else:
        shape = record.number("burstiness") if record.has("burstiness") else 1.0
        arrivals = {"arrivals": "poisson"} if shape == 1 else {"arrivals": "gamma", "burstiness": shape}
    return OpenLoop(rate=record.number("request_rate"), concurrency=limit, **arrivals, **common)


def length(record: ForeignRecord, each: str, total: str, completed: int) -> Length:
    """Tokens per request if all have the same number, otherwise 'data'. Failed requests have no tokens."""
    if record.has(each):
        lengths = {int(tokens) for tokens in record.numbers(each) if tokens}
        return lengths.pop() if len(lengths) == 1 else "data"
    mean, rest = divmod(record.whole(total), max(completed, 1)) if record.has(total) else (0, 0)
    return mean if mean and not rest else "data"
