"""Decodes what has been received, so that memory stays bounded and no stream is delayed for longer than it must be.

Does not know: HTTP, or what an event means. The rule follows the raw bytes that wait. Up to QUIET_BYTES nothing is decoded
inside the window at all; most cells end there. Beyond, one slice runs every millisecond, and the slices grow with the backlog,
so that it settles where decoding keeps pace with receiving. Beyond FULL_BYTES (a flood) a slice runs in every turn of the loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from time import monotonic_ns
from typing import Final

from enginebench.loadgen.exchange import Batch, Exchange

QUIET_BYTES: Final = 32 << 20
FULL_BYTES: Final = 96 << 20
MIN_SLICE_NS: Final = 40_000
MAX_SLICE_NS: Final = 400_000
_PAUSE_S: Final = 0.001


class Backlog:
    """First in, first out."""

    def __init__(self) -> None:
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
        if self._bytes > QUIET_BYTES and self._armed is None:
            self._armed = asyncio.get_running_loop().call_soon(self._turn)

    def drain(self) -> None:
        """Decode everything, now: after the window."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        self._work(sys.maxsize)

    def _turn(self) -> None:
        """One slice."""
        fill = min(1.0, (self._bytes - QUIET_BYTES) / (FULL_BYTES - QUIET_BYTES))
        self._work(monotonic_ns() + MIN_SLICE_NS + int(fill * (MAX_SLICE_NS - MIN_SLICE_NS)))
        loop = asyncio.get_running_loop()
        if self._bytes > FULL_BYTES:
            self._armed = loop.call_soon(self._turn)
        elif self._bytes > QUIET_BYTES:
            self._armed = loop.call_later(_PAUSE_S, self._turn)
        else:
            self._armed = None

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
