"""Where a series of batch means settles, and whether it has a trend.

Pure functions of a short series of numbers.
"""

import math
from dataclasses import dataclass

import numpy as np

from enginebench.metrics.statistics import Floats

TOLERANCE = 3.0
"""Largest squared standard error of a truncation, relative to the smallest one; about where bias and standard error are equal."""

MATERIAL = 0.01
"""A truncation must change the mean by at least this share."""


@dataclass(frozen=True)
class Trend:
    """The result of a Mann-Kendall test."""

    p: float
    """Two-sided."""
    rise: float
    """Mean of the last third - mean of the first third."""
    change: float
    """rise / mean of all."""


def trend(values: Floats) -> Trend:
    """Whether a series rises or falls: the test of Mann (1945) and Kendall (1975), normal approximation, corrected for ties.

    S = pairs that rise - pairs that fall; var S = (n(n-1)(2n+5) - sum over groups of ties t(t-1)(2t+5)) / 18. The values must be
    independent, so batches must be long enough. Needs n >= 6: below, no series reaches p < 0.01.
    """
    n, third = len(values), max(1, len(values) // 3)
    later, earlier = np.tril_indices(n, -1)
    s = float(np.sign(values[later] - values[earlier]).sum())
    ties = np.unique(values, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    z = max(abs(s) - 1, 0.0) / math.sqrt(variance) if variance > 0 else 0.0
    mean = float(values.mean())
    rise = float(values[-third:].mean() - values[:third].mean())
    return Trend(math.erfc(z / math.sqrt(2)), rise, rise / mean if mean else 0.0)


def settled(values: Floats, most_head: int, most_tail: int, most: int) -> tuple[int, int]:
    """How many values to cut off at the head and at the tail so that the rest estimates the mean well: (head, tail).

    The marginal standard error rule MSER (White 1997, "An effective truncation heuristic for bias reduction in simulation
    output", Simulation 69), at both ends at once. `most` limits both together. MSER takes the truncation with the smallest squared
    standard error, sum (x - mean)^2 / m^2 over the m remaining values. Without a transient that would cut at random, so the shortest
    truncation within TOLERANCE of the smallest error is taken, and none if it changes the mean by less than MATERIAL.
    """
    n = len(values)
    x = values - values.mean()  # sums of squares lose fewer digits
    sums, squares = (np.concatenate(([0.0], np.cumsum(part))) for part in (x, x * x))
    best: list[tuple[float, int, int]] = []  # the best truncation of each length: its error, head and tail
    for cut in range(min(most, most_head + most_tail, n - 1) + 1):
        m = n - cut
        heads = np.arange(max(0, cut - most_tail), min(cut, most_head) + 1)
        spread = squares[heads + m] - squares[heads] - (sums[heads + m] - sums[heads]) ** 2 / m
        errors = np.maximum(spread, 0.0) / m**2
        at = int(errors.argmin())
        best.append((float(errors[at]), int(heads[at]), cut - int(heads[at])))
    least = max(min(best)[0], 1e-6 * best[0][0])  # smaller errors are rounding
    head, tail = next((head, tail) for error, head, tail in best if error <= TOLERANCE * least)
    kept = float(values[head : n - tail].mean())
    return (head, tail) if abs(kept - float(values.mean())) > MATERIAL * abs(kept) else (0, 0)
