"""One request on the wire and what came back: HTTP/1.1 framing by httptools, events by `decode`.

Does not know: the socket, other requests, or what the body says. Nearly every read of a stream is one event like the one before it
with another text, `Connection` sees that by its bytes, and all that happens between two tokens is that stamp and text are kept in
`held`. What is different comes here to be `read`, and what need not be decoded at once is decoded later, many pieces at a time.
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
"""Body that is decoded in full together: enough for the price of a start, little enough to be in the processor's cache still."""
BATCH_EVENTS: Final = 128
"""Recognised events that are recorded together."""
MAX_HEADER_BYTES: Final = 64 << 10
_MAX_ENCODING: Final = 100
"""Of its name, in a message."""


class Exchange:
    """A request in flight and, afterwards, how it ended."""

    __slots__ = (
        "_aligned", "_barren", "_chunked", "_decoder", "_encoding", "_framed", "_held_bytes", "_informational", "_parser", "_pieces",
        "_spelling", "_spelt", "_stamps", "_template", "complete", "ending", "heard", "held", "keep_alive", "limit", "on_body", "on_end",
        "pattern", "sample", "stale", "surplus",
    )  # fmt: skip

    def __init__(self, sample: Sample, decoder: Decoder, on_end: Callable[[Exchange], None]) -> None:
        self.sample = sample
        self.on_end = on_end
        self.pattern: Pattern | None = None
        """What the next read should be: one event like those before it, with another text."""
        self._template: Template | None = None
        """Of the last pattern that there was."""
        self.held: list[Any] = []
        """Stamp and text, by turns, of the reads that were."""
        self.limit: Final = 2 * (BATCH_EVENTS - sample.index % (BATCH_EVENTS // 2))
        """Entries of `held` to `flush` at; not the same for all, so that streams in lockstep do not all fill up at once."""
        self.heard = 0
        """When the last read arrived that was something else; 0 before the first."""
        self.complete = False
        self.keep_alive = False
        self.surplus = False
        """Another message began after the complete one: the connection cannot be trusted any more."""
        self.stale = False
        """Sent on a kept-alive connection that the server was closing; it has to be sent again, on a fresh one."""
        self.ending: tuple[str, str | None] | None = None
        """(outcome, message) as far as the transport knows, once the exchange has ended."""
        self._pieces: list[bytes] = []
        """Body that the decoder has not seen yet."""
        self._stamps: list[int] = []
        """Arrival of each piece."""
        self.on_body = self._pieces.append  # called by httptools for every piece, so without a Python frame of its own
        self._decoder = decoder
        self._held_bytes = 0
        self._barren = 0
        """Bytes since the last piece of body: chunk extensions, trailers."""
        self._encoding: str | None = None
        self._framed = self._chunked = False
        self._aligned = False
        """httptools stands between two chunks, so whole chunks may go past it."""
        self._spelling: Spelling | None = None
        """How the server writes the size of a chunk that is one event."""
        self._spelt = False
        """That is certain."""
        self._informational = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    # -- reads -----------------------------------------------------------------------------------------------------------

    def read(self, stamp: int, data: bytes) -> None:
        """Find events and the end of the response in a read that is no event like those before. Raises httptools' errors."""
        if not data:
            return
        self.heard = stamp
        if self.pattern is not None:
            texts, taken = self.pattern.texts(data)  # there may be many in it
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
            self._held_bytes += len(data)
            if self._pieces and not self.complete and not self._postponed():
                self._decode()
            self.pattern = self._decoder.pattern(self._spelling) if self._aligned and self._spelling is not None else None
            self._template = self.pattern.template if self.pattern is not None else self._template

    def _postponed(self) -> bool:
        """Whether the pieces can wait, to be decoded with others: nothing can be learned from them, and nothing overtakes them."""
        recognises = self._aligned and self._spelling is not None and self._decoder.recognises
        return self._decoder.settled and not recognises and not self.held and self._held_bytes <= BATCH_BYTES

    def _parse(self, stamp: int, data: bytes) -> None:
        """Feed httptools one read, or the rest of one."""
        assert self._parser is not None  # noqa: S101
        count = len(self._pieces)
        try:
            self._parser.feed_data(data)
        finally:
            new = len(self._pieces) - count
            self._stamps += [stamp] * new
        self._aligned = self._chunked and new > 0 and data.endswith(self._pieces[-1] + b"\r\n")
        if not new:
            self._barren += len(data)
            return
        self._barren = 0
        if self._aligned and not self._spelt:
            self._spelling = spelling_of(data, self._pieces[-1]) or self._spelling
            self._spelt = self._spelling is not None and not ambiguous(len(self._pieces[-1]))

    def flush(self) -> None:
        """Hand the events that were recognised to the decoder."""
        if self.held and self._template is not None:
            texts = self.held[1::2]
            self._decoder.take(self._template, array("q", self.held[::2]), array("i", map(len, texts)), b"".join(texts))
            self.held.clear()

    def recognised(self, stamps: array[int], lengths: array[int], texts: bytes) -> None:
        """Events that the connection's receiver has recognised by `pattern`; see `Decoder.take`."""
        self.flush()
        if self._template is not None:
            self._decoder.take(self._template, stamps, lengths, texts)

    def _decode(self) -> None:
        self.flush()
        if self._pieces:
            self._decoder.feed(self._stamps, self._pieces)
            self._pieces.clear()  # httptools goes on with the same list
            self._stamps.clear()
        self._held_bytes = 0

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
        assert self._parser is not None  # noqa: S101 -- the parser is what calls this
        status = self._parser.get_status_code()
        self._informational = 100 <= status < 200  # 100 Continue and its like: the real response follows
        if not self._informational and not self.complete:
            self.sample.status_code = status
            self.sample.headers_ns = self.heard

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
        """The response has headers but no length: only the end of the connection ends it."""
        return self.sample.headers_ns != 0 and not self._framed

    def end(self, outcome: str, message: str | None, end_ns: int) -> None:
        """The transport's verdict; the first one counts."""
        if self.ending is None:
            self.ending = (outcome, message)
            self.sample.end_ns = end_ns
            self._parser = None  # it and the exchange refer to each other, and the garbage collector is off while measuring

    def settle(self) -> None:
        """Decode what is left of an exchange that has ended, and say how it ended."""
        self._decode()
        outcome, message = self._verdict()
        self.sample.outcome, self.sample.error = outcome, message

    @property
    def unsettled(self) -> int:
        """Pieces of body that wait to be decoded."""
        return len(self._pieces)

    @property
    def events(self) -> int:
        """About how many output events have arrived."""
        return len(self.sample.event_ns) + len(self.held) // 2 + len(self._pieces)

    def heard_since(self, instant_ns: int) -> bool:
        """Whether any of the body has arrived since."""
        return (self.held[-2] if self.held else self.heard) > instant_ns and self.events > 0

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
            if not self.sample.headers_ns:
                return f"no end of the response headers within {MAX_HEADER_BYTES} bytes"
            return f"more than {MAX_HEADER_BYTES} bytes of chunk extensions or trailers"
        failure = self._decoder.failure
        return failure[1] if failure is not None and failure[0] == outcomes.MALFORMED else None

    @property
    def answer(self) -> bytes:
        """What the server said, escaped for a JSON string."""
        return orjson.dumps(self.sample.text or "")[1:-1]

    def _verdict(self) -> tuple[str, str | None]:
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
        return outcome, message
