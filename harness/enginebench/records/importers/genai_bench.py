"""Runs of genai-bench: one JSON for each traffic scenario and concurrency, with the metrics of single requests, beside
`experiment_metadata.json`.

A request's record has no start time, so all that needs a time line (throughput in a window, arrivals) is as the file states it. Facts as in
genai_bench/metrics and user/openai_user.py (0.0.5).
"""

import re
from array import array
from collections.abc import Iterator
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import Requests
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

_NO_REASONING = "reasoning does not count as a first token, and the set-up of a connection for each request is inside"
DIALECT = Dialect(
    (
        Term("TTFT", "ttft", "first chunk with content - start of the request; chunks of reasoning do not count", becomes="ttft",
             differs=_NO_REASONING, in_samples=True),
        Term("TPOT", "tpot", "(E2E - TTFT) / (output tokens - 1); left out below 1 ms of output", becomes="tpot",
             differs="E2E ends with the stream, behind the usage event, and TTFT leaves out reasoning", in_samples=True),
        Term("TPOT", "output_inference_speed", "1 / TPOT"),
        Term("TPOT", "output_throughput", "of a request (output tokens - 1) / (E2E - TTFT), in tokens/s"),
        Term("ITL", "-", "none"),
        Term("E2E", "e2e_latency", "end of the stream - start of the request", becomes="e2e",
             differs="it ends with the stream, behind the usage event, and the set-up of a connection for each request is inside",
             in_samples=True),
        Term("E2E", "output_latency", "E2E - TTFT"),
        Term("output throughput", "mean_output_throughput_tokens_per_s", "output tokens of all requests / duration of the run",
             becomes="output_throughput"),
        Term("output throughput", "mean_input_throughput_tokens_per_s", "prompt tokens of all requests / duration of the run",
             becomes="input_throughput"),
        Term("output throughput", "mean_total_tokens_throughput_tokens_per_s", "both"),
        Term("output throughput", "input_throughput", "of a request prompt tokens / TTFT"),
        Term("request throughput", "requests_per_second", "successful requests / duration of the run", becomes="request_throughput"),
        Term("lengths", "num_input_tokens, num_output_tokens", "as the server counted them, else by its own tokenizer"),
        Term("client queue", "-", "not inside: a user sends when its last request has ended"),
        Term("percentiles", "-", "numpy, linear interpolation, without the requests of warm-up and cool-down"),
        Term("goodput", "-", "none"),
    ),
    (
        Caveat("every request opens a connection, and its set-up is inside TTFT and E2E"),
        Caveat("its client alone is late: at 4 streams its TTFT was 2.7 times the true one", "docs/dialects.md, two busy cores", 4),
    ),
)  # fmt: skip
_SCENARIO = re.compile(r"[DE]\((\d+)(?:,(\d+))?\)$")
_RATES = tuple(term.theirs for term in DIALECT.terms if term.theirs.startswith(("mean_", "requests_per")))
_STATISTICS = {"p50": "p50", "p90": "p90", "p99": "p99"}
_OWN = ("mean", "stddev", "p50", "p90", "p95", "p99", "max")


@importer(
    "genai-bench",
    forms=(
        Form("run", ("aggregated_metrics.num_concurrency", "aggregated_metrics.stats.ttft"), pattern="*.json"),
        Form(
            "experiment",
            ("benchmark_version", "api_backend", "traffic_scenario", "num_concurrency"),
            part_of="run",
            pattern="experiment_metadata*.json",
            aside=True,
        ),
    ),
    dialect=DIALECT,
)
def genai_bench(source: Source) -> Iterator[ImportedCell]:
    """One cell per file."""
    if source.form == "experiment":
        raise source.error("only describes an experiment; import the folder, or the file of a run beside it")
    rows = {name: array("d") for name in ("ttft", "e2e_latency", "num_input_tokens", "num_output_tokens", "error_code")}

    def keep(row: ForeignRecord) -> None:
        for name, column in rows.items():
            column.append((row.whole(name) if name.startswith("num_") else row.seconds(name)) if row.has(name) else float("nan"))

    about = next(iter(other.records()), None) if (other := source.other("experiment")) is not None else None
    for report in source.records(rows={"individual_request_metrics": keep}):
        yield _cell(report, rows, about)
        for column in rows.values():
            del column[:]


