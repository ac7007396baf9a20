"""What changed in series of nights: steps with their night and size, gradual drifts, outliers. Pure; knows no runs.

Steps are found by `enginebench.metrics.change_points` and placed by `enginebench.metrics.change_location`. All values are logarithms, so
that differences are relative changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from enginebench.metrics.change_location import Location, levels, locate, slope_instead
from enginebench.metrics.change_points import FEWEST, Split, find_splits, memory, outliers
from enginebench.metrics.statistics import Floats

_Z = 1.96


@dataclass(frozen=True)
class Step:
    """One level becomes another at once."""

    location: Location
    before: float
    after: float
    error: float
    """Standard error of the difference."""
    p: float
    """The probability of such a difference in a series that does not change."""

    @property
    def relative(self) -> float:
        """0.05 for 5 % more."""
        return math.expm1(self.after - self.before)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of the relative change."""
        low, high = (math.expm1(self.after - self.before + sign * _Z * self.error) for sign in (-1, 1))
        return low, high


@dataclass(frozen=True)
class Drift:
    """One level becomes another over at least a week."""

    start: int
    end: int
    before: float
    after: float
    p: float

    @property
    def relative(self) -> float:
        return math.expm1(self.after - self.before)


@dataclass(frozen=True)
class LevelChanges:
    """Of one series, in the order of time."""

    changes: tuple[Step | Drift, ...] = ()
    outliers: tuple[int, ...] = ()
    memory: float = 0.0
    """Lag-1 autocorrelation that was assumed."""
    noise: float = 0.0
    """Standard deviation of a night around its level."""


def find_changes(series: Sequence[Floats], known: Sequence[Sequence[int]], least: Sequence[float]) -> list[LevelChanges]:
    """The changes of each series. least: the relative change below which one is not worth saying. Series that are too short have none."""
    where = [frozenset(nights) for nights in known]

    def place(split: Split) -> int:
        inside = [at - split.start for at in where[split.part.series]]
        return split.start + locate(series[split.part.series][split.start : split.end], inside).at

    splits: dict[int, dict[int, float]] = {}
    for split in find_splits(series, known, place, [math.log1p(each) for each in least]):
        splits.setdefault(split.part.series, {})[place(split)] = split.p
    memories = memory(series)
    return [
        _described(values, splits.get(i, {}), where[i], least[i], memories[i]) if len(values) >= FEWEST else LevelChanges()
        for i, values in enumerate(series)
    ]


def _described(values: Floats, found: dict[int, float], known: frozenset[int], least: float, remembers: float) -> LevelChanges:
    cuts = _worth_saying(values, _placed(values, sorted(found), known), least)
    ps = {cut: found[min(found, key=lambda at: abs(at - cut))] for cut in cuts}
    _, noise = levels(values, cuts)
    changes = tuple(_changes(values, cuts, ps, known, least, remembers))
    drifting = [its for its in changes if isinstance(its, Drift)]
    odd = tuple(at for at in outliers(values, math.log1p(least)) if not any(its.start <= at <= its.end for its in drifting))
    return LevelChanges(changes, odd, remembers, noise)


def _placed(values: Floats, cuts: list[int], known: frozenset[int]) -> list[int]:
    """Each cut anew, between its neighbours."""
    for _ in range(2):
        for i in range(len(cuts)):
            start, end = ([0, *cuts][i], [*cuts, len(values)][i + 1])
            cuts[i] = start + locate(values[start:end], [at - start for at in known]).at
    return cuts


def _worth_saying(values: Floats, cuts: list[int], least: float) -> list[int]:
    """Without the cuts at which the level changes by less, the smallest first."""
    while cuts:
        sizes = np.abs(np.diff(levels(values, cuts)[0]))
        if sizes.min() >= math.log1p(least):
            break
        cuts = [cut for i, cut in enumerate(cuts) if i != int(sizes.argmin())]
    return cuts


def _changes(
    values: Floats, cuts: Sequence[int], ps: dict[int, float], known: frozenset[int], least: float, remembers: float
) -> Iterator[Step | Drift]:
    """Steps, and a drift in the place of those that go one way and are better described by it."""
    heights, noise = levels(values, cuts)
    edges = [0, *cuts, len(values)]
    for first, last in _same_way(heights):  # of segments
        start, inner = edges[first], cuts[first:last]
        part = values[start : edges[last + 1]]
        slope = slope_instead(part, [cut - start for cut in inner], [at - start for at in known], remembers)
        if slope is not None and abs(slope.after - slope.before) >= math.log1p(least):
            yield Drift(start + slope.start, start + slope.end, slope.before, slope.after, min(ps[cut] for cut in inner))
            continue
        for i in range(first, last):
            a, cut, b = edges[i : i + 3]
            location = locate(values[a:b], [at - a for at in known])
            place = Location(cut, min(a + location.low, cut), max(a + location.high, cut))
            error = noise * math.sqrt((1 / (cut - a) + 1 / (b - cut)) * (1 + remembers) / (1 - remembers))
            yield Step(place, heights[i], heights[i + 1], error, ps[cut])


def _same_way(heights: Sequence[float]) -> Iterator[tuple[int, int]]:
    """First and last segment of each longest run of levels that only rise, or only fall."""
    rises = np.sign(np.diff(heights)).tolist()
    first = 0
    for i in range(1, len(rises) + 1):
        if i == len(rises) or rises[i] != rises[first]:
            yield first, i
            first = i
