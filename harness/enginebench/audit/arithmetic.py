"""The arithmetic of claims: ratios, sizes with tolerances, bits per weight, the smallest batch. Knows no models and no devices."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from enginebench.domain import formatting
from enginebench.domain.formatting import rounded

GAIN_TOLERANCE = 0.1
"""Allows for rounding of a ratio, relative to its gain: '3x' may be 2.8 to 3.2, '13 % faster' may be 11.7 to 14.3 %."""
SIZE_TOLERANCE = 0.1
"""Allows for mixed quantisations, which differ in size under one name."""
COUNT_TOLERANCE = 0.03
"""Allows for different ways to count parameters: '109B' includes a vision tower of 0.9B that '107.8B' does not."""
ACTIVE_TOLERANCE = 0.05
"""Allows for rounding; vendors count active parameters with or without the vocabulary tables."""
TIMES_TOLERANCE = 0.2
"""Allows for a round number: '20x less' of 23.3x."""
GIB = 1.073741824


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


def price_per_million(per_hour: float, tok_s: float) -> float:
    """Money for a million tokens at so much per hour of all devices."""
    return per_hour / (tok_s * 3600) * 1e6


def times(ratio: float) -> str:
    """1.42 -> '1.42x'; 12.3 -> '12x'."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def span_text(low: float, high: float) -> str:
    return times(low) if low == high else f"{times(low)} to {times(high)}"


def streams_text(count: int) -> str:
    """'one stream', '16 streams'."""
    return "one stream" if count == 1 else f"{count:,} streams"


def part(share: float) -> str:
    """0.52 -> '52%'; 0.0034 -> '0.34%'."""
    return f"{share:.0%}" if share >= 0.1 else f"{rounded(100 * share, 2)}%"


def rate(value: float) -> str:
    """1234.5 -> '1,234'; 82.631 -> '82.63'."""
    return rounded(value, 4)


def number(value: float | None) -> str:
    """3800 -> '3,800'; 3.5 -> '3.5'; None -> '-'."""
    return "-" if value is None else rounded(value)


def share_text(share: float | None) -> str:
    """0.0725 -> '7.2 %', 1.013 -> '101.3 %', None -> '-'."""
    return "-" if share is None else f"{formatting.number(100 * share, 1)} %"


def least_batch(reaches: Callable[[int], bool], most: int) -> int | None:
    """The smallest batch from 1 to `most` for which `reaches` is true, None if there is none. `reaches` must be monotone."""
    batch = bisect_left(range(most + 1), x=True, lo=1, key=reaches)
    return batch if batch <= most else None
