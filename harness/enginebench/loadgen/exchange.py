"""One request on the wire and its response: HTTP/1.1 framing by httptools, events by `decode`.

Fast path: nearly every read of a stream is one event that differs from the previous one only in its text. `Connection` recognises it by
its bytes and appends time stamp and text to `held`. All other reads go through `read`, and body is decoded in batches where possible. Does
not know: the socket, other requests, or the meaning of the body.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Final

import httptools
import orjson

from enginebench.domain import Sample
from enginebench.loadgen import outcomes
from enginebench.loadgen.decode import Decoder
from enginebench.loadgen.template import Pattern, Spelling, Template, ambiguous, spelling_of

BATCH_BYTES: Final = 16 << 10
"""Bytes of body that are decoded together: enough to spread the cost of a call, few enough to stay in the CPU's cache."""
BATCH_EVENTS: Final = 128
"""Recognised events that are recorded together."""
MAX_HEADER_BYTES: Final = 64 << 10
_MAX_ENCODING: Final = 100
"""Longest name of a content encoding in a message."""


class Exchange:
    """A request in flight and, later, its result."""

    __slots__ = (
        "_aligned", "_bytes_without_body", "_chunked", "_decoder", "_encoding", "_framed", "_informational", "_parser", "_pieces",
        "_spelling", "_spelling_certain", "_stamps", "_template", "_undecoded_bytes", "complete", "ending", "held", "keep_alive",
        "last_read_ns", "limit", "on_body", "on_end", "pattern", "sample", "stale", "surplus",
    )  # fmt: skip

    def __init__(self, sample: Sample, decoder: Decoder, on_end: Callable[[Exchange], None]) -> None:
        self.sample = sample
        self.on_end = on_end
        self.pattern: Pattern | None = None
        """Expected bytes of the next read: an event like the previous ones with another text. None if unknown."""
        self._template: Template | None = None
        """Template of the last pattern."""
        self.held: list[Any] = []
        """Alternating time stamp and text of the recognised reads that are not yet decoded."""
        self.limit: Final = 2 * (BATCH_EVENTS - sample.index % (BATCH_EVENTS // 2))
        """Entries of `held` at which to `flush`. Differs between requests, so that synchronised streams do not all flush at once."""
        self.last_read_ns = 0
        """Arrival of the last read that was not recognised; 0 before the first."""
        self.complete = False
        self.keep_alive = False
        self.surplus = False
        """Another message began after the complete one, so the connection must not be reused."""
        self.stale = False
        """Sent on a keep-alive connection that the server was closing; must be sent again on a new connection."""
        self.ending: tuple[str, str | None] | None = None
        """(outcome, message) from the transport, once the exchange has ended."""
        self._pieces: list[bytes] = []
        """Body that is not yet decoded."""
        self._stamps: list[int] = []
        """Arrival time of each piece."""
        self.on_body = self._pieces.append  # called by httptools for every piece; saves a Python frame
        self._decoder = decoder
        self._undecoded_bytes = 0
        self._bytes_without_body = 0
        """Bytes since the last piece of body: chunk extensions, trailers."""
        self._encoding: str | None = None
        self._framed = self._chunked = False
        self._aligned = False
        """httptools is between two chunks, so whole chunks may bypass it."""
        self._spelling: Spelling | None = None
        """How the server writes the size of a chunk that is one event."""
        self._spelling_certain = False
        self._informational = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    # -- reads -----------------------------------------------------------------------------------------------------------

    def read(self, stamp: int, data: bytes) -> None:
        """Find events and the end of the response in a read that was not recognised as one event. Raises httptools' errors."""
        if not data:
            return
        self.last_read_ns = stamp
        if self.pattern is not None:
            texts, taken = self.pattern.texts(data)  # a read may hold several events
            for text in texts:
                self.held += (stamp, text)
            if len(self.held) > self.limit:
                self.flush()
            if taken == len(data):
                return
            data = data[taken:]
        try:
            self._parse(stamp, data)
        finally:
            self._undecoded_bytes += len(data)
            if self._pieces and not self.complete and not self._postponed():
                self._decode()
            self.pattern = self._decoder.pattern(self._spelling) if self._aligned and self._spelling is not None else None
            self._template = self.pattern.template if self.pattern is not None else self._template

    def _postponed(self) -> bool:
        """Whether the pieces may be decoded later in a batch: no template can be learned from them and no later event overtakes them."""
        recognises = self._aligned and self._spelling is not None and self._decoder.recognises
        return self._decoder.settled and not recognises and not self.held and self._undecoded_bytes <= BATCH_BYTES

    def _parse(self, stamp: int, data: bytes) -> None:
        """Feed httptools one read, or the rest of one. Each piece of body gets the time stamp of the read."""
        assert self._parser is not None  # noqa: S101
        count = len(self._pieces)
        try:
            self._parser.feed_data(data)
        finally:
            new = len(self._pieces) - count
            self._stamps += [stamp] * new
        self._aligned = self._chunked and new > 0 and data.endswith(self._pieces[-1] + b"\r\n")
        if not new:
            self._bytes_without_body += len(data)
            return
        self._bytes_without_body = 0
        if self._aligned and not self._spelling_certain:
            self._spelling = spelling_of(data, self._pieces[-1]) or self._spelling
            self._spelling_certain = self._spelling is not None and not ambiguous(len(self._pieces[-1]))

    def flush(self) -> None:
        if self.held and self._template is not None:
            texts = self.held[1::2]
            self._decoder.take(self._template, array("q", self.held[::2]), array("i", map(len, texts)), b"".join(texts))
            self.held.clear()

    def recognised(self, stamps: array[int], lengths: array[int], texts: bytes) -> None:
        """Record events that the receiver recognised by `pattern`; see `Decoder.take`."""
        self.flush()
        if self._template is not None:
            self._decoder.take(self._template, stamps, lengths, texts)

    def _decode(self) -> None:
        self.flush()
        if self._pieces:
            self._decoder.feed(self._stamps, self._pieces)
            self._pieces.clear()  # keep the list: httptools appends to it
            self._stamps.clear()
        self._undecoded_bytes = 0

    # -- called by httptools, inside feed --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.surplus = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        self._chunked = self._chunked or (lowered == b"transfer-encoding" and b"chunked" in value.lower())
        self._framed = self._framed or self._chunked or lowered == b"content-length"
        if lowered == b"content-encoding" and value.strip().lower() != b"identity":
            self._encoding = value.strip()[:_MAX_ENCODING].decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 -- the parser calls this method
        status = self._parser.get_status_code()
        self._informational = 100 <= status < 200  # such as 100 Continue: the final response follows
        if not self._informational and not self.complete:
            self.sample.status_code = status
            self.sample.headers_ns = self.last_read_ns

    def on_message_complete(self) -> None:
        if self._informational:
            self._framed = self._chunked = False
            self._encoding = None
        elif not self.complete:
            assert self._parser is not None  # noqa: S101
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()

    # -- the end ---------------------------------------------------------------------------------------------------------

    @property
    def until_close(self) -> bool:
        """The response has headers but neither a length nor chunks: it ends when the connection closes."""
        return self.sample.headers_ns != 0 and not self._framed

    def end(self, outcome: str, message: str | None, end_ns: int) -> None:
        if self.ending is None:
            self.ending = (outcome, message)
            self.sample.end_ns = end_ns
            self._parser = None  # break the reference cycle: the garbage collector is off

    def settle(self) -> None:
        self._decode()
        self.sample.outcome, self.sample.error = self._outcome()

    @property
    def unsettled(self) -> int:
        return len(self._pieces)

    @property
    def events(self) -> int:
        """Approximate number of output events so far."""
        return len(self.sample.event_ns) + len(self.held) // 2 + len(self._pieces)

    def body_since(self, instant_ns: int) -> bool:
        return (self.held[-2] if self.held else self.last_read_ns) > instant_ns and self.events > 0

    @property
    def pace_s(self) -> tuple[float, float] | None:
        """(time to first event, mean time between events) in s; None below two events."""
        events = self.sample.event_ns
        if len(events) < 2:
            return None
        return (events[0] - self.sample.sent_ns) / 1e9, (events[-1] - events[0]) / (len(events) - 1) / 1e9

    @property
    def malformed_reason(self) -> str | None:
        if self._bytes_without_body > MAX_HEADER_BYTES:
            if not self.sample.headers_ns:
                return f"no end of the response headers within {MAX_HEADER_BYTES} bytes"
            return f"more than {MAX_HEADER_BYTES} bytes of chunk extensions or trailers"
        failure = self._decoder.failure
        return failure[1] if failure is not None and failure[0] == outcomes.MALFORMED else None

    @property
    def escaped_answer(self) -> bytes:
        """The generated text without reasoning, escaped for a JSON string."""
        return orjson.dumps(self._decoder.answer.decode())[1:-1]

    def _outcome(self) -> tuple[str, str | None]:
        """Outcome and message. Precedence: a status other than 200, then errors in the stream, then how the transport ended."""
        assert self.ending is not None  # noqa: S101
        outcome, message = self.ending
        sample, decoder = self.sample, self._decoder
        decoder.finish(sample.end_ns, whole=outcome == outcomes.OK)
        if sample.status_code not in (None, 200):
            outcome, message = outcomes.HTTP_STATUS, f"HTTP {sample.status_code}: {decoder.excerpt}"
        elif self._encoding is not None:
            outcome, message = outcomes.MALFORMED, f"compressed response ({self._encoding}), but the request allows only identity"
        elif decoder.failure is not None:
            outcome, message = decoder.failure
        elif outcome == outcomes.OK and self.until_close and not decoder.finished:
            outcome, message = outcomes.CUT, "the connection closed before the stream was complete"
        elif outcome == outcomes.OK and not sample.event_ns:
            outcome, message = outcomes.EMPTY, f"complete response without output events: {decoder.excerpt}"
        return outcome, message
