"""How a request can end. One word each, so that a table of failures needs no regular expressions.

Does not know: what to do about it. Nothing is retried: a 429 is a result, not an obstacle. The one
exception is a request that crossed the close of a kept-alive connection (`Exchange.stale`); it is counted in ClientHealth.
"""

from __future__ import annotations

from typing import Final

OK: Final = "ok"
HTTP_STATUS: Final = "http_status"
"""The server answered, but not with 200; `Sample.status_code` has the code and `Sample.error` an excerpt of the body."""
CONNECT: Final = "connect"
"""No connection, so nothing was sent and `Sample.sent_ns` is 0."""
TIMEOUT: Final = "timeout"
"""Not complete `timeout_s` after it was sent."""
CUT: Final = "cut"
"""The server closed the connection before the response was complete."""
MALFORMED: Final = "malformed"
"""The answer breaks HTTP, the stream framing or JSON."""
IN_STREAM_ERROR: Final = "in_stream_error"
"""HTTP 200, and then an error event in the stream."""
EMPTY: Final = "empty"
"""A complete response without a single output event."""
CANCELLED: Final = "cancelled"
"""The load was stopped while this request was in flight."""

OUTCOMES: Final = (OK, HTTP_STATUS, CONNECT, TIMEOUT, CUT, MALFORMED, IN_STREAM_ERROR, EMPTY, CANCELLED)

NONSENSE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError)
"""What a dialect may raise. ValueError is its contract; the others are a dialect that trusts the server more than we may."""
