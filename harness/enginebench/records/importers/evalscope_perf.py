"""Runs of `evalscope perf`: `benchmark_summary.json`, `benchmark_percentile.json`, `benchmark_args.json` and the single requests in
`benchmark_data.db`, which lie in one folder.

With the database the requests become samples; it alone is enough. Keys have changed their names over the versions, and both spellings are
read. The column with pickled replies is never opened. Facts as in evalscope/perf (1.x; default_api.py, benchmark_util.py, db_util.py).
"""

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import Requests
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

_FIDELITY = "docs/fidelity.md, one core"
_CHUNK = "the first event counts, also an empty role event of a chat"
DIALECT = Dialect(
    (
        Term("TTFT", "TTFT", "first event with `choices` - start of the request", becomes="ttft", differs=_CHUNK, in_samples=True),
        Term("TPOT", "TPOT", "(latency - TTFT) / (output tokens - 1); 0 below 2 tokens", becomes="tpot",
             differs="it ends with the last event of the stream, the usage event"),
        Term("ITL", "TPOT, old", "of tables with a column `Percentile`: gaps between events, though it is called TPOT", becomes="itl"),
        Term("ITL", "ITL", "gaps between events with `choices`, of all requests", becomes="itl", differs="a gap to an empty event counts",
             in_samples=True),
        Term("E2E", "Latency", "last event of the stream, the usage event too, - start of the request", becomes="e2e",
             differs="it ends with the last event of the stream, the usage event"),
        Term("output throughput", "Output Throughput", "output tokens / (last end - first start)", becomes="output_throughput"),
        Term("output throughput", "Total Throughput", "prompt and output tokens / (last end - first start)"),
        Term("output throughput", "Output (tok/s)", "of a request output tokens / latency"),
        Term("request throughput", "Req Throughput", "successful requests / (last end - first start)", becomes="request_throughput"),
        Term("lengths", "Input tokens, Output tokens", "as the server counts them; without a count, by its own tokenizer"),
        Term("client queue", "-", "not inside: the clock starts when a worker posts the request"),
        Term("percentiles", "-",
             "sorted[int(n p / 100)], without interpolation, rounded to 0.01 ms (0.01 s for Latency): the next higher value"),
        Term("goodput", "-", "none"),
    ),
    (
        Caveat("its client alone is late: TTFT by 62 ms on average at 256 streams, ITL p99 by 19 ms", _FIDELITY, 256),
        Caveat("its client holds 586 of 1,024 streams, and TTFT is 446 ms late on average", _FIDELITY, 1000),
        Caveat("its percentiles are rounded: to 4 decimals, in older versions to 2, which is 10 ms where it states seconds"),
    ),
)  # fmt: skip
_NAMES: Mapping[str, tuple[str, ...]] = {
    "duration": ("Test Duration (s)", "Time taken for tests (s)"), "concurrency": ("Concurrency", "Number of concurrency"),
    "rate": ("Request Rate (req/s)", "Request rate (req/s)"), "total": ("Total Requests", "Total requests"),
    "succeeded": ("Success Requests", "Succeed requests"), "requests/s": ("Req Throughput (req/s)", "Request throughput (req/s)"),
    "output/s": ("Output Throughput (tok/s)", "Output token throughput (tok/s)"),
    "total/s": ("Total Throughput (tok/s)", "Total token throughput (tok/s)"), "input": ("Avg Input Tokens",
    "Average input tokens per request"),
    "output": ("Avg Output Tokens", "Average output tokens per request"), "latency": ("Avg Latency (s)", "Average latency (s)"),
    "ttft": ("Avg TTFT (ms)", "Average time to first token (s)"), "tpot": ("Avg TPOT (ms)", "Average time per output token (s)"),
    "itl": ("Avg ITL (ms)", "Average inter-token latency (s)"),
}  # fmt: skip
"""What the summary states -> its names, the newest first."""
_SPREAD = {"TTFT": ("ms", "s"), "ITL": ("ms", "s"), "TPOT": ("ms", "s"), "Latency": ("s",)}


