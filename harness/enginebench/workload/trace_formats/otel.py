"""OpenTelemetry spans of generative AI: OTLP JSON (one export per line, or a file), or the SDKs' JSON of single spans.

A span is a request if it has `gen_ai.usage.input_tokens` and `gen_ai.usage.output_tokens` (or the older `prompt_tokens` and
`completion_tokens`). Its session is `gen_ai.conversation.id`, else its trace. Start and end say what it waited for, and spans that overlap
are branches. What prompts share is not recorded: a request is taken to repeat the one before it if it is long enough to hold it.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, moment_of
from enginebench.workload.trace_sessions import Span, chained

_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_VALUES = ("intValue", "stringValue", "doubleValue")


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    spans: list[Span] = []
    for row in rows:
        for span in _spans(row):
            if (found := _request(span, len(spans))) is not None:
                spans.append(found)
    yield from chained(spans)


def _spans(row: Row) -> Iterator[Row]:
    """The spans in an export of OTLP, in a list under `spans`, or a span by itself."""
    if "resourceSpans" in row:
        for resource in row["resourceSpans"]:
            for scope in resource.get("scopeSpans") or resource.get("instrumentationLibrarySpans") or ():
                yield from scope["spans"]
    elif isinstance(row.get("spans"), list):
        yield from row["spans"]
    else:
        yield row


def _request(span: Row, number: int) -> Span | None:
    """None: the span is no request to a model, such as a tool call or an agent's turn."""
    known = _attributes(span.get("attributes"))
    tokens = [next((known[name] for name in names if name in known), None) for names in (_INPUT, _OUTPUT)]
    if tokens[0] is None or tokens[1] is None or known.get("gen_ai.operation.name") == "invoke_agent":  # which sums its requests up
        return None
    context = span.get("context") or {}
    session = known.get("gen_ai.conversation.id") or span.get("traceId") or context.get("trace_id") or span.get("trace_id")
    start, end = _time(span, "startTimeUnixNano", "start_time"), _time(span, "endTimeUnixNano", "end_time")
    entry = Entry(start, count_of(tokens[0]), count_of(tokens[1]), id=("span", number))
    return Span(entry, max(start, end), ("alone", number) if session is None else session)


def _time(span: Row, nanoseconds: str, date: str) -> float:
    if nanoseconds in span:
        return int(span[nanoseconds]) / 1e9
    value = span[date]
    return int(value) / 1e9 if isinstance(value, int) or str(value).isdigit() else moment_of(str(value))


def _attributes(given: Any) -> Mapping[str, Hashable]:
    if isinstance(given, Mapping):
        return given
    return {its["key"]: next((its["value"][kind] for kind in _VALUES if kind in its["value"]), None) for its in given or ()}


FORMAT = TraceFormat(
    "otel", "OpenTelemetry spans of generative AI", ("resourceSpans",), _read, "",
    "https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/", lost="the text of messages, and which parts of it are shared",
)  # fmt: skip
