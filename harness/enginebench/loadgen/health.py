"""What the load generator knows of itself: whether the client, and not the server, may have shaped the numbers.

Does not know: what is acceptable. It measures; the validity rules judge.
"""

from __future__ import annotations

import math
import time
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import eq
from typing import Final, Literal, TypeAlias

from enginebench.domain import Sample
from enginebench.loadgen.timer import AbsoluteTimer

_PERIOD_NS: Final = 5_000_000


Stamps: TypeAlias = Literal["kernel", "loop"]
"""Whose time a token gets: of its arrival in the kernel, or of the event loop's read."""

Acks: TypeAlias = Literal["usual", "probe", "delayed"]
"""When what was read is acknowledged: as the kernel does it; later, to see whether the server sends on meanwhile; or later, as it does."""


@dataclass(frozen=True)
class Vitals:
    """What one client process measured of itself while the window was open. See `ClientHealth` for the fields."""

    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    cpu_s: float
    wall_s: float
    reconnects: int
    stale: int
    loop: str
    stamps: Stamps
    unstamped: int
    acks: Acks
    sends_on: bool


@dataclass(frozen=True)
class ClientHealth:
    """The client's own condition in the measured window. With several processes, lag and processor share are the worst one's.

    lag_*_ms: how long tokens waited until they were read. With the kernel's stamps it is seen for each read (to an eighth); else it is the
    lateness of a 5 ms timer, which is what a token that arrives at a random moment waits.
    stamps: whose time a token has, 'kernel' (of its arrival, however late it is read) or 'loop' (of the read). unstamped: reads that the
    kernel should have stamped and did not; they have the time of the read.
    acks: 'delayed' where reads were acknowledged later than is usual, because the server had been seen to send on meanwhile.
    cpu_fraction: processor time of a process / wall time; near 1.0 the client is the bottleneck. cpu_s: of all processes.
    schedule_delay_*_ms: sent - due, of requests that were sent. achieved_concurrency: time-weighted mean of requests in flight while
    there was something to send: in a closed loop from when its last stream has started until its last request is sent.
    wanted_rate, achieved_rate: requests/s as due and as sent, of an open loop; else None. shared_stamps: output events without an
    arrival time of their own, because one read brought several. reconnects: connections opened inside the
    window. stale: requests sent again because the server had closed a connection that it had promised to keep.
    loop: 'uvloop' or 'asyncio'. processes: how many shared the load.
    """

    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    cpu_fraction: float
    schedule_delay_p50_ms: float
    schedule_delay_p99_ms: float
    schedule_delay_max_ms: float
    achieved_concurrency: float
    reconnects: int
    stale: int
    loop: str
    stamps: Stamps = "loop"
    unstamped: int = 0
    acks: Acks = "usual"
    cpu_s: float = 0.0
    wanted_rate: float | None = None
    achieved_rate: float | None = None
    shared_stamps: int = 0
    processes: int = 1


def health_of(samples: Sequence[Sample], streams: int, vitals: Sequence[Vitals], *, scheduled: bool) -> ClientHealth:
    """The client's condition from its processes' vitals and all samples. streams: most requests in flight; 0: no limit. scheduled:
    the requests had due times of their own."""
    sent = [s for s in samples if s.sent_ns]
    delay = sorted(s.sent_ns - s.due_ns for s in sent)
    openers = [s for s in samples if s.turn == 0]
    return ClientHealth(
        lag_p50_ms=max(v.lag_p50_ms for v in vitals),
        lag_p99_ms=max(v.lag_p99_ms for v in vitals),
        lag_max_ms=max(v.lag_max_ms for v in vitals),
        cpu_fraction=max(v.cpu_s / max(1e-9, v.wall_s) for v in vitals),
        schedule_delay_p50_ms=_quantile_ms(delay, 0.50),
        schedule_delay_p99_ms=_quantile_ms(delay, 0.99),
        schedule_delay_max_ms=_quantile_ms(delay, 1.0),
        achieved_concurrency=_in_flight(sent, 0 if scheduled else streams),
        reconnects=sum(v.reconnects for v in vitals),
        stale=sum(v.stale for v in vitals),
        loop=vitals[0].loop,
        stamps="kernel" if all(v.stamps == "kernel" for v in vitals) else "loop",
        unstamped=sum(v.unstamped for v in vitals),
        acks=vitals[0].acks,
        cpu_s=sum(v.cpu_s for v in vitals),
        wanted_rate=_rate(sorted(s.due_ns for s in openers)) if scheduled else None,
        achieved_rate=_rate(sorted(s.sent_ns for s in openers if s.sent_ns)) if scheduled else None,
        shared_stamps=sum(_repeats(s.event_ns) for s in sent),
        processes=len(vitals),
    )


