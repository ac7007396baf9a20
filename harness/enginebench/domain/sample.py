"""What one request left behind, as the load generator saw it. Raw times and counts; every metric is computed from them later."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Sample:
    """One request as the client saw it, raw. All times are `time.monotonic_ns()` of the client; every metric is derived later.

    event_ns[i] is when the i-th *output* event arrived (text, reasoning or token ids; never headers, a role delta or a
    keep-alive); event_tokens[i] the tokens it carried, -1 when the engine did not say; event_chars[i] its characters.
    input_tokens, output_tokens and cached_tokens are what the *server* counted (None: it did not say).
    """

    index: int
    asked_input_tokens: int
    asked_output_tokens: int
    due_ns: int = 0
    """When the arrival process wanted the request sent; equals sent_ns in a closed loop without delay."""
    sent_ns: int = 0
    """Just before the request's bytes are handed to the socket of a connection that is already open."""
    headers_ns: int = 0
    """Arrival of the response headers; 0 if none came. Never used as TTFT."""
    end_ns: int = 0
    """The response is complete, or the error is known."""
    event_ns: array[int] = field(default_factory=lambda: array("q"))
    event_tokens: array[int] = field(default_factory=lambda: array("i"))
    event_chars: array[int] = field(default_factory=lambda: array("i"))
    first_answer_ns: int = 0
    """Arrival of the first output event that is answer and not reasoning; 0 if none came."""
    conversation: int = -1
    """Which conversation the request is a turn of; -1: none."""
    turn: int = 0
    """Its place in that conversation, from 0."""
    outcome: str = "ok"
    """'ok', or an `enginebench.loadgen` error class such as 'http_status', 'timeout', 'cut', 'malformed', 'in_stream_error'."""
    error: str | None = None
    status_code: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    local_tokens: int | None = None
    """Output tokens by the checkpoint's own tokenizer, from the text; counted only where the server does not count."""
    finish_reason: str | None = None
    server_timings: Mapping[str, float] | None = None
    """The engine's own figures for this request under its own names, as it sent them."""
    text: str | None = None
    """Kept only when the caller asks for it (parity, priming); a measured sample does not hold its text."""
