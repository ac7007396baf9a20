"""The arithmetic of claims: ratios that are drawn from numbers, sizes against parameters, names for how far apart two figures are.

Pure functions on numbers. It knows no claim and no physics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

GAIN_TOLERANCE = 0.1
"""A stated ratio may be off by so much of its gain: '3x' may be 2.8 to 3.2, '13 % faster' 11.7 to 14.3 %. That is rounding, not more."""
SIZE_TOLERANCE = 0.1
"""A stated size may be off by so much: mixed quantisations differ by that between files of one name."""
COUNT_TOLERANCE = 0.03
"""A stated number of parameters may be off by so much: '109B' counts a vision tower of 0.9B that '107.8B' does not."""


@dataclass(frozen=True)
class RatioCheck:
    """a / b, whether the stated ratio is that, and whether it is b / a instead."""

    value: float
    holds: bool
    upside_down: bool


def check_ratio(a: float, b: float, stated: tuple[float, float]) -> RatioCheck:
    """Compare a / b with a stated ratio, lowest and highest. A single value (both equal) may be rounded within GAIN_TOLERANCE."""
    low, high = stated
    slack = GAIN_TOLERANCE * abs(low - 1) if low == high else 0.0

    def within(ratio: float) -> bool:
        return low - slack <= ratio <= high + slack

    return RatioCheck(a / b, within(a / b), not within(a / b) and within(b / a))


def close(stated: float, true: float, tolerance: float) -> bool:
    """Whether |stated - true| is at most `tolerance` of `true`."""
    return abs(stated - true) <= tolerance * abs(true)


def bits_per_weight(size_gb: float, parameters: float) -> float:
    """GB (1e9 bytes) spread over so many parameters, in bits."""
    return size_gb * 8e9 / parameters


def times(ratio: float) -> str:
    """1.42 -> '1.42x'; 12.3 -> '12x'."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def least_batch(reaches: Callable[[int], bool], most: int) -> int | None:
    """The smallest batch from 1 to `most` for which `reaches` holds, None if it holds for none; once it holds it must go on holding."""
    if not reaches(most):
        return None
    low, high = 0, most  # reaches(high) holds, and reaches(low) does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high
