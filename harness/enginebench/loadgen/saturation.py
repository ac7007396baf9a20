"""Detects that the arrival rate of an open loop exceeds the capacity of the server, so that the queue grows without bound.

The queue of a server that keeps up also grows while the first requests run, and fluctuates after that. Saturation therefore needs all
of: growth well beyond chance, growth that is a fair share of the arrivals, and a completion rate that no longer rises (it rises steeply
while the first requests run; at a saturated server it is the same in both halves of the time).
"""

import math
from bisect import bisect_left
from typing import Final

MIN_S: Final = 5.0
MIN_ARRIVALS: Final = 60
_SHARE: Final = 0.1
"""Least growth of the queue in the second half of the time, as a share of the arrivals in it."""
_SIGMAS: Final = 5.0
"""Least growth of the queue in the second half, in standard deviations of the number of arrivals in it."""
_FLAT: Final = 1.3
"""Largest ratio of completions in the second half to those in the first (plus one standard deviation) that counts as constant."""


class SaturationWatch:
    """Watches one load. Call `observe` with the totals a few times per second.

    dispersion: variance of the number of arrivals over its mean; 1 for Poisson, 1 / burstiness for gamma-distributed gaps.
    """

    def __init__(self, dispersion: float = 1.0) -> None:
        self._dispersion = dispersion
        self._times: list[float] = []
        self._arrived: list[int] = []
        self._ended: list[int] = []

    def observe(self, elapsed_s: float, arrived: int, ended: int) -> str | None:
        """Add the totals of arrived (sent or waiting) and ended sessions. Returns why the server is saturated, or None."""
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
