"""Where the level of a series of nights changes: a scan for steps, with probabilities under autocorrelated noise.

The statistic is the largest likelihood ratio of two means against one, over the whole series and over the intervals of seeded binary
segmentation (Kovacs, Buehlmann, Li and Munk 2023, Biometrika 110), after single outliers were pulled in by the identifier of Hampel (1974).
Its distribution without a change is simulated: autoregressive noise with heavy tails goes through the same steps. Several series, and the
parts of one, are tested with the false discovery rate controlled at each level of the tree (Yekutieli 2008) by the step-up procedure of
Doehler, Durand and Roquain (2018, Electron. J. Statist. 12) for tests that differ: a series too quiet to look changed by chance uses none
of the error. Where a change is, is in `enginebench.metrics.change_location`. Pure; knows no runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from enginebench.metrics.statistics import Floats

FALSE_DISCOVERY = 0.20
"""Of the series that are said to have changed, this share at most has not. It is far less where noise is as it was measured, because the
simulated noise has heavier tails: see decision 20."""
FEWEST = 8
"""Nights below which a series is not judged: no change in fewer could be told from noise."""
SIDE = 3
"""Nights that a new level must last. One or two nights are outliers."""

_WINDOW, _REACH = 7, 2.5
"""Of the identifier: nights whose median is a night's surroundings, and the standard deviations from it that a night may lie."""
_OUTLIER = 6.0
_SHORTEST = 14
_NULLS = 2000
_TAIL = 0.1
"""Share of the simulated values to which the tail is fitted, for probabilities that are too small to be counted."""
_DEGREES = 4
"""Of freedom of the simulated noise, Student's t."""
_FOR_KNOWN = 2 / 3
_MOST_MEMORY, _STEP = 0.7, 0.1
_USUAL_MEMORY, _NIGHTS_OF_USUAL, _NIGHTS_OF_ALL = 0.2, 60, 40


@dataclass(frozen=True)
class Part:
    """A part of a series that is tested: the nights from start to before end."""

    series: int
    start: int
    end: int


@dataclass(frozen=True)
class Split:
    """A part whose level changes, and the interval in which the change is."""

    part: Part
    start: int
    end: int
    p: float


@dataclass(frozen=True)
class Tested:
    """The most significant difference of two means in a part."""

    p: float
    """The probability of such a one without a change."""
    start: int
    end: int
    size: float
    chance: float
    """The probability that a part as noisy as this one shows a size of at least what is worth saying without a change."""


Locate: TypeAlias = Callable[[Split], int]
"""The first night of the new level."""


def find_splits(
    series: Sequence[Floats], known: Sequence[Sequence[int]], locate: Locate, least: Sequence[float], *, rate: float = FALSE_DISCOVERY
) -> list[Split]:
    """Every significant change of all series, found from the whole series to its parts.

    series: values per night, on a scale on which noise is alike everywhere (logarithms). known: for each series the nights at which
    something is known to have changed; there a smaller change is enough. locate: where a split divides its part. least: for each series
    the size below which a change is not worth saying; such a one is found too, as it divides its series, but is no discovery.
    """
    memories = memory(series)
    parts = [Part(i, 0, len(values)) for i, values in enumerate(series) if len(values) >= FEWEST]
    found: list[Split] = []
    while parts:
        tested = [_tested(part, series[part.series], known[part.series], memories[part.series], least[part.series]) for part in parts]
        large = [each.size >= least[part.series] for each, part in zip(tested, parts, strict=True)]
        real = discoveries([each.p for each in tested], rate, [each.chance for each in tested], large)
        kept = [
            Split(part, part.start + its.start, part.start + its.end, its.p)
            for part, its, is_ in zip(parts, tested, real, strict=True)
            if is_
        ]
        found += kept
        halves = [(each.part, locate(each)) for each in kept]
        ends = [Part(its.series, a, b) for its, at in halves for a, b in ((its.start, at), (at, its.end))]
        parts = [part for part in ends if part.end - part.start >= FEWEST]
    return found


def _tested(part: Part, values: Floats, known: Sequence[int], remembers: float, least: float) -> Tested:
    part_values = values[part.start : part.end]
    nights = [at - part.start for at in known if SIDE <= at - part.start <= len(part_values) - SIDE]
    return test(part_values, nights, remembers, least)


