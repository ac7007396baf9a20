"""One lane of a load: a connection and the session it carries.

Sends the turns of a conversation in order and replaces a connection that the server has closed. Does not know: which session comes
next, or when (`dispatch` decides).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from time import monotonic_ns
from typing import Protocol, TypeAlias

from enginebench.loadgen import outcomes
from enginebench.loadgen.client import Client
from enginebench.loadgen.exchange import Exchange
from enginebench.loadgen.request import WireRequest
from enginebench.loadgen.transport.connection import Connection

Session: TypeAlias = Sequence[WireRequest]


class Dispatcher(Protocol):
    """The part of `Dispatch` that a lane uses."""

    @property
    def closing(self) -> bool: ...
    def ended(self, lane: Lane, now: int) -> None: ...
    def later(self, at_ns: int, action: Callable[[], None]) -> None: ...
    def spawn(self, work: Coroutine[None, None, None]) -> None: ...


class Lane:
    """A connection with at most one session at a time."""

    __slots__ = ("_client", "_connection", "_dispatch", "_replies", "_turns", "in_flight", "request", "succeeded")

    def __init__(self, dispatch: Dispatcher, client: Client) -> None:
        self._dispatch = dispatch
        self._client = client
        self._connection: Connection | None = None
        self.request: WireRequest | None = None
        """The last one that it sent."""
        self.succeeded = False
        """That one was answered."""
        self._turns: Iterator[WireRequest] = iter(())
        self._replies: list[bytes] = []
        self.in_flight = False
        """A request is sent or about to be sent."""

    @property
    def usable(self) -> bool:
        return self._connection is not None and self._connection.usable

    async def open(self) -> None:
        with contextlib.suppress(OSError):
            self._connection = await self._client.connect()

    def close(self) -> None:
        if self._connection is not None:
            self._client.drop(self._connection)
            self._connection = None

    def begin(self, session: Session, due_ns: int) -> None:
        self._turns = iter(session)
        self._replies.clear()
        self._send(next(self._turns), due_ns)

    def _send(self, request: WireRequest, due_ns: int) -> None:
        self.request = request
        self.in_flight = True
        if self._connection is not None and self._connection.usable:
            self._client.send(self._connection, request, self._replies, due_ns, self._ended)
        else:
            self._dispatch.spawn(self._reconnect(request, due_ns))

    def _ended(self, exchange: Exchange) -> None:
        sample = exchange.sample
        if exchange.stale and self.request is not None and self._client.stopped is None:
            self._dispatch.spawn(self._reconnect(self.request, sample.due_ns))
            return
        self.in_flight = False
        follower, self.succeeded = next(self._turns, None), sample.outcome in outcomes.WANTED
        if follower is None or not self.succeeded or self._dispatch.closing:  # a turn needs the text of the one before
            self._dispatch.ended(self, sample.end_ns)
            return
        self._replies.append(exchange.escaped_answer)
        due_ns = sample.end_ns + follower.think_ns
        if follower.think_ns:
            self._dispatch.later(due_ns, partial(self._send, follower, due_ns))
        else:
            self._send(follower, due_ns)

    async def _reconnect(self, request: WireRequest, due_ns: int) -> None:
        self.close()
        try:
            self._connection = await self._client.connect()
        except OSError as error:
            self._unreachable(request, due_ns, outcomes.CONNECT, f"{type(error).__name__}: {error}", late=isinstance(error, TimeoutError))
        except asyncio.CancelledError:
            self._client.unreachable(request, due_ns, outcomes.CANCELLED, self._client.stopped or "cancelled")
            raise
        else:
            self._client.reconnects += 1
            if self._client.stopped is None:
                self._client.send(self._connection, request, self._replies, due_ns, self._ended)
            else:
                self._unreachable(request, due_ns, outcomes.CANCELLED, self._client.stopped)

    def _unreachable(self, request: WireRequest, due_ns: int, outcome: str, message: str, *, late: bool = False) -> None:
        self._client.unreachable(request, due_ns, outcome, message, late=late)
        self.in_flight = self.succeeded = False
        self._dispatch.ended(self, monotonic_ns())
