"""One HTTP/1.1 connection with one request at a time.

Its transport belongs to a `receiver`, which delivers a kernel time stamp with every read and has already recognised the usual events, or
to the event loop; then `data_received` takes the time stamp first and recognises events itself. Does not know: which request comes next.
"""

from __future__ import annotations

import asyncio
import socket
from array import array
from time import monotonic_ns
from typing import Any, Final, Protocol, cast

import httptools

from enginebench.loadgen import outcomes
from enginebench.loadgen.exchange import Exchange

_EVENT_END: Final = b"\n\r\n"
"""End of an event that is a chunk of its own. A wrong guess is harmless: a read may be divided anywhere."""
_LONG: Final = 4096
"""An event longer than this many bytes is decoded at once; bounds memory with many streams."""
_CROSSING_NS: Final = 100_000_000
"""If a connection closes later than this after a request was sent, the server had received the request."""


_IDLE_NS: Final = 1_000_000_000
"""A server may close a connection that was open for so long without a request, as it may between two requests."""


class Owner(Protocol):
    reuse: bool
    """Whether a connection may carry another request after a complete response."""

    def ended(self, exchange: Exchange) -> None: ...


class Connection(asyncio.Protocol):
    """A connection that is reused for as long as the server allows."""

    __slots__ = ("_exchange", "_idle_since_ns", "_owner", "_recogniser", "_served", "_transport", "usable")

    def __init__(self, owner: Owner) -> None:
        self._owner: Final = owner
        self._transport: asyncio.Transport | None = None
        self._recogniser: Any = None
        """The transport, if it is a receiver's (`receiver.Transport`)."""
        self._exchange: Exchange | None = None
        self._served = 0
        self._idle_since_ns = 0
        """When it was opened; it may be long before the first request, if a load keeps connections ready."""
        self.usable = False
        """Open and idle: a request may be sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._idle_since_ns = monotonic_ns()
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's class has another base class
        if hasattr(transport, "expect"):
            self._recogniser = transport
        else:
            # No user-space buffering: older uvloops delay a small write until the end of the loop's iteration, so that reads of other
            # streams would come between sent_ns and the send.
            transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.usable = True

    def send(self, exchange: Exchange, message: bytes) -> None:
        """Send one request. Allowed only while `usable`."""
        assert self._transport is not None  # noqa: S101
        self.usable = False
        self._exchange = exchange
        exchange.sample.sent_ns = monotonic_ns()
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        stamp = monotonic_ns()
        exchange = self._exchange
        if exchange is not None and (pattern := exchange.pattern) is not None:  # nearly every read of a stream: see `Pattern.text`
            opening = pattern.openings[len(data)]
            text = data[len(opening) : pattern.end]
            if text and opening + text + pattern.closing == data:
                held = exchange.held
                held += (stamp, text)
                if len(held) > exchange.limit or len(data) > _LONG:
                    exchange.flush()
                    self.examine(stamp)
                return
        self.received(stamp, data)

    def recognised(self, stamps: array[int], lengths: array[int], texts: bytes) -> None:
        """Events that a receiver recognised: arrival of each (ns), bytes of each text, the texts concatenated."""
        if self._exchange is not None:
            self._exchange.recognised(stamps, lengths, texts)

    def received(self, stamp: int, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # unexpected bytes, which cannot be distinguished from the next response
            self.abort()
            return
        try:
            if self._recogniser is None:
                exchange.read(stamp, data)
            else:
                _read_between(self._recogniser, exchange, stamp, data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._broken(exchange, error, stamp)
            return
        if exchange.complete:
            self._completed(exchange, stamp)
        else:
            self.examine(stamp)

    def examine(self, stamp: int) -> None:
        """End the exchange at once if the response so far is malformed."""
        exchange = self._exchange
        if exchange is not None and (reason := exchange.malformed_reason) is not None:
            self.fail(exchange, outcomes.MALFORMED, reason, stamp)

    def connection_lost(self, exc: Exception | None) -> None:
        now = monotonic_ns()
        self.usable = False
        exchange = self._exchange
        self._transport = self._recogniser = None
        if exchange is None:
            return
        if exchange.until_close and exc is None:
            self._finish(exchange, outcomes.OK, None, now)  # accepted only if the stream ended explicitly
        else:
            # Some servers (llama.cpp's) announce keep-alive but close after every streamed response, or after 5 s without a request, so
            # that the next request and the close cross on the wire. The server has not read that request: it is safe to send it again.
            reused = self._served > 0 or exchange.sample.sent_ns - self._idle_since_ns > _IDLE_NS
            closed_early = reused and not exchange.last_read_ns
            exchange.stale = closed_early and now - exchange.sample.sent_ns < _CROSSING_NS
            self._owner.reuse = self._owner.reuse and not closed_early
            when = "mid-response" if exchange.last_read_ns else "before any byte of the response"
            reason = f": {exc}" if exc is not None else ""
            self._finish(exchange, outcomes.CUT, f"connection closed {when}{reason}", now)

    def fail(self, exchange: Exchange, outcome: str, message: str, now: int) -> None:
        """End the exchange from the client's side and close the connection."""
        self.abort()
        self._finish(exchange, outcome, message, now)

    def abort(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    @property
    def exchange(self) -> Exchange | None:
        return self._exchange

    @property
    def closed(self) -> bool:
        return self._transport is None

    def _completed(self, exchange: Exchange, stamp: int) -> None:
        if exchange.surplus:
            self.fail(exchange, outcomes.MALFORMED, "bytes after the end of the response", stamp)
            return
        self._served += 1
        self.usable = exchange.keep_alive and self._owner.reuse
        if not self.usable:
            self.abort()
        self._finish(exchange, outcomes.OK, None, stamp)

    def _broken(self, exchange: Exchange, error: Exception, stamp: int) -> None:
        if exchange.complete:
            message = "bytes after the end of the response"
        elif isinstance(error, httptools.HttpParserUpgrade):
            message = "the server asks to switch protocols"
        else:
            message = f"not HTTP: {error}"
        self.fail(exchange, outcomes.MALFORMED, message, stamp)

    def _finish(self, exchange: Exchange, outcome: str, message: str | None, now: int) -> None:
        if self._recogniser is not None:
            self._recogniser.expect(None)
        self._exchange = None
        exchange.end(outcome, message, now)
        self._owner.ended(exchange)


def _read_between(recogniser: Any, exchange: Exchange, stamp: int, data: bytes) -> None:
    """Read unrecognised data up to the last whole event. The start of the next event goes back to the receiver, so that it can recognise
    the event once it is complete."""
    cut = data.rfind(_EVENT_END) + len(_EVENT_END) if _EVENT_END in data else len(data)
    exchange.read(stamp, data[:cut])
    if exchange.complete or not recogniser.expect(exchange.pattern, data[cut:]):
        exchange.read(stamp, data[cut:])
        recogniser.expect(exchange.pattern)
