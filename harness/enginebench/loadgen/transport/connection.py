"""One HTTP/1.1 connection, one request at a time.

Its transport is a `receiver`'s, which brings the kernel's stamp of every read and has recognised the usual events already; or it is the
event loop's, and then `data_received` stamps a read before anything else looks at it, and recognises them here.

Does not know: which request comes next, or when. Whoever owns it sends an `Exchange` when the connection is `usable` and is
told through the exchange's on_end when that has ended, in whatever way.
"""

from __future__ import annotations

import asyncio
import socket
from array import array
from time import monotonic_ns
from typing import Final, Protocol, cast

import httptools

from enginebench.loadgen import outcomes
from enginebench.loadgen.exchange import Exchange
from enginebench.loadgen.transport.receiver import Transport

_EVENT_END: Final = b"\n\r\n"
"""Of an event that is a chunk of its own. Where it is something else nothing is lost: a read may be divided anywhere."""
_LONG: Final = 4096
"""Bytes of an event, more than which are not left waiting: so many streams may have so many of them."""
_CROSSING_NS: Final = 100_000_000
"""A connection that closes later than this after a request was sent was not closed before the server had it."""


class Owner(Protocol):
    """What a connection tells its client."""

    reuse: bool
    """Whether a connection may carry another request after a complete response."""

    def ended(self, exchange: Exchange) -> None:
        """The exchange has its ending."""
        ...


class Connection(asyncio.Protocol):
    """A connection that stays open from one request to the next for as long as the server allows."""

    __slots__ = ("_exchange", "_owner", "_recogniser", "_served", "_transport", "usable")

    def __init__(self, owner: Owner) -> None:
        self._owner: Final = owner
        self._transport: asyncio.Transport | None = None
        self._recogniser: Transport | None = None
        self._exchange: Exchange | None = None
        self._served = 0
        self.usable = False
        """Open, idle and in step with the server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        if isinstance(transport, Transport):
            self._recogniser = transport
        else:
            # No user-space buffering: older uvloops otherwise keep a small write until the end of the loop's turn, which would
            # put the other streams' reads between sent_ns and the wire.
            transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.usable = True

    def send(self, exchange: Exchange, message: bytes) -> None:
        """Put one request on the wire. Only while `usable`."""
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
        """Events of the present exchange, from a receiver."""
        if self._exchange is not None:
            self._exchange.recognised(stamps, lengths, texts)

    def received(self, stamp: int, data: bytes) -> None:
        """A read that is no event like those before it."""
        exchange = self._exchange
        if exchange is None:  # bytes that nobody asked for: whatever they are, the next answer could not be told from them
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
        """End the exchange if what came so far makes no sense: no use in reading on until the time-out."""
        exchange = self._exchange
        if exchange is not None and (reason := exchange.nonsense) is not None:
            self.fail(exchange, outcomes.MALFORMED, reason, stamp)

    def connection_lost(self, exc: Exception | None) -> None:
        now = monotonic_ns()
        self.usable = False
        exchange = self._exchange
        self._transport = self._recogniser = None
        if exchange is None:
            return
        if exchange.until_close and exc is None:
            self._finish(exchange, outcomes.OK, None, now)  # accepted only if the stream says that it is complete
        else:
            # llama.cpp's server, for one, promises keep-alive and closes after every streamed response: our next request and
            # its close cross on the wire. Nothing of the request was read, so sending it again repeats nothing.
            closed_unheard = self._served > 0 and not exchange.heard
            exchange.stale = closed_unheard and now - exchange.sample.sent_ns < _CROSSING_NS
            self._owner.reuse = self._owner.reuse and not closed_unheard
            heard = "mid-response" if exchange.heard else "before any byte of the response"
            reason = f": {exc}" if exc is not None else ""
            self._finish(exchange, outcomes.CUT, f"connection closed {heard}{reason}", now)

    def fail(self, exchange: Exchange, outcome: str, message: str, now: int) -> None:
        """End the exchange from our side; the connection goes with it."""
        self.abort()
        self._finish(exchange, outcome, message, now)

    def abort(self) -> None:
        """Close at once, without sending what may still be unsent."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    @property
    def exchange(self) -> Exchange | None:
        return self._exchange

    @property
    def closed(self) -> bool:
        """The transport is gone."""
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
            message = "the server wants to switch protocols"
        else:
            message = f"not HTTP: {error}"
        self.fail(exchange, outcomes.MALFORMED, message, stamp)

    def _finish(self, exchange: Exchange, outcome: str, message: str | None, now: int) -> None:
        if self._recogniser is not None:
            self._recogniser.expect(None)
        self._exchange = None
        exchange.end(outcome, message, now)
        self._owner.ended(exchange)


def _read_between(recogniser: Transport, exchange: Exchange, stamp: int, data: bytes) -> None:
    """Read what was not recognised up to the last whole event, and hand back the start of the next one, so that the rest of it may be."""
    cut = data.rfind(_EVENT_END) + len(_EVENT_END) if _EVENT_END in data else len(data)
    exchange.read(stamp, data[:cut])
    if exchange.complete or not recogniser.expect(exchange.pattern, data[cut:]):
        exchange.read(stamp, data[cut:])
        recogniser.expect(exchange.pattern)