def test(values: Floats, known: Sequence[int], remembers: float, least: float) -> Tested:
    """Whether a series without steps would look like this.

    Most of the chance is spent on the nights that are known, if there are any: with few places to look at, less is due to chance.
    """
    clean = cleaned(values[None])
    scans, noise = _scans(clean, SIDE), float(_scale(clean)[0, 0])
    scan = max(scans, key=lambda its: float(its.z.max()))
    size = float(scan.size[0, scan.z[0].argmax()])
    null = _null(len(values), remembers)
    p = beyond(null.anywhere, float(scan.z.max()))
    chance = float((null.anywhere_size * noise >= least).mean())
    if not known:
        return Tested(p, scan.start, scan.end, size, chance)
    at = np.array(known) - SIDE  # of the first scan, of the whole series
    best = at[scans[0].z[0, at].argmax()]
    rows = null.whole[:, at]
    p_known = beyond(rows.max(axis=1), float(scans[0].z[0, best]))
    sizes = np.take_along_axis(null.whole_size[:, at], rows.argmax(axis=1)[:, None], axis=1)
    chance = min(1.0, chance + float((sizes * noise >= least).mean()))
    ps = p / (1 - _FOR_KNOWN), p_known / _FOR_KNOWN
    if p_known < p:
        return Tested(min(1.0, *ps), 0, len(values), float(scans[0].size[0, best]), chance)
    return Tested(min(1.0, *ps), scan.start, scan.end, size, chance)


def discoveries(ps: Sequence[float], rate: float, chances: Sequence[float] = (), counted: Sequence[bool] = ()) -> list[bool]:
    """Which hypotheses are rejected: those with a p up to the largest t at which the false ones expected are at most the rate of all.

    chances: the most that each p can be expected to be a discovery without a change; with 1, the default, this is the procedure of
    Benjamini and Hochberg (1995) at a rate of rate / (1 + rate). counted: which of them are discoveries if they are rejected.
    """
    if not ps:
        return []
    most = rate / (1 + rate)
    each, chance = np.array(ps), np.array(chances or [1.0] * len(ps))
    expected = (np.minimum(each[:, None], chance) / (1 - np.minimum(most, chance))).sum(axis=1)
    rejected = ((each <= each[:, None]) & np.array(counted or [True] * len(ps))).sum(axis=1)
    able = each[(each <= most) & (expected <= rate * rejected)]
    found: list[bool] = (each <= (able.max() if len(able) else -1.0)).tolist()
    return found


# -- cleaning --------------------------------------------------------------------------------------------------------------------


def cleaned(values: Floats) -> Floats:
    """The values, each pulled in to at most so far from the median of its surroundings. One series or rows of them."""
    rows = np.atleast_2d(values)
    middle, reach = _surroundings(rows)
    return np.clip(rows, middle - _REACH * reach, middle + _REACH * reach).reshape(values.shape)


def outliers(values: Floats, least: float) -> list[int]:
    """The nights far from their surroundings, and further than `least`."""
    middle, reach = _surroundings(values[None])
    found: list[int] = np.nonzero(np.abs(values - middle[0]) > np.maximum(_OUTLIER * reach[0], least))[0].tolist()
    return found


def _surroundings(rows: Floats) -> tuple[Floats, Floats]:
    """The running median, and a standard deviation from the differences of nights, which steps hardly change."""
    half = _WINDOW // 2
    padded = np.pad(rows, ((0, 0), (half, half)), mode="reflect")
    middle = np.partition(sliding_window_view(padded, _WINDOW, axis=1), half, axis=-1)[..., half]
    steps = np.abs(np.diff(rows, axis=1))
    at = steps.shape[1] // 2
    return middle, 1.4826 / math.sqrt(2) * np.partition(steps, at, axis=1)[:, [at]]


def memory(series: Sequence[Floats]) -> list[float]:
    """How much of a night's deviation is left on the next, for each series: lag-1 autocorrelation, 0 to 0.7 in steps of 0.1.

    The variance of differences over two nights is 1 + r times that over one; steps hardly change either. A short series says little, so
    its own value is drawn towards that of all, and that of few nights towards the usual one.
    """
    own = [_autocorrelation(values) for values in series]
    nights = np.array([len(values) for values in series], dtype=float)
    everyone = (float(np.dot(nights, own)) + _NIGHTS_OF_USUAL * _USUAL_MEMORY) / (float(nights.sum()) + _NIGHTS_OF_USUAL)
    drawn = (nights * np.array(own) + _NIGHTS_OF_ALL * everyone) / (nights + _NIGHTS_OF_ALL)
    return [round(round(min(max(each, 0.0), _MOST_MEMORY) / _STEP) * _STEP, 1) for each in drawn.tolist()]