@importer(
    "evalscope perf",
    forms=(
        Form("summary", ("Success Requests", "Output Throughput (tok/s)"), pattern="benchmark_summary*.json"),
        Form("old summary", ("Succeed requests", "Average latency (s)"), pattern="benchmark_summary*.json"),
        Form("percentile", ("Percentiles", "Latency (s)"), part_of="summary", pattern="benchmark_percentile*.json"),
        Form("percentile", ("Percentile", "Latency (s)"), part_of="summary", pattern="benchmark_percentile*.json"),
        Form("arguments", ("parallel", "number", "api", "dataset", "model"), part_of="summary", pattern="benchmark_args*.json", aside=True),
        Form(
            "requests",
            ("start_time", "first_chunk_latency", "prompt_tokens", "completion_tokens"),
            part_of="summary",
            pattern="benchmark_data*.db",
        ),
    ),
    dialect=DIALECT,
)
def evalscope_perf(source: Source) -> Iterator[ImportedCell]:
    """One cell per folder."""
    if source.form == "requests":
        yield _cell(None, source, None)
    elif source.form == "arguments":
        raise source.error("only states what was asked; import benchmark_summary.json beside it")
    elif source.form == "percentile":
        summary = source.other("summary") or source.other("old summary")
        if summary is None:
            raise source.error("does not say of how many requests its percentiles are; put benchmark_summary.json beside it")
        yield from evalscope_perf.read(replace(summary, beside={**summary.beside, "percentile": (source.file,)}))
    else:
        for report in source.records():
            yield _cell(report, source.other("requests"), source)


def _cell(summary: ForeignRecord | None, database: Source | None, source: Source | None) -> ImportedCell:
    arguments = next(iter(other.records()), None) if source is not None and (other := source.other("arguments")) is not None else None
    stated = {} if summary is None else {name: summary.number(key) for name, key in _found(summary)}
    single = _requests(database) if database is not None else None
    figures, own = _figures(stated, source.other("percentile") if source is not None else None)
    if summary is not None:
        completed, total = int(stated.get("succeeded", 0)), int(stated.get("total", stated.get("succeeded", 0)))
        if completed > total:
            raise summary.error(f"the file is damaged: {completed} of {total} requests succeeded", "Success Requests")
        own |= {
            _name(summary, name): value
            for name, value in stated.items()
            if name in ("ttft", "tpot", "itl", "latency", "total/s", "input", "output")
        }
        figures |= {"success_rate": completed / total} if total else {}
    else:
        total = len(single[0]) if single is not None else 0
        completed = total - (len(single[0].errors) if single is not None else 0)
    model = arguments.text("model") if arguments is not None and arguments.has("model") else single[1] if single is not None else "unknown"
    caveats = () if model != "unknown" else ("neither benchmark_args.json nor benchmark_data.db was beside it, so the model is unknown",)
    return ImportedCell(
        Deployment("openai", model, UNKNOWN_PRECISION, model, runtime="attach"), _load(stated, arguments, total), figures, completed,
        stated.get("duration"), own, single[0] if single is not None else None, None, {}, caveats,
    )  # fmt: skip


def _found(summary: ForeignRecord) -> Iterator[tuple[str, str]]:
    for name in _NAMES:
        if summary.has(key := _name(summary, name)):
            yield name, key


def _name(summary: ForeignRecord, name: str) -> str:
    return next((key for key in _NAMES[name] if summary.has(key)), _NAMES[name][0])


def _figures(stated: Mapping[str, float], percentiles: Source | None) -> tuple[dict[str, float], dict[str, float]]:
    rates = {"output/s": "output_throughput", "requests/s": "request_throughput"}
    figures = {ours: stated[name] for name, ours in rates.items() if stated.get(name, -1) >= 0}  # -1: not applicable
    if stated.get("duration") and stated.get("input", -1) >= 0:
        figures["input_throughput"] = stated["input"] * stated.get("succeeded", 0) / stated["duration"]
    own = dict[str, float]()
    for row in _percentile_rows(percentiles) if percentiles is not None else ():
        at = row.text("Percentiles").rstrip("%")
        for name, units in _SPREAD.items():
            unit = next((unit for unit in units if row.has(f"{name} ({unit})")), None)
            if unit is None:
                continue
            own[f"{name} ({unit}).{'p' if at.isdigit() else ''}{at}"] = value = row.number(f"{name} ({unit})")
            if at in ("50", "90", "99") and value > 0:
                term = DIALECT.term("TPOT, old" if name == "TPOT" and row.has("Percentile") else name)
                figures[f"{term.becomes}_p{at}"] = value * (1e-3 if unit == "ms" else 1.0)
    return figures, own


