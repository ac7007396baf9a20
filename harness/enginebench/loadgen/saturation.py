"""Tells when an open loop asks more of a server than it can ever do: the queue grows without bound.

Does not know: sockets or requests; it is told how many requests had arrived and how many had ended at which time. Any server's
queue grows at first, for as long as the first requests take, and it wanders after that. So growth counts only after several
times that first latency, over half of the time so far, when it is a tenth of everything that arrived and far beyond chance.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

MIN_S: Final = 5.0
MIN_ARRIVALS: Final = 60
_LATENCIES: Final = 4.0
"""The first requests must have taken less than the whole time so far divided by this."""
_SHARE: Final = 0.1
"""Of the requests that arrived in the later half, so many must have stayed."""
_SIGMAS: Final = 5.0
"""Of Poisson arrivals in the later half, beyond which growth is no chance."""


class SaturationWatch:
    """Watches one load. Tell it the totals a few times a second; it answers with a verdict once there is one."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._in_system: list[int] = []
        self._arrived: list[int] = []
        self._first_latency_s: float | None = None

    def observe(self, elapsed_s: float, arrived: int, ended: int) -> str | None:
        """Requests or conversations that have arrived (sent or waiting) and that are over, so far; why this cannot go on, or None."""
        if self._first_latency_s is None and ended:
            # When the first one has ended, the time so far is about its latency.
            self._first_latency_s = elapsed_s
        self._times.append(elapsed_s)
        self._in_system.append(arrived - ended)
        self._arrived.append(arrived)
        if self._first_latency_s is None or elapsed_s < max(MIN_S, _LATENCIES * self._first_latency_s) or arrived < MIN_ARRIVALS:
            return None
        middle = bisect_left(self._times, elapsed_s / 2)
        quarter = (middle + len(self._times)) // 2
        growth = self._in_system[-1] - self._in_system[middle]
        arrivals = arrived - self._arrived[middle]
        steady = self._in_system[middle] < self._in_system[quarter] < self._in_system[-1]
        if not steady or growth < max(_SHARE * arrivals, _SIGMAS * math.sqrt(arrivals)):
            return None
        span_s = elapsed_s - self._times[middle]
        done = arrivals - growth
        return (
            f"{arrivals / span_s:.3g} requests/s arrived and {done / span_s:.3g} were answered in the last {span_s:.1f} s; "
            f"the queue grew from {self._in_system[middle]:,} to {self._in_system[-1]:,}"
        )
