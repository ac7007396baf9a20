"""Measures the load generator itself, so that validity checks can decide whether the client affected the results.

Does not know: which values are acceptable.
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
"""Source of time stamps: arrival in the kernel, or the event loop's read."""

Acks: TypeAlias = Literal["usual", "probe", "delayed"]
"""When received data are acknowledged: as the kernel does by default; delayed on some connections, to find out whether the server sends
without waiting for acknowledgements; or delayed on all."""


@dataclass(frozen=True)
class Vitals:
    """Measurements of one client process during the window. See `ClientHealth` for the fields."""

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
    server_nodelay: bool


@dataclass(frozen=True)
class ClientHealth:
    """Condition of the client in the measured window. With several processes, lag and CPU fraction are those of the worst one."""

    lag_p50_ms: float
    """Client lag: how long data waited until the client read them. With kernel time stamps, measured for each read (to 1/8 of its
    value); else the lateness of a 5 ms timer."""
    lag_p99_ms: float
    lag_max_ms: float
    cpu_fraction: float
    """CPU time of a process / wall time; near 1.0 the client is the bottleneck."""
    schedule_delay_p50_ms: float
    """sent - due, over all sent requests."""
    schedule_delay_p99_ms: float
    schedule_delay_max_ms: float
    achieved_concurrency: float
    """Time-weighted mean of requests in flight; in a closed loop, from the start of its last stream until its last request is sent."""
    reconnects: int
    """Connections opened inside the window."""
    stale: int
    """Requests sent again because the server closed a keep-alive connection."""
    loop: str
    """'uvloop' or 'asyncio'."""
    stamps: Stamps = "loop"
    unstamped: int = 0
    """Reads without a kernel time stamp although these were enabled; they have the time of the read."""
    acks: Acks = "usual"
    """'delayed' if acknowledgements were delayed because the server does not wait for them."""
    cpu_s: float = 0.0
    """CPU time of all processes."""
    wanted_rate: float | None = None
    """Scheduled requests/s of an open loop; else None."""
    achieved_rate: float | None = None
    """Sent requests/s of an open loop; else None."""
    shared_stamps: int = 0
    """Output events that share a time stamp with the previous one, because one read brought both."""
    processes: int = 1
    """Number of client processes."""


def health_of(samples: Sequence[Sample], streams: int, vitals: Sequence[Vitals], *, scheduled: bool) -> ClientHealth:
    """Combine the vitals of all client processes with the samples.

    streams: most requests in flight; 0: no limit. scheduled: the requests have due times (open loop).
    """
    sent = [s for s in samples if s.sent_ns]
    delay = sorted(s.sent_ns - s.due_ns for s in sent)
    first_turns = [s for s in samples if s.turn == 0]
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
        wanted_rate=_rate(sorted(s.due_ns for s in first_turns)) if scheduled else None,
        achieved_rate=_rate(sorted(s.sent_ns for s in first_turns if s.sent_ns)) if scheduled else None,
        shared_stamps=sum(_repeats(s.event_ns) for s in sent),
        processes=len(vitals),
    )


def _in_flight(sent: Sequence[Sample], streams: int) -> float:
    """Mean number of requests in flight; streams > 0: without the ramp-up and the drain at the end."""
    starts, ends = sorted(s.sent_ns for s in sent), sorted(s.end_ns for s in sent)
    in_flight = [number - bisect_right(ends, start) for number, start in enumerate(starts, 1)] if streams else []
    full = in_flight.index(min(streams, max(in_flight))) if in_flight else 0
    if in_flight and starts[-1] > starts[full]:
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
    """Measures lag and CPU time of the client from `start` to `stop`, on the running event loop."""

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
        """Lag of the event loop in ms (p50, p99, max). Valid after `stop`, as are `cpu_s` and `wall_s`."""
        lag = sorted(self._lag.late_ns)
        return _quantile_ms(lag, 0.50), _quantile_ms(lag, 0.99), _quantile_ms(lag, 1.0)

    @property
    def cpu_s(self) -> float:
        """CPU time of this process."""
        return self._cpu_ns / 1e9

    @property
    def wall_s(self) -> float:
        """From start to stop."""
        return self._wall_ns / 1e9


class LagProbe:
    """Lateness of a periodic timer against an absolute grid, in ns.

    A blocked loop misses several expiries. Each is recorded with its own lateness; otherwise a long stall would count as one sample
    (coordinated omission in the probe itself).
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
    """Nearest-rank quantile of a sorted sequence, in ms; 0.0 if it is empty."""
    if not ordered_ns:
        return 0.0
    return ordered_ns[max(0, math.ceil(q * len(ordered_ns)) - 1)] / 1e6
