"""Tells when an open loop at a constant rate asks more of a server than it can ever do: the queue grows without bound.

Does not know: sockets or requests; it is told how many had arrived and how many were over at which time. A sound server's queue
grows, too, for as long as the first requests take, and wanders after that. So growth counts only if it is far beyond chance, is
a fair share of what arrived, and if the server has stopped getting faster: while the first requests are on their way the number
that ends rises steeply, a server that is full answers as many in the later half of the time as in the earlier.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

MIN_S: Final = 5.0
MIN_ARRIVALS: Final = 60
_SHARE: Final = 0.1
"""Of the requests that arrived in the later half, so many must have stayed."""
_SIGMAS: Final = 5.0
"""Of the number of arrivals in the later half, beyond which growth is no chance."""
_FLAT: Final = 1.3
"""The later half may have answered so many times what the earlier did, chance included."""


class SaturationWatch:
    """Watches one load. Tell it the totals a few times a second; it answers with a verdict once there is one.

    dispersion: variance over mean of the number of arrivals; 1 for Poisson, 1 / burstiness for gamma-distributed gaps.
    """

    def __init__(self, dispersion: float = 1.0) -> None:
        self._dispersion = dispersion
        self._times: list[float] = []
        self._arrived: list[int] = []
        self._ended: list[int] = []

    def observe(self, elapsed_s: float, arrived: int, ended: int) -> str | None:
        """Requests or conversations that have arrived (sent or waiting) and that are over, so far; why this cannot go on, or None."""
        self._times.append(elapsed_s)
        self._arrived.append(arrived)
        self._ended.append(ended)
        if elapsed_s < MIN_S or arrived < MIN_ARRIVALS:
            return None
        middle = bisect_left(self._times, elapsed_s / 2)
        quarter = (middle + len(self._times)) // 2
        queue = [self._arrived[i] - self._ended[i] for i in (middle, quarter, -1)]
        arrivals, done_before = arrived - self._arrived[middle], self._ended[middle]
        done = ended - done_before
        growth = queue[-1] - queue[0]
        beyond_chance = growth >= max(_SHARE * arrivals, _SIGMAS * math.sqrt(self._dispersion * arrivals))
        if not (beyond_chance and queue == sorted(queue) and 0 < done + math.sqrt(done) <= _FLAT * done_before):
            return None
        span_s = elapsed_s - self._times[middle]
        return (
            f"{arrivals / span_s:.3g} requests/s arrived and {done / span_s:.3g} were answered in the last {span_s:.1f} s; "
            f"the queue grew from {queue[0]:,} to {queue[-1]:,}"
        )