def _autocorrelation(values: Floats) -> float:
    if len(values) < FEWEST:
        return 0.0
    differences = [np.abs(values[lag:] - values[:-lag]) for lag in (1, 2)]
    limits = [3 * 1.4826 * float(np.median(each)) for each in differences]
    limits[1] = 0.75 * limits[0] + 0.25 * limits[1]  # less of what a step adds
    squares = [float((np.minimum(each, most) ** 2).mean()) for each, most in zip(differences, limits, strict=True)]
    return min(max(squares[1] / squares[0] - 1, -0.5), 1.0) if squares[0] > 0 else 0.0


# -- scanning --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scan:
    """Differences of two means in one interval. One row per series; column 0 splits `SIDE` nights after the start."""

    start: int
    end: int
    z: Floats
    """The square root of the likelihood ratio."""
    size: Floats


def _scans(clean: Floats, side: int) -> list[_Scan]:
    """Of the whole series first, then of each interval."""
    n = clean.shape[1]
    centred = clean - clean.mean(axis=1, keepdims=True)
    sums, squares = (np.pad(np.cumsum(each, axis=1), ((0, 0), (1, 0))) for each in (centred, centred**2))
    tiny = (1e-6 * np.maximum(np.ptp(clean, axis=1, keepdims=True), 1e-9)) ** 2  # series without noise
    found = []
    for start, end in intervals(n):
        nights = end - start
        left = np.arange(side, nights - side + 1)
        total = sums[:, [end]] - sums[:, [start]]
        size = np.abs(sums[:, start + left] - sums[:, [start]] - total * left / nights) * nights / (left * (nights - left))
        explained = size**2 * left * (nights - left) / nights
        rest = np.maximum(squares[:, [end]] - squares[:, [start]] - total**2 / nights - explained, 0.0) + tiny
        found.append(_Scan(start, end, np.sqrt(nights * np.log1p(explained / rest)), size))
    return found


def _scale(clean: Floats) -> Floats:
    """Standard deviation of a night, from the differences of nights: one column."""
    return np.asarray(np.sqrt((np.diff(clean, axis=1) ** 2).mean(axis=1, keepdims=True) / 2))


def intervals(n: int) -> list[tuple[int, int]]:
    """The whole, then halves, quarters ... that overlap by half, down to two weeks: a level that lasts a while fills half of one."""
    found, size = [(0, n)], n / 2
    while size >= _SHORTEST:
        length = round(size)
        count = 2 * math.ceil(n / size) - 1
        found += [(start, start + length) for start in np.linspace(0, n - length, count).round().astype(int).tolist()]
        size /= 2
    return list(dict.fromkeys(found))


def beyond(null: Floats, value: float) -> float:
    """The probability of a value at least so large. Beyond most simulated ones by the tail, exponential in the square."""
    share = (1 + int((null >= value).sum())) / (1 + len(null))
    if share > _TAIL / 4:
        return share
    squares = np.sort(null**2)[-int(_TAIL * len(null)) :]
    return float(_TAIL * math.exp(-(value**2 - squares[0]) / float((squares - squares[0]).mean())))


@dataclass(frozen=True)
class _Null:
    """Statistics of simulated series that do not change, and the sizes there in standard deviations of a night."""

    whole: Floats
    whole_size: Floats
    anywhere: Floats
    anywhere_size: Floats


@lru_cache(maxsize=32)
def _null(n: int, remembers: float) -> _Null:
    rng = np.random.default_rng(n)
    noise = rng.standard_t(_DEGREES, (_NULLS, n + 10))
    for i in range(1, n + 10):
        noise[:, i] += remembers * noise[:, i - 1]
    clean = cleaned(noise[:, 10:])
    scans, scale = _scans(clean, SIDE), _scale(clean)
    bests = [scan.z.argmax(axis=1)[:, None] for scan in scans]
    z = np.hstack([np.take_along_axis(scan.z, best, axis=1) for scan, best in zip(scans, bests, strict=True)])
    size = np.hstack([np.take_along_axis(scan.size, best, axis=1) for scan, best in zip(scans, bests, strict=True)])
    first = z.argmax(axis=1)[:, None]
    return _Null(
        scans[0].z, scans[0].size / scale, np.take_along_axis(z, first, axis=1)[:, 0], np.take_along_axis(size / scale, first, axis=1)[:, 0]
    )
