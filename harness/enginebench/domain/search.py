"""A search for the highest level of a load that meets the SLO: raising the level in large steps, then bisecting. Pure.

Knows neither cells nor SLOs: a level is a number, and the caller says whether it passed.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from enginebench.domain.load import Load

Follower: TypeAlias = Literal["requests", "warmup_requests"]
FOLLOWERS: tuple[Follower, ...] = ("requests", "warmup_requests")
"""Fields of a load that depend on its level if the scenario does not set them."""
MAX_PROBES = 10
"""A search measures at most so many levels; its gap is then as small as it could be made with them."""
_STEPS = tuple(2.0**power for power in range(1, 21))
"""Factors by which the level may be raised while it passes."""


@dataclass(frozen=True)
class Bracket:
    """What is known of a search after some of its levels were measured."""

    passed: float | None
    """The highest level that passed."""
    failed: float | None
    """The lowest level that failed."""
    undecided: float | None
    """The level for which it is unknown whether it passed; the search ends there, since the next level would be no different."""
    next_level: float | None
    """The level to measure next; None: the search has ended."""


@dataclass(frozen=True)
class Search:
    """What is searched: the highest level from `start` to `stop` that passes. Hashed into plan ids and stored with the run."""

    base: Load
    """The load at `start`."""
    over: Literal["rate", "concurrency"]
    """The field of the load that is the level."""
    start: float
    """The lowest level, measured first: requests/s, or streams."""
    stop: float
    """The highest level that is tried, in the same unit."""
    precision: float
    """The search ends when the levels that passed and failed differ by at most a factor of 1 + precision, or after MAX_PROBES levels."""
    follows: tuple[Follower, ...] = ()
    """Fields that follow the level, because the scenario does not set them."""
    least: int = 0
    """Fewest requests of a probe, if their number follows the level."""

    def bracket(self, answers: Mapping[float, bool | None]) -> Bracket:
        """Where the search stands. answers: level -> whether it passed, None: unknown. Levels off the search's path are ignored."""
        passed: float | None = None
        failed: float | None = None
        level: float | None = self.start
        tried = 0
        while level is not None and level in answers:
            answer = answers[level]
            tried += 1
            if answer is None:
                return Bracket(passed, failed, level, None)
            if answer:
                passed = level
            else:
                failed = level
            level = self._next(passed, failed, self.step) if tried < MAX_PROBES else None
        return Bracket(passed, failed, None, level)

    @cached_property
    def step(self) -> float:
        """The factor by which the level is raised while it passes: 2, or as much more as it takes to end within MAX_PROBES."""
        return min(_STEPS, key=lambda step: (max(self._worst(step), MAX_PROBES), step))

    @cached_property
    def most_probes(self) -> int:
        """The number of levels measured in the worst case."""
        return min(self._worst(self.step), MAX_PROBES)

    def paths(self) -> tuple[tuple[float, ...], ...]:
        """The levels of every way that the search can go, each in order."""

        def follow(answers: dict[float, bool | None]) -> Iterator[tuple[float, ...]]:
            level = self.bracket(answers).next_level
            if level is None:
                yield tuple(answers)
                return
            for answer in (True, False):
                yield from follow({**answers, level: answer})

        return tuple(dict.fromkeys(follow({})))

    def _worst(self, step: float) -> int:
        """Levels in the worst case, without a limit on their number."""

        def bisecting(low: float, high: float) -> int:
            middle = self._between(low, high)
            return 0 if middle is None else 1 + max(bisecting(low, middle), bisecting(middle, high))

        worst, tried, level = 1, 1, self.start
        while (above := self._next(level, None, step)) is not None:
            tried += 1
            worst = max(worst, tried + bisecting(level, above))
            level = above
        return worst

    def _next(self, passed: float | None, failed: float | None, step: float) -> float | None:
        if passed is None:
            return None  # not even the lowest level passed
        if failed is None:
            return min(step * passed, self.stop) if passed < self.stop else None
        return self._between(passed, failed)

    def _between(self, low: float, high: float) -> float | None:
        """The geometric mean; None if the gap is small enough or holds no level.

        Streams are whole numbers. Rates have three significant digits, so that a search tries the same levels on every machine.
        """
        if high <= low * (1 + self.precision) * (1 + 1e-9):
            return None
        middle = math.sqrt(low * high)
        rounded = float(round(middle)) if self.over == "concurrency" else float(f"{middle:.3g}")
        return rounded if low < rounded < high else None
