"""One request as the load generator measured it: raw times and counts, from which all metrics are computed later."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Sample:
    """One request as the client measured it. All times are `time.monotonic_ns()` of the client."""

    index: int
    """Position of the request in the load, from 0."""
    asked_input_tokens: int
    """Prompt tokens that the server should count; an estimate where the tokenizer is unknown."""
    asked_output_tokens: int
    """Tokens to generate, sent as the limit of the request."""
    due_ns: int = 0
    """Scheduled arrival; equals sent_ns in a closed loop without delay."""
    sent_ns: int = 0
    """Just before the request's bytes are written to an open connection."""
    headers_ns: int = 0
    """Arrival of the response headers; 0 if none came. Never used as TTFT."""
    end_ns: int = 0
    """The response is complete, or the error is known."""
    event_ns: array[int] = field(default_factory=lambda: array("q"))
    """Arrival of each *output* event: text, reasoning or token ids; never headers, a role delta or a keep-alive."""
    event_tokens: array[int] = field(default_factory=lambda: array("i"))
    """Tokens of each event; -1: unknown."""
    event_chars: array[int] = field(default_factory=lambda: array("i"))
    """Characters of each event."""
    first_answer_ns: int = 0
    """Arrival of the first output event that is not reasoning; 0 if none came."""
    conversation: int = -1
    """Conversation that the request belongs to; -1: none."""
    turn: int = 0
    """Index in that conversation, from 0."""
    outcome: str = "ok"
    """'ok', or an `enginebench.loadgen` error class such as 'http_status', 'timeout', 'cut', 'malformed', 'in_stream_error'."""
    error: str | None = None
    """What went wrong, with an excerpt of an error response; None: nothing."""
    status_code: int | None = None
    """HTTP status; None: no response."""
    input_tokens: int | None = None
    """Counted by the *server*, as are output_tokens and cached_tokens; None: the server does not report it."""
    output_tokens: int | None = None
    """Generated tokens, reasoning included."""
    cached_tokens: int | None = None
    """Those of input_tokens that came from the prefix cache."""
    reasoning_tokens: int | None = None
    """Those of output_tokens that are reasoning, streamed or not, as the server counted them; None: it does not say."""
    end_marks: frozenset[str] = frozenset()
    """What the stream ended with, of `enginebench.loadgen.outcomes.END_MARKS`. Not stored."""
    local_tokens: int | None = None
    """Output tokens of the text by the checkpoint's own tokenizer; counted only if the server does not count."""
    finish_reason: str | None = None
    """Why generation ended, in the server's word ('length', 'stop'); None: it does not say."""
    server_timings: Mapping[str, float] | None = None
    """The engine's own timings of this request, with the engine's names and units."""
    text: str | None = None
    """Kept only on request (parity, priming); measured samples have no text."""
