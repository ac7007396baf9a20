"""What a series of batch means over time says: where it has settled, and whether it still goes up or down.

Pure functions of a short series of numbers; knows neither what is measured nor how long a batch lasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TOLERANCE = 3.0
"""How much larger than the smallest the squared standard error of a truncation may be; about where bias and that error are equal."""

MATERIAL = 0.01
"""What a truncation must change the mean by, as a share of it."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trend:
    """p: two-sided, of the Mann-Kendall test. rise: mean of the last third - mean of the first third; change: rise / mean of all."""

    p: float
    rise: float
    change: float


def trend(values: Floats) -> Trend:
    """Whether a series rises or falls: the test of Mann (1945) and Kendall (1975), normal approximation, corrected for ties.

    S counts the pairs that rise less the pairs that fall; var S = (n(n-1)(2n+5) - sum over groups of ties t(t-1)(2t+5)) / 18.
    That is for values independent of each other, so batches must be long enough. n from 6: below, no series reaches p < 0.01.
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
    """How many values to cut off at the head and at the tail so that the rest is a good estimate of the mean: (head, tail).

    The marginal standard error rule MSER (White 1997, "An effective truncation heuristic for bias reduction in simulation
    output", Simulation 69), at both ends at once: of all truncations within the limits (`most` is that of both together) it takes the
    one with the smallest squared standard error, sum (x - mean)^2 / m^2 of the m values that are left. In a series without a
    transient that would cut at random, so the shortest truncation within TOLERANCE of the smallest error is taken instead, and none
    when the mean hardly moves.
    """
    n = len(values)
    x = values - values.mean()  # sums of squares lose fewer digits
    sums, squares = (np.concatenate(([0.0], np.cumsum(part))) for part in (x, x * x))
    best: list[tuple[float, int, int]] = []  # for each total the best truncation: its error, head and tail
    for gone in range(min(most, most_head + most_tail, n - 1) + 1):
        m = n - gone
        heads = np.arange(max(0, gone - most_tail), min(gone, most_head) + 1)
        spread = squares[heads + m] - squares[heads] - (sums[heads + m] - sums[heads]) ** 2 / m
        errors = np.maximum(spread, 0.0) / m**2
        at = int(errors.argmin())
        best.append((float(errors[at]), int(heads[at]), gone - int(heads[at])))
    least = max(min(best)[0], 1e-6 * best[0][0])  # below a thousandth of the error there is only rounding
    head, tail = next((head, tail) for error, head, tail in best if error <= TOLERANCE * least)
    kept = float(values[head : n - tail].mean())
    return (head, tail) if abs(kept - float(values.mean())) > MATERIAL * abs(kept) else (0, 0)
