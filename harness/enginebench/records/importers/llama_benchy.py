"""Results of `llama-benchy --save-result FILE --format json`, or `csv`.

It measures a server as llama-bench measures a process: prompts of one length behind a context of one depth, some requests at once. The JSON
has the values of the single requests,
so percentiles are computed here from them (linear interpolation); the CSV has only means. Facts as in
llama_benchy's results.py and client.py (0.4.0).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from enginebench.domain import ClosedLoop, Deployment, Load
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

_PERCENTILES = (50, 90, 99)
DIALECT = Dialect(
    (
        Term(
            "TTFT", "e2e_ttft", "first event with content or reasoning - start of the request, in ms", becomes="ttft", factor=1e-3,
        ),
        Term("TTFT", "ttfr", "first event of any content, an empty role event too, - start of the request, in ms"),
        Term("TTFT", "est_ppt", "ttfr less the latency of the network that was measured before, in ms"),
        Term(
            "TPOT", "tg_req_throughput", "per request (tokens after the first event) / (last - first token), in tokens/s; TPOT is 1 / it. "
            "Tokens of one event are spread evenly up to the event before", becomes="tpot",
        ),
        Term("ITL", "-", "none in its files"),
        Term("E2E", "-", "none in its files"),
        Term("output throughput", "tg_throughput",
             "of each batch, tokens after the first / (last token - first token of any): without prefill"),
        Term("output throughput", "peak_throughput", "most tokens within any second of a batch"),
        Term("output throughput", "peak_req_throughput", "the same for one request"),
        Term("output throughput", "pp_throughput",
             "of each batch, prompt tokens / (last first token - start); of one stream, prompt tokens / est_ppt"),
        Term("output throughput", "pp_req_throughput", "per request, prompt tokens / est_ppt"),
        Term("request throughput", "-", "none"),
        Term("lengths", "prompt_size, response_size", "as asked; tokens of the prompt as the server counted them where within 20 % of it"),
        Term("client queue", "-", "not inside: a batch is sent at once, the next when the slowest has ended"),
        Term("percentiles", "values", "none: mean and population standard deviation; computed here from the values"),
        Term("goodput", "-", "none"),
    ),
    (Caveat("it sends as many requests as it has streams and waits for the slowest of them, so the load falls within every batch"),),
)  # fmt: skip
_LISTS = tuple(term.theirs for term in DIALECT.terms if term.theirs in (
    "e2e_ttft", "ttfr", "est_ppt", "tg_throughput", "tg_req_throughput", "pp_throughput", "pp_req_throughput", "peak_throughput",
    "peak_req_throughput",
))  # fmt: skip
_TEST = re.compile(r"(?P<context>ctx_)?(?P<phase>pp|tg)(?P<size>\d+)?(?: @ d(?P<depth>\d+))?(?: \(c(?P<streams>\d+)\))?$")
_CSV_NAMES = {"t_s": "throughput", "t_s_req": "req_throughput"}


@importer(
    "llama-benchy",
    forms=(
        Form("json", ("latency_mode", "benchmarks.*.prompt_size", "benchmarks.*.response_size")),
        Form("csv", ("test_name", "t_s_mean", "e2e_ttft_mean")),
    ),
    dialect=DIALECT,
)
def llama_benchy(source: Source) -> Iterator[ImportedCell]:
    """One cell for each length, depth and number of requests at once."""
    if source.form == "csv":
        yield from _of_csv(list(source.records()))
        return
    for report in source.records(skip=("benchmarks.*.throughput_over_time", "benchmarks.*.requests_throughput_over_time")):
        for part in report.parts("benchmarks"):
            yield _cell(report, part)


def _cell(report: ForeignRecord, part: ForeignRecord) -> ImportedCell:
    values = {name: _values(part, name) for name in _LISTS if isinstance(part.get(name), Mapping)}
    own = {f"{name}.{key}": part.number(f"{name}.{key}") for name in values for key in ("mean", "std") if part.has(f"{name}.{key}")}
    streams = max(1, part.whole("concurrency"))
    ttft, speeds = values.get("e2e_ttft", []), values.get("tg_req_throughput", [])
    figures = _percentiles("ttft", [value * 1e-3 for value in ttft]) | _percentiles("tpot", [1 / value for value in speeds if value > 0])
    completed = max(len(ttft), 1 if own else 0)
    caching = report.get("prefix_caching_enabled") is True
    depth, prompt = part.whole("context_size"), part.whole("prompt_size")
    first = part.get("is_context_prefill_phase") is True
    load = _load(streams, depth, 0 if first else prompt, part.whole("response_size"), completed, cached=caching and not first)
    caveats = () if ttft or not own else ("the file does not list single requests, so it has no percentiles",)
    version = report.text("version") if report.has("version") else None
    return ImportedCell(_deployment(report), load, figures, completed, own=own, version=version, caveats=caveats)


def _values(part: ForeignRecord, name: str) -> Sequence[float]:
    key = f"{name}.values"
    values = list(part.numbers(key)) if part.has(key) else []
    if not np.isfinite(values).all():
        raise part.error("must be a list of finite numbers", key)
    if values and part.has(f"{name}.mean") and not np.isclose(np.mean(values), part.number(f"{name}.mean"), rtol=1e-6):
        raise part.error(f"the file is damaged: the mean of its values is {np.mean(values):g}, not {part.number(f'{name}.mean'):g}", key)
    return values


def _percentiles(metric: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{metric}_p{q}": float(np.percentile(values, q)) for q in _PERCENTILES} if len(values) else {}


def _deployment(row: ForeignRecord) -> Deployment:
    model = row.text("model")
    return Deployment("openai", model, UNKNOWN_PRECISION, model, runtime="attach")


def _load(streams: int, depth: int, prompt: int, generated: int | str, requests: int, *, cached: bool = False) -> Load:
    shared: dict[str, Any] = {"prefix_groups": 1, "prefix_tokens": depth} if cached and depth and prompt else {}
    return ClosedLoop(
        concurrency=streams, input_tokens=depth + prompt, output_tokens=generated, requests=requests, prompts="unknown",
        prefix_cache="allowed", api="chat", **shared,
    )  # fmt: skip


def _of_csv(rows: Sequence[ForeignRecord]) -> Iterator[ImportedCell]:
    """A pp row and the tg row behind it are one cell. It has means only."""
    tests: list[list[tuple[re.Match[str], ForeignRecord]]] = []
    for row in rows:
        found = _TEST.match(row.text("test_name"))
        if found is None:
            raise row.error(f"must be a test such as 'pp512 @ d1024 (c4)', not '{row.text('test_name')[:60]}'", "test_name")
        if found["phase"] == "pp" or not tests:
            tests.append([])
        tests[-1].append((found, row))
    for pair in tests:
        own = {name: value for found, row in pair for name, value in _means(row, found["phase"]).items()}
        sizes = {found["phase"]: int(found["size"] or 0) for found, _ in pair}
        found, row = pair[0]
        load = _load(int(found["streams"] or 1), int(found["depth"] or 0), sizes.get("pp", 0), sizes.get("tg") or "data", 0)
        yield ImportedCell(_deployment(row), load, {}, 1, own=own, caveats=("its CSV has means only, and no percentiles",))


def _means(row: ForeignRecord, phase: str) -> dict[str, float]:
    means = dict[str, float]()
    for theirs in ("t_s", "t_s_req", "peak_ts", "peak_ts_req", "ttfr", "est_ppt", "e2e_ttft"):
        if row.has(f"{theirs}_mean"):
            name = theirs.replace("peak_ts", "peak_throughput").replace("peak_throughput_req", "peak_req_throughput")
            name = f"{phase}_{_CSV_NAMES[theirs]}" if theirs in _CSV_NAMES else name
            means |= {f"{name}.{key}": row.number(f"{theirs}_{key}") for key in ("mean", "std") if row.has(f"{theirs}_{key}")}
    return means
