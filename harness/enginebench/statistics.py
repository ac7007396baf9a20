"""Percentiles that are refused when there are too few samples, and intervals over repeats. Pure; knows no metric.

The unit of replication is a server restart: an interval is taken over repeats (one value per restart), never over requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
_RESAMPLES = 2000


def samples_needed(q: float) -> int:
    """Fewest samples for percentile q (in %): three expected beyond it, so 300 for p99, 30 for p90, 6 for the median."""
    return math.ceil(3 / (1 - q / 100) - 1e-9)


def percentile(values: Floats, q: float) -> float | None:
    """The q-th percentile (0 < q < 100, linear interpolation) of the values that are not NaN; None when there are too few."""
    values = values[~np.isnan(values)]
    return float(np.percentile(values, q)) if len(values) >= samples_needed(q) else None


@dataclass(frozen=True)
class Estimate:
    """The median over n repeats, with its bootstrap interval; low and high are None for a single repeat."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    def overlaps(self, other: Estimate) -> bool:
        """Whether the two intervals overlap, or either has none: then there is no detectable difference."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return True
        return self.low <= other.high and other.low <= self.high


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Median over repeats with a percentile-bootstrap interval (Efron 1979; 2,000 resamples, fixed seed, so it is repeatable).

    None and NaN are left out; None when nothing is left. With few repeats the interval is no narrower than their range: for
    n = 2..5 the bootstrap of a median reaches the smallest and the largest value, and that is what is shown.
    """
    kept = np.array([v for v in values if v is not None and not math.isnan(v)], dtype=float)
    if not len(kept):
        return None
    middle = float(np.median(kept))
    if len(kept) == 1:
        return Estimate(middle, 1)
    draws = np.random.default_rng(0).choice(kept, size=(_RESAMPLES, len(kept)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.median(draws, axis=1), [tail, 100 - tail])
    return Estimate(middle, len(kept), float(low), float(high))
