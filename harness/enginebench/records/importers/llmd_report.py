"""Benchmark Reports of llm-d, version 0.1 and 0.2 (also 0.2.1), as YAML or JSON.

A report is a translation of another tool's results, and its names mean what that tool meant: `inter_token_latency` is gaps between chunks
in reports of vLLM, inference-perf and InferenceMAX, and (E2E - TTFT) / (n - 1) in those of AIPerf and GuideLLM. So names are mapped by the
tool of the load. Facts as in llmdbenchmark/analysis/benchmark_report (schema_v0_1.py, schema_v0_2.py, native_to_br0_2.py; 2026-08).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop, Parallelism
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

_AS_VLLM = frozenset({"vllm-benchmark", "inference-perf", "inferencemax", "enginebench"})
"""Tools whose inter-token latency is gaps between chunks, and whose TPOT is over n - 1."""
_AS_AIPERF = frozenset({"aiperf", "guidellm"})
"""Tools whose inter-token latency is (E2E - TTFT) / (n - 1)."""
DIALECT = Dialect(
    (
        Term("TTFT", "time_to_first_token", "as the tool of the load has it: first chunk with output - start of the request",
             becomes="ttft"),
        Term("TPOT", "time_per_output_token", "of vLLM, inference-perf and InferenceMAX: (E2E - TTFT) / (n - 1)", becomes="tpot"),
        Term("TPOT", "inter_token_latency (aiperf, guidellm)", "of AIPerf and GuideLLM: (E2E - TTFT) / (n - 1), whatever its name",
             becomes="tpot"),
        Term("TPOT", "time_per_output_token (guidellm)", "of GuideLLM: E2E / n"),
        Term("TPOT", "normalized_time_per_output_token", "E2E / n"),
        Term("ITL", "inter_token_latency", "of vLLM, inference-perf and InferenceMAX: gaps between chunks of all requests", becomes="itl"),
        Term("E2E", "request_latency", "as the tool of the load has it: end of the reply - start of the request", becomes="e2e"),
        Term("output throughput", "output_token_rate",
             "mean: output tokens / duration; of GuideLLM the mean of a distribution over time, kept as its own",
             becomes="output_throughput"),
        Term("output throughput", "input_token_rate", "mean: prompt tokens / duration", becomes="input_throughput"),
        Term("output throughput", "total_token_rate", "prompt and output tokens together"),
        Term("request throughput", "request_rate", "mean: requests / duration; of GuideLLM as above", becomes="request_throughput"),
        Term("lengths", "input_length, output_length", "as the tool of the load counts them, often with its own tokenizer"),
        Term("client queue", "-", "as the tool of the load has it"),
        Term("percentiles", "-", "as the tool of the load computes them"),
        Term("goodput", "-", "none"),
    ),
    (Caveat("the report does not say how its tool measures: the faults of that tool and version apply"),),
)  # fmt: skip
_STATISTICS = ("mean", "stddev", "min", "p50", "p90", "p95", "p99", "max")
_UNITS = {"ms": 1e-3, "s": 1.0, "ms/token": 1e-3, "s/token": 1.0, "us": 1e-6, "ns": 1e-9}
_OLD_RATES = {
    "output_tokens_per_sec": "output_token_rate", "input_tokens_per_sec": "input_token_rate", "total_tokens_per_sec": "total_token_rate",
    "requests_per_sec": "request_rate",
}  # fmt: skip
_ENGINES = {"tensorrt-llm": "trtllm", "trt-llm": "trtllm", "llama.cpp": "llamacpp"}


@importer(
    "llm-d Benchmark Report",
    forms=(
        Form("0.1", ("version", "scenario.load", "metrics.requests.total", "metrics.latency")),
        Form("0.2", ("version", "run.uid", "results.request_performance")),
    ),
    dialect=DIALECT,
)
def llmd_report(source: Source) -> Iterator[ImportedCell]:
    """One cell per report."""
    for report in source.records():
        version = str(report.get("version"))
        if not re.match(r"0\.[12](\.\d+)?$", version):
            raise report.error(f"version {version[:20]} of the report is unknown; 0.1 and 0.2 can be read", "version")
        if version.startswith("0.1"):
            metrics, tool, tool_version = report.part("metrics"), str(report.get("scenario.load.name") or ""), None
            load, deployment, facts = _old_load(report), _old_deployment(report), _old_facts(report)
            wall_s = _finite(metrics, "time.duration")
        else:
            if not report.has("results.request_performance.aggregate"):
                raise report.error("has no aggregate: only its time series could be read", "results.request_performance")
            metrics, load_of = report.part("results.request_performance.aggregate"), "scenario.load.standardized"
            tool, tool_version = str(report.get(f"{load_of}.tool") or ""), report.get(f"{load_of}.tool_version")
            load, deployment, facts = _load(report), _deployment(report), _facts(report)
            wall_s = _iso_s(report.get("run.time.duration"))
        total, lost = _counts(metrics)
        figures, own = _figures(metrics, tool.lower())
        figures |= {"success_rate": (total - lost) / total} if total else {}
        caveats = [f"measured by {tool or 'an unknown tool'}{f' {tool_version}' if tool_version else ''}"]
        if tool.lower() not in _AS_VLLM | _AS_AIPERF:
            caveats.append(f"what '{tool or 'it'}' means by TPOT and inter-token latency is unknown, so these are kept as its own figures")
        yield ImportedCell(deployment, load, figures, total - lost, wall_s, own, version=version, facts=facts, caveats=tuple(caveats))


def _counts(metrics: ForeignRecord) -> tuple[int, int]:
    """(requests, those that failed or were not completed)."""
    total = metrics.whole("requests.total")
    lost = sum(metrics.whole(f"requests.{name}") for name in ("failures", "incomplete") if metrics.has(f"requests.{name}"))
    if lost > total:
        raise metrics.error(f"the file is damaged: {lost} of {total} requests failed", "requests.failures")
    return total, lost


def _figures(metrics: ForeignRecord, tool: str) -> tuple[dict[str, float], dict[str, float]]:
    figures, own = dict[str, float](), dict[str, float]()
    for name in (
        "time_to_first_token",
        "time_per_output_token",
        "normalized_time_per_output_token",
        "inter_token_latency",
        "request_latency",
    ):
        key = f"latency.{name}"
        if not metrics.has(key):
            continue
        unit = metrics.text(f"{key}.units")
        if unit not in _UNITS:
            raise metrics.error(f"must be one of {', '.join(_UNITS)}, not '{unit[:20]}'", f"{key}.units")
        stated = metrics.numbers_in(key, _STATISTICS)
        own |= {f"{name}.{statistic} ({unit})": value for statistic, value in stated.items()}
        ours = _meaning(name, tool)
        if ours:
            figures |= {f"{ours}_{p}": stated[p] * _UNITS[unit] for p in ("p50", "p90", "p99") if stated.get(p, 0.0) > 0}
    for name, value in _rates(metrics):
        own[f"{name}.mean"] = value
        ours = DIALECT.term(name).becomes
        if ours and tool != "guidellm":
            figures[ours] = value
    return figures, own


def _meaning(name: str, tool: str) -> str:
    """The metric here that means the same in reports of this tool; '' if none does, or the tool is unknown."""
    if name in ("inter_token_latency", "time_per_output_token"):
        if tool in _AS_AIPERF:
            return "tpot" if name == "inter_token_latency" else ""
        return DIALECT.term(name).becomes if tool in _AS_VLLM else ""
    return DIALECT.term(name).becomes


def _rates(metrics: ForeignRecord) -> Iterator[tuple[str, float]]:
    for old, name in _OLD_RATES.items():
        if metrics.has(f"throughput.{old}"):
            yield name, metrics.number(f"throughput.{old}")
        elif metrics.has(f"throughput.{name}.mean"):
            yield name, metrics.number(f"throughput.{name}.mean")


# -- 0.2 -----------------------------------------------------------------------------------------------------------------------


def _engines(report: ForeignRecord) -> list[ForeignRecord]:
    """The engines of the stack: a component each, prefill and decode apart."""
    stack = report.parts("scenario.stack") if report.has("scenario.stack") else []
    return [each for each in stack if each.get("standardized.kind") == "inference_engine"]


def _deployment(report: ForeignRecord) -> Deployment:
    engines = _engines(report)
    serving = next((each for each in engines if each.get("standardized.role") != "prefill"), engines[0] if engines else None)
    if serving is None:
        return Deployment("unknown", "unknown", UNKNOWN_PRECISION, "unknown", runtime="attach")
    model = str(serving.get("standardized.model.name") or "unknown")
    engine, precision = str(serving.get("standardized.tool") or "unknown").lower(), serving.get("standardized.model.quantization")
    options: dict[str, Any] = {}
    for each in engines:
        role = str(each.get("standardized.role") or "aggregate")
        args = each.get("native.args")
        options |= {f"{role}.args": str(args)[:2000]} if isinstance(args, Mapping) and args else {}
        options |= {f"{role}.accelerator": str(model_)} if (model_ := each.get("standardized.accelerator.model")) else {}
        options |= {f"{role}.version": str(text)} if (text := each.get("standardized.tool_version")) else {}
    return Deployment(
        _ENGINES.get(engine, engine), model, str(precision or UNKNOWN_PRECISION).lower(), model, "attach",
        _degrees(serving, "standardized.accelerator.parallelism", _whole(serving, "standardized.replicas")), options=options,
    )  # fmt: skip


def _facts(report: ForeignRecord) -> dict[str, str]:
    engines = _engines(report)
    named = {str(each.get("standardized.accelerator.model")) for each in engines if each.get("standardized.accelerator.model")}
    count = sum((_whole(each, "standardized.accelerator.count") or 1) * (_whole(each, "standardized.replicas") or 1) for each in engines)
    facts = {"hardware": f"{count}x{named.pop()}"} if len(named) == 1 else {}
    version = next((each.get("standardized.tool_version") for each in engines if each.get("standardized.tool_version")), None)
    return facts | ({"engine_version": str(version).rsplit(":", 1)[-1]} if version else {})


def _load(report: ForeignRecord) -> Load:
    key = "scenario.load.standardized"
    common: dict[str, Any] = {
        "requests": report.whole("results.request_performance.aggregate.requests.total"), "prompts": "unknown", "prefix_cache": "allowed",
        "input_tokens": _length(report, f"{key}.input_seq_len"), "output_tokens": _length(report, f"{key}.output_seq_len"),
    }  # fmt: skip
    rate, streams = _finite(report, f"{key}.rate_qps"), _finite(report, f"{key}.concurrency")
    return _sent(rate, streams, common)


def _sent(rate: float | None, streams: float | None, common: dict[str, Any]) -> Load:
    if rate:
        return OpenLoop(rate=rate, concurrency=int(streams or 0), **common)
    return ClosedLoop(concurrency=max(1, int(streams or common["requests"])), **common)


def _length(report: ForeignRecord, key: str) -> int | str:
    """Only a fixed length is one number. A gaussian or uniform one is drawn as the tool draws it."""
    value = _finite(report, f"{key}.value")
    return int(value) if value and report.get(f"{key}.distribution") == "fixed" and value == int(value) else "data"


# -- 0.1 -----------------------------------------------------------------------------------------------------------------------


def _hosts(report: ForeignRecord) -> list[tuple[ForeignRecord, str]]:
    """(accelerator, role) of every host."""
    accelerators = report.parts("scenario.host.accelerator") if report.has("scenario.host.accelerator") else []
    roles = report.get("scenario.host.type")
    roles = roles if isinstance(roles, list) else []
    return [(each, str(roles[i]) if i < len(roles) else "replica") for i, each in enumerate(accelerators)]


def _old_deployment(report: ForeignRecord) -> Deployment:
    engines = report.parts("scenario.platform.engine") if report.has("scenario.platform.engine") else []
    hosts = _hosts(report)
    serving = [(each, i) for i, (each, role) in enumerate(hosts) if role != "prefill"] or [(each, i) for i, (each, _) in enumerate(hosts)]
    model = str(report.get("scenario.model.name") or "unknown")
    engine = str(engines[0].get("name") if engines else "unknown").lower()
    options = {f"{i}.args": str(each.get("args"))[:2000] for i, each in enumerate(engines) if each.get("args")}
    spread = _degrees(serving[0][0], "parallelism", len(serving)) if serving else Parallelism()
    precision = str(report.get("scenario.model.quantization") or UNKNOWN_PRECISION).lower()
    return Deployment(_ENGINES.get(engine, engine), model, precision, model, "attach", spread, options=options)


def _old_facts(report: ForeignRecord) -> dict[str, str]:
    named = {str(each.get("model")) for each, _ in _hosts(report) if each.get("model")}
    count = sum(_whole(each, "count") or 1 for each, _ in _hosts(report))
    engines = report.parts("scenario.platform.engine") if report.has("scenario.platform.engine") else []
    version = next((each.get("version") for each in engines if each.get("version")), None)
    return ({"hardware": f"{count}x{named.pop()}"} if len(named) == 1 else {}) | ({"engine_version": str(version)} if version else {})


def _old_load(report: ForeignRecord) -> Load:
    """What was sent is in the tool's own words, of which rate and limit are read."""
    args = report.get("scenario.load.args")
    args = args if isinstance(args, Mapping) else {}
    number = {
        key: value
        for key, value in args.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    }
    rate = next((number[key] for key in ("qps_values", "rate", "request_rate", "qps") if key in number), None)
    streams = next((number[key] for key in ("max_concurrency", "concurrency", "num_users") if key in number), None)
    common: dict[str, Any] = {
        "requests": report.whole("metrics.requests.total"),
        "prompts": "unknown",
        "prefix_cache": "allowed",
        "input_tokens": "data",
        "output_tokens": "data",
    }
    return _sent(rate, None if rate else streams, common)


# -- values --------------------------------------------------------------------------------------------------------------------


def _degrees(record: ForeignRecord, key: str, copies: int | None) -> Parallelism:
    degree = {name: max(1, _whole(record, f"{key}.{name}") or 1) for name in ("tp", "pp", "ep", "dp")}
    return Parallelism(tp=degree["tp"], pp=degree["pp"], ep=degree["ep"], dp_replicas=max(1, copies or 1) * degree["dp"])


def _whole(record: ForeignRecord, key: str) -> int | None:
    return record.whole(key) if record.has(key) else None


def _finite(record: ForeignRecord, key: str) -> float | None:
    """A number above 0; None where there is none, or it is infinite, which is no limit."""
    value = record.get(key)
    if isinstance(value, float) and value == float("inf"):
        return None
    return record.positive(key) if record.has(key) else None


def _iso_s(text: Any) -> float | None:
    """'PT49.97S' -> 49.97."""
    found = re.match(r"P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?$", str(text or ""))
    if found is None or not any(found.groups()):
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
