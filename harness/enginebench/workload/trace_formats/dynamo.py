"""Request traces of NVIDIA Dynamo: JSON lines of schema dynamo.request.trace.v1, of which the `request_end` records are requests.

Times (Unix ms) and hashes of the prompt's blocks are those of the server. The requests of an agent's session follow one another as they
did, and sessions of subagents are joined to that of their parent.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, fitting, ids_of, time_of
from enginebench.workload.trace_sessions import Span, chained

_SCHEMA = "dynamo.request.trace.v1"


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    spans: list[Span] = []
    parents: dict[Hashable, Hashable] = {}
    for row in map(_unwrapped, rows):
        if row.get("schema") != _SCHEMA:
            raise ValueError(f"schema {row.get('schema')!r} is not {_SCHEMA}")
        if row.get("event_type") != "request_end":
            continue
        agent = row.get("agent_context") or {}
        session = agent.get("trajectory_id") or agent.get("session_id")
        parent = agent.get("parent_trajectory_id") or agent.get("parent_session_id")
        if session and parent and parent != session:
            parents[session] = parent
        span = _span(row["request"], row, len(spans), session)
        if session is None:
            yield span.entry
        else:
            spans.append(span)
    yield from chained(spans, parents)


def _unwrapped(row: Row) -> Row:
    """The record in the envelope of a sink, or the record itself."""
    inner = row.get("event")
    return inner if "schema" not in row and isinstance(inner, Mapping) else row


def _span(request: Row, row: Row, number: int, session: Hashable) -> Span:
    replay = request.get("replay") or {}
    tokens = count_of(replay["input_length"] if "input_length" in replay else request["input_tokens"])
    size = count_of(replay.get("trace_block_size") or 0)
    blocks = fitting(ids_of(replay.get("input_sequence_hashes") or [], "input_sequence_hashes"), tokens, size) if size else ()
    began, took = request.get("request_received_ms"), request.get("total_time_ms")
    end = time_of(row["event_time_unix_ms"]) if took is None or began is None else time_of(began) + time_of(took)
    start = end if began is None else time_of(began)
    return Span(Entry(start, tokens, count_of(request["output_tokens"]), blocks, size, ("request", number)), end, session)


FORMAT = TraceFormat(
    "dynamo", "Dynamo request traces", ("schema", "event_type", "event_time_unix_ms"), _read, "milliseconds",
    "https://docs.nvidia.com/dynamo/dev/observability/request-traces", lost="tool calls, except for the time that they took",
)  # fmt: skip