def _in_flight(sent: Sequence[Sample], streams: int) -> float:
    """Mean number of requests in flight; streams > 0: without the time in which they started, and that in which they ran out."""
    starts, ends = sorted(s.sent_ns for s in sent), sorted(s.end_ns for s in sent)
    flying = [number - bisect_right(ends, start) for number, start in enumerate(starts, 1)] if streams else []
    full = flying.index(min(streams, max(flying))) if flying else 0
    if flying and starts[-1] > starts[full]:
        first_ns, last_ns = starts[full], starts[-1]
    else:
        first_ns, last_ns = (starts[0], max(s.end_ns for s in sent)) if sent else (0, 0)
    busy_ns = sum(max(0, min(s.end_ns, last_ns) - max(s.sent_ns, first_ns)) for s in sent)
    return busy_ns / max(1, last_ns - first_ns)


def _rate(times_ns: Sequence[int]) -> float | None:
    """Events per second of a sorted sequence; None below two."""
    span_ns = times_ns[-1] - times_ns[0] if times_ns else 0
    return (len(times_ns) - 1) / span_ns * 1e9 if span_ns else None


def _repeats(stamps: array[int]) -> int:
    """How many stamps equal the one before."""
    return sum(map(eq, stamps, islice(stamps, 1, None)))


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

    @property
    def lag_ms(self) -> tuple[float, float, float]:
        """How late the event loop was, in ms: p50, p99, most. This and what follows: after `stop`."""
        lag = sorted(self._lag.late_ns)
        return _quantile_ms(lag, 0.50), _quantile_ms(lag, 0.99), _quantile_ms(lag, 1.0)

    @property
    def cpu_s(self) -> float:
        """Processor time of this process."""
        return self._cpu_ns / 1e9

    @property
    def wall_s(self) -> float:
        """From start to stop."""
        return self._wall_ns / 1e9


class LagProbe:
    """Lateness of a periodic timer, in nanoseconds, against an absolute grid.

    A blocked loop misses several expiries; each is recorded with its own lateness, as otherwise one long stall would count as a
    single sample (coordinated omission, in the probe itself).
    """

    def __init__(self) -> None:
        self.late_ns: array[int] = array("q")
        self._next_ns = 0
        self._timer: AbsoluteTimer | None = None

    def start(self) -> None:
        self._next_ns = time.monotonic_ns() + _PERIOD_NS
        self._timer = AbsoluteTimer(self._expired)
        self._timer.set(self._next_ns, _PERIOD_NS)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.close()

    def _expired(self) -> None:
        now = time.monotonic_ns()
        while self._next_ns <= now:
            self.late_ns.append(now - self._next_ns)
            self._next_ns += _PERIOD_NS
        if self._timer is not None and not self._timer.periodic:
            self._timer.set(self._next_ns)


def _quantile_ms(ordered_ns: Sequence[int], q: float) -> float:
    """Nearest rank of a sorted sequence, in milliseconds; 0.0 of nothing."""
    if not ordered_ns:
        return 0.0
    return ordered_ns[max(0, math.ceil(q * len(ordered_ns)) - 1)] / 1e6
