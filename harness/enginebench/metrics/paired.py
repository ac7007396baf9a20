"""Means over windows or documents of a text, with intervals: one deployment's, or the difference of two on the same ones. Pure.

The windows are the unit: tokens of one window depend on each other. The interval is the percentile bootstrap of the mean (10,000
resamples, fixed seed), stretched about the mean by t(n-1) / z * sqrt(n / (n-1)), because for few windows the bootstrap alone is too short
(Hesterberg 2015, What Teachers Should Know about the Bootstrap). Simulated coverage is in tests/unit/metrics/test_paired.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from enginebench.metrics.statistics import CONFIDENCE

_RESAMPLES = 10_000
_Z = 1.959963984540054


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval; low and high are None for fewer than two values."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    def exp(self, less: float = 0.0) -> Mean:
        """Of logarithms, as a factor minus `less`."""
        low, high = (None if end is None else math.exp(end) - less for end in (self.low, self.high))
        return Mean(math.exp(self.value) - less, self.n, low, high)


def mean(values: Sequence[float]) -> Mean | None:
    """None without values."""
    n = len(values)
    if not n:
        return None
    found = np.asarray(values, dtype=float)
    middle = float(found.mean())
    if n == 1:
        return Mean(middle, 1)
    draws = np.random.default_rng(0).integers(0, n, size=(_RESAMPLES, n))
    tail = 100 * (1 - CONFIDENCE) / 2
    ends = np.percentile(found[draws].mean(axis=1), [tail, 100 - tail])
    stretch = student(n - 1) / _Z * math.sqrt(n / (n - 1))
    low, high = (middle + stretch * (float(end) - middle) for end in ends)
    return Mean(middle, n, low, high)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; above 3 degrees of freedom by the expansion of Abramowitz and Stegun 26.7.5."""
    if freedom < 4:
        return (12.706205, 4.302653, 3.182446)[freedom - 1]
    z, v = _Z, float(freedom)
    terms = (
        (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )  # fmt: skip
    return float(z + sum(term / v**power for power, term in enumerate(terms, start=1)))


def mcnemar(a: Sequence[int], b: Sequence[int]) -> float:
    """Two-sided exact p of McNemar's test (1947): whether a is right where b is wrong as often as the reverse. 1 without such cases."""
    only_a = sum(x > y for x, y in zip(a, b, strict=True))
    only_b = sum(x < y for x, y in zip(a, b, strict=True))
    n, least = only_a + only_b, min(only_a, only_b)
    return min(1.0, float(2 * sum(math.comb(n, i) for i in range(least + 1)) / 2**n))
