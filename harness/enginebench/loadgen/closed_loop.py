"""The closed-loop arrival process: a constant number of requests in flight, the next one sent the moment one ends.

Does not know: sockets, streams, metrics. A closed loop waits for a slow server and so cannot show what queueing would do to
users; its schedule delay (sent - due, due being the end of the slot's previous request) is the client's own turnaround.
An open loop will differ in this file only: due times from an absolute schedule instead of from the previous end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from time import monotonic_ns
from typing import Final

from enginebench.loadgen import outcomes
from enginebench.loadgen.client import Client
from enginebench.loadgen.connection import Connection
from enginebench.loadgen.exchange import Exchange
from enginebench.loadgen.request import WireRequest

_CONNECTS_AT_ONCE: Final = 64
"""Below the usual accept backlog of 128: an overflow would cost a SYN retransmission, one second."""
START_SPACING_NS: Final = 40_000
"""Between the first requests of two slots. All at the same instant, they would deafen the client while it sends, and the tokens
of a server with an even pace would for ever arrive in one bunch, each stamp waiting for those before it."""


class ClosedLoop:
    """Keeps `concurrency` requests in flight until every request has been sent and has ended."""

    def __init__(self, client: Client) -> None:
        self._client: Final = client
        self._requests: Iterator[WireRequest] = iter(client.spec.requests)
        self._slots = [_Slot(self, client) for _ in range(min(client.spec.concurrency, len(client.spec.requests)))]
        self._active = 0
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open every connection before the window. One that fails is tried again by the first request that needs it."""
        for first in range(0, len(self._slots), _CONNECTS_AT_ONCE):
            await asyncio.gather(*(slot.open() for slot in self._slots[first : first + _CONNECTS_AT_ONCE]))

    async def run(self) -> None:
        """Send everything; returns when the last request has ended, or when the client has stopped."""
        self._client.begin(self._stopped)
        self._active = len(self._slots)
        try:
            start_ns = monotonic_ns()
            for number, slot in enumerate(self._slots):
                due_ns = start_ns + number * START_SPACING_NS
                # Timers are too coarse for 40 us; sleep(0) serves the sockets meanwhile.
                while monotonic_ns() < due_ns:  # noqa: ASYNC110 -- waiting for a time, not for an event
                    await asyncio.sleep(0)
                slot.next(due_ns)
            if self._slots:
                await self._finished
        except asyncio.CancelledError:
            self._client.stop("interrupted")
            raise
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def unsent(self) -> int:
        """Requests that were never tried. Only after `run`."""
        return sum(1 for _ in self._requests)

    # -- for the slots ---------------------------------------------------------------------------------------------------

    def take(self) -> WireRequest | None:
        """The next request; None when there is none, or the client has stopped."""
        return None if self._client.stopped is not None else next(self._requests, None)

    def retire(self) -> None:
        """A slot has found nothing more to do."""
        self._active -= 1
        if self._active == 0 and not self._finished.done():
            self._finished.set_result(None)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something that has to wait; the task is held until it ends, as the event loop alone would let it be collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._client.stop("a bug in the load generator", error)

    def _stopped(self, error: BaseException | None) -> None:
        if self._finished.done():
            return
        if error is None:
            self._finished.set_result(None)
        else:
            self._finished.set_exception(error)


class _Slot:
    """One place in the loop: a connection, and at most one request in flight on it."""

    __slots__ = ("_client", "_connection", "_loop", "_request")

    def __init__(self, loop: ClosedLoop, client: Client) -> None:
        self._loop = loop
        self._client = client
        self._connection: Connection | None = None
        self._request: WireRequest | None = None

    async def open(self) -> None:
        with contextlib.suppress(OSError):
            self._connection = await self._client.connect()

    def next(self, due_ns: int) -> None:
        """Send the next request now, or as soon as there is a connection for it."""
        self._request = request = self._loop.take()
        if request is None:
            self._loop.retire()
        elif self._connection is not None and self._connection.usable:
            self._client.send(self._connection, request, due_ns, self._ended)
        else:
            self._loop.spawn(self._reconnect(request, due_ns))

    def _ended(self, exchange: Exchange) -> None:
        if exchange.stale and self._request is not None and self._client.stopped is None:
            self._loop.spawn(self._reconnect(self._request, exchange.sample.due_ns))
            return
        self.next(exchange.sample.end_ns)

    async def _reconnect(self, request: WireRequest, due_ns: int) -> None:
        if self._connection is not None:
            self._client.drop(self._connection)
            self._connection = None
        try:
            self._connection = await self._client.connect()
        except OSError as error:
            self._client.unreachable(request, due_ns, outcomes.CONNECT, f"{type(error).__name__}: {error}")
            self.next(monotonic_ns())
        except asyncio.CancelledError:
            self._client.unreachable(request, due_ns, outcomes.CANCELLED, self._client.stopped or "cancelled")
            raise
        else:
            self._client.reconnects += 1
            if self._client.stopped is None:
                self._client.send(self._connection, request, due_ns, self._ended)
            else:
                self._client.unreachable(request, due_ns, outcomes.CANCELLED, self._client.stopped)
