"""The outcomes of a request, one word each.

Failed requests are not retried: a 429 is a result. The one exception is a request sent on a keep-alive connection that the server was
closing (`Exchange.stale`); it is sent again and counted in `ClientHealth.stale`.
"""

from typing import Final

OK: Final = "ok"
HTTP_STATUS: Final = "http_status"
"""Status other than 200. `Sample.status_code` has the code and `Sample.error` an excerpt of the body."""
CONNECT: Final = "connect"
"""No connection. Nothing was sent, and `Sample.sent_ns` is 0."""
TIMEOUT: Final = "timeout"
"""Not complete within `timeout_s` of being sent."""
CUT: Final = "cut"
"""The connection closed before the response was complete, or the stream ended without what other streams of the server end with."""
MALFORMED: Final = "malformed"
"""The response violates HTTP, the stream framing or JSON."""
IN_STREAM_ERROR: Final = "in_stream_error"
"""HTTP 200, followed by an error event in the stream."""
EMPTY: Final = "empty"
"""A complete response without output events."""
CANCELLED: Final = "cancelled"
"""The load was stopped while this request was in flight."""
ABORTED: Final = "aborted"
"""The load itself ended this request, `WireRequest.abort_ns` after it was sent. No failure."""

OUTCOMES: Final = (OK, HTTP_STATUS, CONNECT, TIMEOUT, CUT, MALFORMED, IN_STREAM_ERROR, EMPTY, CANCELLED, ABORTED)
WANTED: Final = frozenset({OK, ABORTED})
"""Those of requests that did what the load asks for."""

END_MARKS: Final = ("finish_reason", "usage", "[DONE]")
"""What a stream may end with: a finish reason, a count of its output tokens, and an end marker of its protocol."""

DECODE_ERRORS: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError)
"""Exceptions of a dialect that mean a malformed response. The contract is ValueError; the others come from missing checks in a dialect."""
