"""Results of SGLang's `bench_serving` (Python and Rust client): JSON lines, with single requests by --output-details.

Keys as in sglang/benchmark/serving.py. The file has no start times, so rates are those that it states. `server_info`, of an SGLang server,
holds its version and settings.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop, Parallelism
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import GapLists, Requests
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer
from enginebench.records.importers.vllm_bench_serve import length, results, stated

_END = "the chunk after the last token is inside"
DIALECT = Dialect(
    (
        Term("TTFT", "ttft", "first chunk with text - request sent", "ttft", 1e-3),
        Term("TPOT", "tpot", "(E2E - TTFT) / (n - 1) of each request with n > 1 output tokens", "tpot", 1e-3, differs=_END),
        Term("ITL", "itl", "gap between chunks, over all requests; a chunk may hold several tokens", "itl", 1e-3),
        Term("E2E", "e2e_latency", "last chunk, with usage and without text - request sent", "e2e", 1e-3, differs=_END),
        Term("output throughput", "output_throughput", "output tokens of successful requests / duration", "output_throughput"),
        Term("output throughput", "total_throughput", "input and output tokens / duration"),
        Term("output throughput", "max_output_tokens_per_s", "the most output tokens in one second of the load"),
        Term("request throughput", "request_throughput", "successful requests / duration of the load", "request_throughput"),
        Term("lengths", "input_lens", "prompt tokens as the client's tokenizer counts them", "isl"),
        Term("lengths", "output_lens", "the server's count, else the asked number", "osl"),
        Term("client queue", "-", "a wait for --max-concurrency is outside of TTFT and E2E, and is not reported"),
        Term("percentiles", "percentiles", "linear interpolation (numpy) over the successful requests"),
        Term("goodput", "goodput", "requests/s that meet the limits of --goodput"),
    ),
    (
        Caveat("its TTFT (Rust client 0.5.23) is 4.4 ms late on average at 256 streams", "docs/fidelity.md, one core", 256),
    ),
)  # fmt: skip
_LATENCIES = ("ttft", "tpot", "itl", "e2e_latency")
_RATES = ("output_throughput", "request_throughput", "total_throughput", "max_output_tokens_per_s")
_SKIP = ("generated_texts", "cached_tokens_details", "server_info.internal_states")


@importer(
    "sglang bench_serving",
    forms=(Form("result", ("backend", "dataset_name", "request_rate", "sharegpt_output_len", "mean_e2e_latency_ms")),),
    dialect=DIALECT,
)
def sglang_bench_serving(source: Source) -> Iterator[ImportedCell]:
    """One cell per line."""
    for record, gaps in results(source, _SKIP):
        yield _cell(record, gaps)


def _cell(record: ForeignRecord, gaps: GapLists) -> ImportedCell:
    completed, duration_s = record.whole("completed"), record.positive("duration")
    requests = _requests(record, gaps) if record.has("ttfts") and len(gaps.sums) else None
    sent = completed if requests is None else len(requests)
    if completed > sent:
        raise record.error(f"the file is damaged: {completed} of {sent} requests completed", "completed")
    figures, own = stated(record, DIALECT, _LATENCIES, _RATES)
    figures |= {"input_throughput": record.number("total_input_tokens") / duration_s}
    if requests is not None:
        figures["success_rate"] = completed / max(sent, 1)
    deployment, facts = _deployment(record)
    return ImportedCell(deployment, _load(record, sent, completed), figures, completed, duration_s, own, requests, facts=facts)


def _requests(record: ForeignRecord, gaps: GapLists) -> Requests:
    """The requests of --output-details."""
    ttfts = record.numbers("ttfts")
    n, made = len(ttfts), Requests()
    errors = record.get("errors") or [""] * n
    lists = {name: record.numbers(name) for name in ("input_lens", "output_lens", "cached_tokens") if record.has(name)}
    if any(len(each) != n for each in (gaps.sums, errors, *lists.values())):
        raise record.error("the file is damaged: its lists of single requests differ in length", "itls")
    asked = record.whole("random_output_len") if _fixed(record) and record.has("random_output_len") else None
    for i in range(n):
        entered, counted, cached = (
            int(value) if name in lists and not math.isnan(value := lists[name][i]) else None
            for name in ("input_lens", "output_lens", "cached_tokens")
        )
        failed = bool(errors[i]) or not counted
        own, sum_s = gaps.of(i)
        made.add(
            first_s=None if failed or not ttfts[i] else ttfts[i], gaps_s=() if failed else own,
            last_s=None if failed else ttfts[i] + sum_s, input_tokens=entered, output_tokens=counted,
            cached_tokens=cached, asked_output=asked, error=str(errors[i] or "no output") if failed else None,
        )  # fmt: skip
    return made


def _fixed(record: ForeignRecord) -> bool:
    """Whether all random lengths are the same."""
    return record.get("dataset_name") in ("random", "random-ids") and record.get("random_range_ratio") == 1


def _deployment(record: ForeignRecord) -> tuple[Deployment, dict[str, str]]:
    info = record.part("server_info") if isinstance(record.get("server_info"), Mapping) else None
    backend = record.text("backend")
    engine = "sglang" if backend.startswith("sglang") else backend.removesuffix("-chat")
    model = next((str(info.get(key)) for key in ("served_model_name", "model_path") if info is not None and info.get(key)), "unknown")
    label = str(record.get("tag")) if record.get("tag") else None
    if info is None:
        return Deployment(engine, model, UNKNOWN_PRECISION, model, runtime="attach", label=label), {}
    precision = str(info.get("quantization") or UNKNOWN_PRECISION)
    degrees = {
        ours: int(value) for ours, theirs in (("tp", "tp_size"), ("pp", "pp_size"), ("ep", "ep_size")) if (value := info.get(theirs))
    }
    facts = {"engine_version": str(info.get("version"))} if info.get("version") else {}
    return Deployment(engine, model, precision, model, runtime="attach", parallelism=Parallelism(**degrees), label=label), facts


def _load(record: ForeignRecord, sent: int, completed: int) -> Load:
    limit = record.whole("max_concurrency") if record.has("max_concurrency") else 0
    fixed = {"total_input_tokens": "random_input_len", "total_output_tokens": "random_output_len"} if _fixed(record) else {}
    lengths = [
        record.whole(fixed[total]) if total in fixed and record.has(fixed[total]) else length(record, each, total, completed)
        for each, total in (("input_lens", "total_input_tokens"), ("output_lens", "total_output_tokens"))
    ]
    common: Mapping[str, Any] = {
        "requests": sent, "input_tokens": lengths[0], "output_tokens": lengths[1], "prompts": "unknown", "prefix_cache": "allowed",
        "api": "chat" if record.text("backend").endswith("-chat") else "completions",
    }  # fmt: skip
    rate = record.get("request_rate")
    if rate == "trace":
        raise record.error("a load that follows a trace is not one that can be imported", "request_rate")
    if rate in ("inf", math.inf):
        return ClosedLoop(concurrency=max(1, min(limit or sent, sent)), **common)
    return OpenLoop(rate=record.positive("request_rate"), concurrency=limit, **common)
