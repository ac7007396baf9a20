"""Arithmetic of claims: ratios, sizes per parameter, tolerances. Pure functions on numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

GAIN_TOLERANCE = 0.1
"""Allows for rounding of a ratio, relative to its gain: '3x' may be 2.8 to 3.2, '13 % faster' may be 11.7 to 14.3 %."""
SIZE_TOLERANCE = 0.1
"""Allows for mixed quantisations, which differ in size under one name."""
COUNT_TOLERANCE = 0.03
"""Allows for different ways to count parameters: '109B' includes a vision tower of 0.9B that '107.8B' does not."""


@dataclass(frozen=True)
class RatioCheck:
    value: float
    holds: bool
    """The stated ratio is a / b."""
    inverted: bool
    """The stated ratio is b / a."""


def check_ratio(a: float, b: float, stated: tuple[float, float]) -> RatioCheck:
    """Compare a / b with a stated range. A single value (low equals high) may be rounded within GAIN_TOLERANCE."""
    low, high = stated
    slack = GAIN_TOLERANCE * abs(low - 1) if low == high else 0.0

    def within(ratio: float) -> bool:
        return low - slack <= ratio <= high + slack

    return RatioCheck(a / b, within(a / b), not within(a / b) and within(b / a))


def close(stated: float, true: float, tolerance: float) -> bool:
    return abs(stated - true) <= tolerance * abs(true)


def bits_per_weight(size_gb: float, parameters: float) -> float:
    return size_gb * 8e9 / parameters


def times(ratio: float) -> str:
    """1.42 -> '1.42x'; 12.3 -> '12x'."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def least_batch(reaches: Callable[[int], bool], most: int) -> int | None:
    """The smallest batch from 1 to `most` for which `reaches` is true, None if there is none. `reaches` must be monotone."""
    batch = bisect_left(range(most + 1), x=True, lo=1, key=reaches)
    return batch if batch <= most else None
