"""One request on the wire and the raw bytes of its answer: HTTP/1.1 framing by httptools, everything else kept for later.

Does not know: the socket, other requests, or what the body says. Between two tokens nothing happens here but framing: pieces of
body are kept with the stamp of their read, and are decoded later (`backlog`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import httptools

from enginebench.loadgen import outcomes
from enginebench.loadgen.decode import Decoder
from enginebench.nouns import Sample

BATCH_BYTES: Final = 32 << 10
"""Raw bytes that one request may hold before they go to the backlog."""
MAX_HEADER_BYTES: Final = 64 << 10


class Exchange:
    """A request in flight and, afterwards, how it ended. The attributes are written by `Connection` on every read."""

    __slots__ = (
        "_decoder",
        "_first_ns",
        "_framed",
        "_informational",
        "_last_ns",
        "_parser",
        "_pieces",
        "_stamps",
        "_taken",
        "complete",
        "ending",
        "feed",
        "held",
        "keep_alive",
        "on_end",
        "sample",
        "stale",
        "stamp",
        "surplus",
    )  # fmt: skip

    def __init__(self, sample: Sample, decoder: Decoder, on_end: Callable[[Exchange], None]) -> None:
        self.sample = sample
        self.on_end = on_end
        self.stamp = 0
        """When the read that is being fed arrived."""
        self.held = 0
        """Bytes read since the last batch was taken."""
        self.complete = False
        self.keep_alive = False
        self.surplus = False
        """Another message began after the complete one: the connection cannot be trusted any more."""
        self.stale = False
        """Sent on a kept-alive connection that the server was closing; it has to be sent again, on a fresh one."""
        self.ending: tuple[str, str | None] | None = None
        """(outcome, message) as far as the transport knows, once the exchange has ended."""
        self._first_ns = self._last_ns = self._taken = 0
        self._stamps: array[int] = array("q")
        self._pieces: list[bytes] = []
        self._decoder = decoder
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

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 -- the parser is what calls this
        status = self._parser.get_status_code()
        self._informational = 100 <= status < 200  # 100 Continue and its like: the real response follows
        if not self._informational and not self.complete:
            self.sample.status_code = status
            self.sample.headers_ns = self.stamp

    def on_body(self, body: bytes) -> None:
        self._stamps.append(self.stamp)
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._informational:
            self._framed = False
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
            # Parser and exchange refer to each other, and the garbage collector is off while measuring.
            self._parser = None
            self.feed = _ignore

    def take(self) -> Batch:
        """Hand over what has been received since the last time."""
        if self._stamps:
            self._first_ns = self._first_ns or self._stamps[0]
            self._last_ns = self._stamps[-1]
            self._taken += len(self._stamps)
        batch = Batch(self, self._stamps, self._pieces, self.held, final=self.ending is not None)
        self._stamps, self._pieces, self.held = array("q"), [], 0
        return batch

    def decode(self, batch: Batch) -> Iterator[None]:
        """Decode one batch, an event at a time; after the final one, settle the outcome."""
        yield from self._decoder.steps(batch.stamps, batch.pieces)
        if batch.final:
            self._settle()

    @property
    def pace_s(self) -> tuple[float, float] | None:
        """(to the first piece of body, from piece to piece) in s, of what has been taken: for eyes, before anything is decoded."""
        if self._taken < 2:
            return None
        return (self._first_ns - self.sample.sent_ns) / 1e9, (self._last_ns - self._first_ns) / (self._taken - 1) / 1e9

    @property
    def nonsense(self) -> str | None:
        """Why there is no point in reading on, if what has been decoded so far was not a stream of events."""
        failure = self._decoder.failure
        return failure[1] if failure is not None and failure[0] == outcomes.MALFORMED else None

    @property
    def failed(self) -> bool:
        """As far as the transport knows."""
        return self.sample.status_code != 200 or self.ending is None or self.ending[0] != outcomes.OK

    def _settle(self) -> None:
        """What was heard first counts: a status other than 200, then what the stream said, then how the transport ended."""
        assert self.ending is not None  # noqa: S101
        outcome, message = self.ending
        sample, decoder = self.sample, self._decoder
        decoder.finish(sample.end_ns, whole=outcome == outcomes.OK)
        if sample.status_code not in (None, 200):
            outcome, message = outcomes.HTTP_STATUS, f"HTTP {sample.status_code}: {decoder.excerpt}"
        elif decoder.failure is not None:
            outcome, message = decoder.failure
        elif outcome == outcomes.OK and self.until_close and not decoder.finished:
            outcome, message = outcomes.CUT, "the connection closed before the stream said that it was complete"
        elif outcome == outcomes.OK and not sample.event_ns:
            outcome, message = outcomes.EMPTY, f"complete, but without any output event: {decoder.excerpt}"
        sample.outcome, sample.error = outcome, message


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw pieces of one response with the stamps of their reads; size counts the bytes as they were on the wire."""

    exchange: Exchange
    stamps: array[int]
    pieces: list[bytes]
    size: int
    final: bool


def _ignore(data: bytes) -> None:
    """What feeds an exchange that has ended."""
