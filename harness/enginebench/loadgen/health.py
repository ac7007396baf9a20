"""Measures the load generator itself, so that validity checks can decide whether the client affected the results.

Does not know: which values are acceptable.
"""

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

    lag_ms: tuple[float, float, float]
    """p50, p99, max."""
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
    """99th percentile of the same."""
    lag_max_ms: float
    """The longest wait."""
    cpu_fraction: float
    """CPU time of a process / wall time; near 1.0 the client is the bottleneck."""
    schedule_delay_p50_ms: float
    """sent - due, over all sent requests."""
    schedule_delay_p99_ms: float
    """99th percentile of the same."""
    schedule_delay_max_ms: float
    """Delay of the latest request."""
    achieved_concurrency: float
    """Time-weighted mean of requests in flight; in a closed loop, from the start of its last stream until its last request is sent."""
    reconnects: int
    """Connections opened inside the window."""
    stale: int
    """Requests sent again because the server closed a keep-alive connection."""
    loop: str
    """'uvloop' or 'asyncio'."""
    stamps: Stamps = "loop"
    """Where times of arrival come from."""
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
    first_turns = [s for s in samples if s.turn == 0]
    lag = [max(values) for values in zip(*(v.lag_ms for v in vitals), strict=True)]
    delay = _quantiles_ms([s.sent_ns - s.due_ns for s in sent])
    return ClientHealth(
        lag_p50_ms=lag[0],
        lag_p99_ms=lag[1],
        lag_max_ms=lag[2],
        cpu_fraction=max(v.cpu_s / max(1e-9, v.wall_s) for v in vitals),
        schedule_delay_p50_ms=delay[0],
        schedule_delay_p99_ms=delay[1],
        schedule_delay_max_ms=delay[2],
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
        shared_stamps=sum(sum(map(eq, s.event_ns, islice(s.event_ns, 1, None))) for s in sent),
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


class SelfWatch:
    """Measures lag and CPU time of this process from `start` to `stop`, on the running event loop.

    Lag is the lateness of a periodic timer against an absolute grid. A blocked loop misses several expiries. Each is recorded with its own
    lateness; otherwise a long stall would count as one sample (coordinated omission in the probe itself).
    """

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        """Between start and stop."""
        self._late_ns: array[int] = array("q")
        self._began_ns = self._next_ns = 0
        self._timer: AbsoluteTimer | None = None

    def start(self) -> None:
        self._began_ns, self._cpu_ns = time.monotonic_ns(), time.process_time_ns()
        self._next_ns = self._began_ns + _PERIOD_NS
        self._timer = AbsoluteTimer(self._expired)
        self._timer.set(self._next_ns, _PERIOD_NS)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self.cpu_s = (time.process_time_ns() - self._cpu_ns) / 1e9
            self.wall_s = (time.monotonic_ns() - self._began_ns) / 1e9

    @property
    def lag_ms(self) -> tuple[float, float, float]:
        return _quantiles_ms(self._late_ns)

    def _expired(self) -> None:
        now = time.monotonic_ns()
        while self._next_ns <= now:
            self._late_ns.append(now - self._next_ns)
            self._next_ns += _PERIOD_NS
        if self._timer is not None and not self._timer.periodic:
            self._timer.set(self._next_ns)


def _quantiles_ms(values_ns: Sequence[int]) -> tuple[float, float, float]:
    """Nearest-rank p50, p99 and maximum in ms; 0.0 if there are no values."""
    ordered = sorted(values_ns) or [0]
    p50, p99 = (ordered[max(0, math.ceil(q * len(ordered)) - 1)] for q in (0.50, 0.99))
    return p50 / 1e6, p99 / 1e6, ordered[-1] / 1e6
