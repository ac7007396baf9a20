"""Decodes what has been received, at the moments when that delays no other stream.

Does not know: HTTP, or what an event means. Three rules, by the number of raw bytes that wait:
up to IDLE_BYTES nothing is decoded inside the window at all; beyond, slices of SLICE_NS run whenever a poll of the sockets came
back empty; beyond FULL_BYTES a slice runs after every poll, because a client that runs out of memory measures nothing either.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Final

from enginebench.loadgen.exchange import Batch, Exchange

IDLE_BYTES: Final = 16 << 20
FULL_BYTES: Final = 64 << 20
SLICE_NS: Final = 50_000


class Backlog:
    """First in, first out. `reads` tells how many socket reads there have been; it is how idleness is noticed."""

    def __init__(self, reads: Callable[[], int]) -> None:
        self._reads = reads
        self._seen = 0
        self._waiting: deque[Batch] = deque()
        self._bytes = 0
        self._current: Iterator[None] | None = None
        self._size = 0
        self._armed: asyncio.Handle | None = None

    def add(self, exchange: Exchange) -> None:
        """Take over the raw bytes that the exchange holds; the final batch of an ended exchange settles its outcome."""
        batch = exchange.take()
        self._waiting.append(batch)
        self._bytes += batch.size
        if self._bytes > IDLE_BYTES and self._armed is None:
            self._armed = asyncio.get_running_loop().call_soon(self._turn)

    def drain(self) -> None:
        """Decode everything, now: after the window."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        self._work(sys.maxsize)

    def _turn(self) -> None:
        """One turn of the event loop. call_soon brings us back after exactly one poll of the sockets."""
        reads = self._reads()
        idle = reads == self._seen
        self._seen = reads
        if idle or self._bytes > FULL_BYTES:
            self._work(monotonic_ns() + SLICE_NS)
        # Once begun, go on down to half of IDLE_BYTES, so as not to start and stop at every batch.
        again = self._bytes > IDLE_BYTES // 2
        self._armed = asyncio.get_running_loop().call_soon(self._turn) if again else None

    def _work(self, deadline_ns: int) -> None:
        """Decode until the deadline, or until nothing is left."""
        while self._current is not None or self._waiting:
            if self._current is None:
                batch = self._waiting.popleft()
                self._current, self._size = batch.exchange.decode(batch), batch.size
            for _ in self._current:
                if monotonic_ns() >= deadline_ns:
                    return
            self._current = None
            self._bytes -= self._size