def _cell(report: ForeignRecord, rows: dict[str, Any], about: ForeignRecord | None) -> ImportedCell:
    metrics, unit = report.part("aggregated_metrics"), _unit(report)
    completed, wall_s = metrics.whole("num_completed_requests"), metrics.number("run_duration")
    figures = {DIALECT.term(name).becomes: metrics.number(name) for name in _RATES if metrics.has(name) and DIALECT.term(name).becomes}
    own = {name: metrics.number(name) for name in _RATES if metrics.has(name) and not DIALECT.term(name).becomes}
    for name in ("ttft", "tpot", "e2e_latency", "output_latency", "output_inference_speed", "output_throughput", "input_throughput"):
        if not metrics.has(f"stats.{name}"):
            continue
        scale = unit if name in ("ttft", "tpot", "e2e_latency", "output_latency") else 1.0
        stated = {key: value * scale for key, value in metrics.numbers_in(f"stats.{name}", _OWN).items()}
        ours, _ = DIALECT.figures(name, stated, _STATISTICS)
        figures |= {figure: value for figure, value in ours.items() if value > 0}
        own |= {f"{name}.{key}": value for key, value in stated.items()}
    failed = metrics.whole("num_error_requests") if metrics.has("num_error_requests") else 0
    if completed + failed:
        figures["success_rate"] = completed / (completed + failed)
    version = str(about.get("benchmark_version")) if about is not None and about.has("benchmark_version") else None
    caveats = () if about is not None else ("its experiment_metadata.json was not beside it, so model and engine are unknown",)
    return ImportedCell(
        _deployment(about), _load(metrics, completed + failed, about), figures, completed, wall_s, own, _requests(rows, unit), version,
        _facts(about),
        caveats,
    )  # fmt: skip


def _unit(report: ForeignRecord) -> float:
    """Seconds in the unit of its latencies; older files do not state it and are in seconds."""
    unit = report.get("_time_unit")
    if unit not in (None, "s", "ms"):
        raise report.error(f"must be s or ms, not {str(unit)[:20]!r}", "_time_unit")
    return 1e-3 if unit == "ms" else 1.0


def _requests(rows: dict[str, Any], unit: float) -> Requests | None:
    if not len(rows["ttft"]):
        return None
    requests = Requests()
    for ttft, e2e, tokens_in, tokens_out, error in zip(*rows.values(), strict=True):
        failed = error == error and error != 0  # not NaN
        requests.add(
            first_s=None if failed or ttft != ttft else ttft * unit, last_s=None if failed or e2e != e2e else e2e * unit,
            input_tokens=None if tokens_in != tokens_in else int(tokens_in),
            output_tokens=None if tokens_out != tokens_out else int(tokens_out),
            error=f"HTTP {error:.0f}" if failed else None,
        )  # fmt: skip
    return requests


def _deployment(about: ForeignRecord | None) -> Deployment:
    if about is None:
        return Deployment("openai", "unknown", UNKNOWN_PRECISION, "unknown", runtime="attach")
    engine = next((str(about.get(name)).lower() for name in ("server_engine", "api_backend") if about.has(name)), "openai")
    engine = {"tensorrt-llm": "trtllm", "sglang-model-gateway": "sglang", "cohere-tensorrtllm": "trtllm"}.get(engine, engine)
    model = about.text("model") if about.has("model") else about.text("api_model_name")
    return Deployment(engine, model, UNKNOWN_PRECISION, model, runtime="attach")


def _facts(about: ForeignRecord | None) -> dict[str, str]:
    if about is None:
        return {}
    facts = {"engine_version": str(about.get("server_version"))} if about.has("server_version") else {}
    if about.has("server_gpu_type"):
        facts["hardware"] = f"{about.get('server_gpu_count') or 1}x{str(about.get('server_gpu_type')).lower()}"
    return facts


def _load(metrics: ForeignRecord, sent: int, about: ForeignRecord | None) -> Load:
    """D(100,200) is a fixed length; N(480,240)/(300,150) a normal one, which is drawn as the tool draws it."""
    fixed = _SCENARIO.match(str(metrics.get("scenario") or ""))
    lengths = (
        {"input_tokens": int(fixed[1]), "output_tokens": int(fixed[2]) if fixed[2] else "data"}
        if fixed
        else {"input_tokens": "data", "output_tokens": "data"}
    )
    chat = about is None or "completions" not in str(about.get("cmd") or "")
    return ClosedLoop(
        concurrency=max(1, metrics.whole("num_concurrency")), requests=sent, prompts="unknown", prefix_cache="allowed",
        api="chat" if chat else "completions", **lengths,
    )  # fmt: skip
