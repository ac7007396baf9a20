"""What the load generator knows of itself: whether the client, and not the server, may have shaped the numbers.

Does not know: what is acceptable. It measures; the validity rules judge.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from enginebench.nouns import Sample

_PERIOD_NS: Final = 5_000_000


@dataclass(frozen=True)
class ClientHealth:
    """The client's own condition in the measured window.

    lag_*_ms: lateness of a 5 ms timer, that is, how long a token that arrives at a random moment waits for its time stamp.
    cpu_fraction: processor time of this process / wall time; near 1.0 the client is the bottleneck.
    schedule_delay_*_ms: sent - due, of requests that were sent. achieved_concurrency: time-weighted mean of requests in flight.
    reads: socket reads that carried data. reconnects: connections opened inside the window. stale: requests sent again because the
    server had closed a connection that it had promised to keep. loop: 'uvloop' or 'asyncio'.
    """

    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    cpu_fraction: float
    schedule_delay_p50_ms: float
    schedule_delay_p99_ms: float
    schedule_delay_max_ms: float
    achieved_concurrency: float
    reads: int
    reconnects: int
    stale: int
    loop: str


class SelfWatch:
    """Watches the client from `start` to `stop`, on the running event loop."""

    def __init__(self) -> None:
        self._lag = LagProbe()
        self._start_ns = self._cpu_ns = self._wall_ns = 0

    def start(self) -> None:
        self._start_ns = time.monotonic_ns()
        self._cpu_ns = time.process_time_ns()
        self._lag.start()

    def stop(self) -> None:
        if not self._start_ns:
            return
        self._lag.stop()
        self._cpu_ns = time.process_time_ns() - self._cpu_ns
        self._wall_ns = time.monotonic_ns() - self._start_ns

    def report(self, samples: Sequence[Sample], window_ns: int, *, reads: int, reconnects: int, stale: int, loop: str) -> ClientHealth:
        """The figures, after `stop`."""
        lag = sorted(self._lag.late_ns)
        delay = sorted(s.sent_ns - s.due_ns for s in samples if s.sent_ns)
        busy_ns = sum(s.end_ns - s.sent_ns for s in samples if s.sent_ns)
        return ClientHealth(
            lag_p50_ms=_quantile_ms(lag, 0.50),
            lag_p99_ms=_quantile_ms(lag, 0.99),
            lag_max_ms=_quantile_ms(lag, 1.0),
            cpu_fraction=self._cpu_ns / max(1, self._wall_ns),
            schedule_delay_p50_ms=_quantile_ms(delay, 0.50),
            schedule_delay_p99_ms=_quantile_ms(delay, 0.99),
            schedule_delay_max_ms=_quantile_ms(delay, 1.0),
            achieved_concurrency=busy_ns / max(1, window_ns),
            reads=reads,
            reconnects=reconnects,
            stale=stale,
            loop=loop,
        )


class LagProbe:
    """Lateness of a periodic timer, in nanoseconds, against an absolute grid.

    On Linux the timer is a timerfd: event-loop timers count in whole milliseconds, which would hide exactly the tenths that
    matter here. A blocked loop misses several expiries; each is recorded with its own lateness, as otherwise one long stall
    would count as a single sample (coordinated omission, in the probe itself).
    """

    def __init__(self) -> None:
        self.late_ns: array[int] = array("q")
        self._fd = -1
        self._next_ns = 0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._next_ns = time.monotonic_ns() + _PERIOD_NS
        self._fd = _timerfd(self._next_ns, _PERIOD_NS)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._expired)
        else:
            self._rearm()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        now = time.monotonic_ns()
        os.read(self._fd, 8)
        while self._next_ns <= now:
            self.late_ns.append(now - self._next_ns)
            self._next_ns += _PERIOD_NS

    def _rearm(self) -> None:
        """Without timerfd: the loop's own timer, good to a millisecond."""
        now = time.monotonic_ns()
        while self._next_ns <= now:
            self.late_ns.append(now - self._next_ns)
            self._next_ns += _PERIOD_NS
        self._handle = asyncio.get_running_loop().call_later((self._next_ns - now) / 1e9, self._rearm)


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


def _timerfd(first_ns: int, period_ns: int) -> int:
    """A non-blocking timerfd on CLOCK_MONOTONIC, or -1 where there is none. (os.timerfd_create comes with Python 3.13.)"""
    if not sys.platform.startswith("linux"):
        return -1
    absolute = 1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, AttributeError):
        return -1
    spec = _Itimerspec(*divmod(period_ns, 1_000_000_000), *divmod(first_ns, 1_000_000_000))
    if fd >= 0 and libc.timerfd_settime(fd, absolute, ctypes.byref(spec), None) != 0:
        os.close(fd)
        return -1
    return fd


def _quantile_ms(ordered_ns: Sequence[int], q: float) -> float:
    """Nearest rank of a sorted sequence, in milliseconds; 0.0 of nothing."""
    if not ordered_ns:
        return 0.0
    return ordered_ns[max(0, math.ceil(q * len(ordered_ns)) - 1)] / 1e6
