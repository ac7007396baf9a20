"""Results of GenAI-Perf, AIPerf's predecessor: profile_export_genai_perf.json, which has no single requests."""

from collections.abc import Iterator, Mapping
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer
from enginebench.records.importers.aiperf import NVIDIA_TERMS, nvidia_figures

DIALECT = Dialect(
    (
        *NVIDIA_TERMS,
        Term("TTFT", "time_to_second_token", "second chunk - first chunk"),
        Term("ITL", "-", "its inter-token latency is TPOT; gaps between chunks are not reported"),
        Term("lengths", "output_sequence_length", "output tokens as the client's tokenizer counts them", "osl"),
        Term("client queue", "-", "not reported"),
        Term("goodput", "request_goodput", "requests/s that meet the limits of --goodput"),
    ),
    (Caveat("its file does not say how many requests failed"),),
)


@importer("genai-perf", forms=(Form("summary", ("request_latency.unit", "input_config.perf_analyzer")),), dialect=DIALECT)
def genai_perf(source: Source) -> Iterator[ImportedCell]:
    """One cell per file. Older files have no number of requests: then it is that which was asked for."""
    for record in source.records():
        figures, own = nvidia_figures(record, DIALECT)
        asked = record.get("input_config.perf_analyzer.measurement")
        count = asked.get("num") if isinstance(asked, Mapping) and asked.get("mode") == "request_count" else None
        completed = record.whole("request_count.avg") if record.has("request_count.avg") else int(count or 0)
        if not completed:
            raise record.error("states no number of requests, so it is unknown what its percentiles rest on", "request_count")
        names = record.get("input_config.model_names")
        model = str(names[0]) if isinstance(names, list) and names else "unknown"
        kind = str(record.get("input_config.endpoint.service_kind") or "openai")
        deployment = Deployment(kind, model, UNKNOWN_PRECISION, model, runtime="attach")
        yield ImportedCell(deployment, _load(record, completed), figures, completed, own=own)


def _load(record: ForeignRecord, requests: int) -> Load:
    stimulus = record.part("input_config.perf_analyzer.stimulus")
    common: Mapping[str, Any] = {
        "requests": requests, "input_tokens": _length(record, "synthetic_tokens"), "output_tokens": _length(record, "output_tokens"),
        "prompts": "unknown", "prefix_cache": "allowed",
        "api": "chat" if record.get("input_config.endpoint.type") == "chat" else "completions",
    }  # fmt: skip
    if stimulus.has("request_rate"):
        return OpenLoop(rate=stimulus.positive("request_rate"), concurrency=0, **common)
    return ClosedLoop(concurrency=max(1, stimulus.whole("concurrency")), **common)


def _length(record: ForeignRecord, which: str) -> int | str:
    of = record.get(f"input_config.input.{which}")
    if isinstance(of, Mapping) and not of.get("stddev") and isinstance(of.get("mean"), int | float) and of["mean"] > 0:
        return int(of["mean"])
    return "data"
