"""Which level to try next in a search for the highest level that passes: doubling, then halving the gap. Pure.

A level is a number, and the caller says whether it passed. Knows no cell, engine or SLO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Search:
    """A search between `start` and `stop` for the highest level that passes, to within a factor of 1 + precision.

    It always ends: each result doubles the level towards `stop`, or narrows the gap between a level that passed and one that failed,
    or is unknown, which ends the search because the next level would be unknown as well.
    """

    start: float
    stop: float
    precision: float
    whole: bool = False
    """Levels are whole numbers; otherwise they have three significant digits, so that a search tries the same levels on every machine."""
    passed: float | None = None
    """The highest level that passed so far."""
    failed: float | None = None
    """The lowest level that failed so far."""
    unknown: float | None = None
    """The level with an unknown result, at which the search ended."""

    def next_level(self) -> float | None:
        """The level to try now; None when the search has ended."""
        if self.unknown is not None:
            return None
        if self.failed is None:
            return self.start if self.passed is None else _above(self, self.passed)
        return None if self.passed is None else _between(self, self.passed, self.failed)

    def tell(self, level: float, ok: bool | None) -> None:
        """Record whether the level from `next_level` passed; None: unknown."""
        if ok is None:
            self.unknown = level
        elif ok:
            self.passed = level
        else:
            self.failed = level


def most_probes(search: Search) -> int:
    """The largest number of levels that a search can try, whatever the results are."""

    def bisecting(low: float, high: float) -> int:
        middle = _between(search, low, high)
        return 0 if middle is None else 1 + max(bisecting(low, middle), bisecting(middle, high))

    worst, tried, level = 1, 1, search.start
    while (above := _above(search, level)) is not None:
        tried += 1
        worst = max(worst, tried + bisecting(level, above))
        level = above
    return worst


def _above(search: Search, level: float) -> float | None:
    return min(2 * level, search.stop) if level < search.stop else None


def _between(search: Search, low: float, high: float) -> float | None:
    """The geometric middle; None when the gap is small enough or contains no level."""
    if high <= low * (1 + search.precision) * (1 + 1e-9):
        return None
    middle = math.sqrt(low * high)
    rounded = float(round(middle)) if search.whole else float(f"{middle:.3g}")
    return rounded if low < rounded < high else None