def _percentile_rows(source: Source) -> Iterator[ForeignRecord]:
    """A row for each percentile; versions before 0.17 have one object with a list for each column."""
    for table in source.records():
        names = table.get("Percentiles") or table.get("Percentile")
        if not isinstance(names, list):
            yield table
            continue
        for i, name in enumerate(names):
            columns = {key: values for key, values in table.data.items() if isinstance(values, list | array) and len(values) == len(names)}
            yield replace(table, data={**{key: values[i] for key, values in columns.items()}, "Percentiles": name})


def _load(stated: Mapping[str, float], arguments: ForeignRecord | None, total: int) -> Load:
    common: dict[str, Any] = {"requests": total, "prompts": "unknown", "prefix_cache": "allowed", "api": "chat"}
    for ours, theirs, wanted in (("input_tokens", "input", "prompt_length"), ("output_tokens", "output", "tokens")):
        mean = stated.get(theirs, -1.0)
        fixed = mean > 0 and mean == int(mean) and _same(arguments, f"min_{wanted}", f"max_{wanted}")
        common[ours] = int(mean) if fixed else "data"
    if (
        arguments is not None
        and str(arguments.get("url") or "").rstrip("/").endswith("/completions")
        and "/chat/" not in str(arguments.get("url"))
    ):
        common["api"] = "completions"
    rate, streams = stated.get("rate", -1.0), stated.get("concurrency", 0.0)
    if rate > 0:
        return OpenLoop(rate=rate, concurrency=max(0, int(streams)), arrivals="poisson", **common)
    return ClosedLoop(concurrency=max(1, int(streams) if streams > 0 else total), **common)


def _same(arguments: ForeignRecord | None, least: str, most: str) -> bool:
    return arguments is not None and arguments.has(least) and arguments.get(least) == arguments.get(most)


def _requests(database: Source) -> tuple[Requests, str]:
    """(the requests, the model that they name)."""
    requests, model = Requests(), "unknown"
    for row in database.records(skip=("response_messages",)):
        if model == "unknown":
            model = _model(row.get("request"))
        start = row.seconds("start_time")
        if not row.has("success") or not row.number("success"):
            requests.add(sent_s=start, due_s=None, error="the request failed")
            continue
        streamed = not row.has("is_stream") or bool(row.number("is_stream"))
        latency = row.seconds("latency")
        requests.add(
            sent_s=start, first_s=row.seconds("first_chunk_latency") if streamed and row.has("first_chunk_latency") else None,
            last_s=latency, gaps_s=_gaps(row), input_tokens=row.whole("prompt_tokens"), output_tokens=row.whole("completion_tokens"),
        )  # fmt: skip
    return requests, model


def _gaps(row: ForeignRecord) -> list[float] | None:
    """Its list of gaps is JSON in a column; older versions list the times of chunks."""
    name = "inter_token_latencies" if row.has("inter_token_latencies") else "chunk_times"
    if not row.has(name):
        return None
    try:
        gaps = json.loads(row.text(name))
        gaps = [after - before for before, after in pairwise(gaps)] if name == "chunk_times" else gaps
    except (ValueError, TypeError, RecursionError):
        raise row.error("must be a list of numbers", name) from None
    if not isinstance(gaps, list) or not all(type(gap) in (int, float) and 0 <= gap < 1e9 for gap in gaps):
        raise row.error("must be a list of numbers", name)
    return gaps


def _model(request: object) -> str:
    try:
        found = json.loads(request).get("model") if isinstance(request, str) else None
    except (ValueError, AttributeError, RecursionError):
        found = None
    return found if isinstance(found, str) and found else "unknown"
