"""One request on the wire and the raw bytes of its answer: HTTP/1.1 framing by httptools, everything else kept for later.

Does not know: the socket, other requests, or what the body says. Between two tokens nothing happens here but framing: pieces of
body are kept with the stamp of their read, and are decoded some dozens at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final

import httptools
import orjson

from enginebench.loadgen import outcomes
from enginebench.loadgen.decode import Decoder
from enginebench.nouns import Sample

BATCH_BYTES: Final = 16 << 10
"""Raw bytes that are decoded together: enough for the price of a start, little enough to be in the processor's cache still."""
MAX_HEADER_BYTES: Final = 64 << 10
_STAGGER: Final = 16
_COMPLETE: Final = 1 << 60
"""Added to the bytes held when the response is complete, so that one comparison for each read tells that there is something to do."""


class Exchange:
    """A request in flight and, afterwards, how it ended. The attributes are written by `Connection` on every read."""

    __slots__ = (
        "_barren",
        "_decoder",
        "_encoding",
        "_framed",
        "_informational",
        "_parser",
        "complete",
        "ending",
        "feed",
        "held",
        "keep_alive",
        "limit",
        "on_body",
        "on_end",
        "pieces",
        "sample",
        "stale",
        "stamp",
        "stamps",
        "surplus",
    )  # fmt: skip

    def __init__(self, sample: Sample, decoder: Decoder, on_end: Callable[[Exchange], None]) -> None:
        self.sample = sample
        self.on_end = on_end
        self.stamp = 0
        """When the read that is being fed arrived."""
        self.held = 0
        """Bytes read since the last time that something was decoded."""
        self.limit: Final = BATCH_BYTES - sample.index % _STAGGER * (BATCH_BYTES // 2 // _STAGGER)
        """How many to hold; not the same for all, so that streams in lockstep do not all fill up at once."""
        self.pieces: list[bytes] = []
        self.stamps: array[int] = array("q")
        """Arrival of each piece of body; `Connection` keeps it as long as `pieces`."""
        self.on_body = self.pieces.append  # called by httptools for every token, so without a Python frame of its own
        self.complete = False
        self.keep_alive = False
        self.surplus = False
        """Another message began after the complete one: the connection cannot be trusted any more."""
        self.stale = False
        """Sent on a kept-alive connection that the server was closing; it has to be sent again, on a fresh one."""
        self.ending: tuple[str, str | None] | None = None
        """(outcome, message) as far as the transport knows, once the exchange has ended."""
        self._decoder = decoder
        self._barren = 0
        """Bytes since the last piece of body: chunk extensions, trailers."""
        self._encoding: str | None = None
        self._framed = False
        self._informational = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.feed: Callable[[bytes], None] = self._parser.feed_data

    # -- called by httptools, inside feed --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.surplus = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        self._framed = self._framed or lowered == b"content-length" or (lowered == b"transfer-encoding" and b"chunked" in value.lower())
        if lowered == b"content-encoding" and value.strip().lower() != b"identity":
            self._encoding = value.strip().decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 -- the parser is what calls this
        status = self._parser.get_status_code()
        self._informational = 100 <= status < 200  # 100 Continue and its like: the real response follows
        if not self._informational and not self.complete:
            self.sample.status_code = status
            self.sample.headers_ns = self.stamp

    def on_message_complete(self) -> None:
        if self._informational:
            self._framed = False
        elif not self.complete:
            assert self._parser is not None  # noqa: S101
            self.complete = True
            self.held += _COMPLETE
            self.keep_alive = self._parser.should_keep_alive()

    # -- the end ---------------------------------------------------------------------------------------------------------

    @property
    def until_close(self) -> bool:
        """The response has headers but no length: only the end of the connection ends it."""
        return self.sample.headers_ns != 0 and not self._framed

    def end(self, outcome: str, message: str | None, end_ns: int) -> None:
        """The transport's verdict; the first one counts."""
        if self.ending is None:
            self.ending = (outcome, message)
            self.sample.end_ns = end_ns
            # Parser and exchange refer to each other, and the garbage collector is off while measuring.
            self._parser = None
            self.feed = _ignore
            self.on_body = _ignore

    def decode(self) -> None:
        """Decode what has been received since the last time; once the exchange has ended, settle its outcome."""
        missing = len(self.pieces) - len(self.stamps)  # of a read that broke the parser
        self.stamps.extend(array("q", (self.stamp,)) * missing)
        self._barren = 0 if self.pieces else self._barren + self.held
        self._decoder.feed(self.stamps, self.pieces)
        self.pieces.clear()  # the parser goes on with the same list
        self.stamps, self.held = array("q"), 0
        if self.ending is not None:
            self._settle()

    @property
    def events(self) -> int:
        """About how many output events have arrived."""
        return len(self.sample.event_ns) + len(self.stamps)

    def heard_since(self, instant_ns: int) -> bool:
        """Whether any of the body has arrived since."""
        return self.stamp > instant_ns and self.events > 0

    @property
    def pace_s(self) -> tuple[float, float] | None:
        """(to the first event, from event to event) in s; None below two events."""
        events = self.sample.event_ns
        if len(events) < 2:
            return None
        return (events[0] - self.sample.sent_ns) / 1e9, (events[-1] - events[0]) / (len(events) - 1) / 1e9

    @property
    def nonsense(self) -> str | None:
        """Why there is no point in reading on: what came so far was no stream of events, or is no body at all."""
        if self._barren > MAX_HEADER_BYTES:
            return f"more than {MAX_HEADER_BYTES} bytes of chunk extensions or trailers"
        failure = self._decoder.failure
        return failure[1] if failure is not None and failure[0] == outcomes.MALFORMED else None

    @property
    def answer(self) -> bytes:
        """What the server said, escaped for a JSON string."""
        return orjson.dumps(self.sample.text or "")[1:-1]

    def _settle(self) -> None:
        """What was heard first counts: a status other than 200, then what the stream said, then how the transport ended."""
        assert self.ending is not None  # noqa: S101
        outcome, message = self.ending
        sample, decoder = self.sample, self._decoder
        decoder.finish(sample.end_ns, whole=outcome == outcomes.OK)
        if sample.status_code not in (None, 200):
            outcome, message = outcomes.HTTP_STATUS, f"HTTP {sample.status_code}: {decoder.excerpt}"
        elif self._encoding is not None:
            outcome, message = outcomes.MALFORMED, f"the answer is compressed ({self._encoding}) although that was ruled out"
        elif decoder.failure is not None:
            outcome, message = decoder.failure
        elif outcome == outcomes.OK and self.until_close and not decoder.finished:
            outcome, message = outcomes.CUT, "the connection closed before the stream said that it was complete"
        elif outcome == outcomes.OK and not sample.event_ns:
            outcome, message = outcomes.EMPTY, f"complete, but without any output event: {decoder.excerpt}"
        sample.outcome, sample.error = outcome, message


def _ignore(data: bytes) -> None:
    """What feeds an exchange that has ended."""
