"""Where in a series its level changes, how surely, and whether it changes at once or gradually.

The night of a change is where two levels with errors of Student's t are most likely; nights at which something is known to have changed
are likelier from the start. Whether a rise is steps or a slope is decided by the criterion of Schwarz (1978). Pure; knows no runs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enginebench.metrics.change_points import SIDE, cleaned
from enginebench.metrics.statistics import Floats, median

KNOWN_WEIGHT = 200.0
"""How much likelier a change is at a night with a recorded change of engine, driver or machine than at another night."""
COVERED = 0.95
_DEGREES = 4
_ROUNDS = 8
_SHORTEST_SLOPE = 14
"""Nights below which a slope is taken for a step."""
_MARGIN = 2.0
"""By how much a slope must be more likely (in logarithms) than steps: what people change in software changes at once."""


@dataclass(frozen=True)
class Location:
    at: int
    """The first night of the new level."""
    low: int
    high: int
    """The first and the last night that it may be."""


def locate(values: Floats, known: Collection[int] = ()) -> Location:
    """The night that divides a series of at least two times `SIDE` nights into two levels. known: see the module."""
    splits, likelihood = _likelihoods(values)
    likelihood += math.log(KNOWN_WEIGHT) * np.isin(splits, list(known))
    chances = np.exp(likelihood - likelihood.max())
    order = np.argsort(-chances)
    enough = int((np.cumsum(chances[order]) < COVERED * chances.sum()).sum()) + 1
    within = splits[order[:enough]]
    return Location(int(splits[order[0]]), int(within.min()), int(within.max()))


def _likelihoods(values: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The logarithm of the likelihood of each split, its levels and the scale fitted by iterated weights."""
    n = len(values)
    splits = np.arange(SIDE, n - SIDE + 1)
    after = np.arange(n) >= splits[:, None]
    levels = np.array([[median(values[:at]), median(values[at:])] for at in splits.tolist()])
    scale = np.full(len(splits), np.nan)
    for _ in range(_ROUNDS):
        residuals = values - np.where(after, levels[:, [1]], levels[:, [0]])
        if np.isnan(scale[0]):
            scale = np.maximum(1.4826 * np.array([median(np.abs(row)) for row in residuals]), _tiny(values))
        weights = (_DEGREES + 1) / (_DEGREES + (residuals / scale[:, None]) ** 2)
        scale = np.maximum(np.sqrt((weights * residuals**2).mean(axis=1)), _tiny(values))
        levels = np.stack([(weights * values * side).sum(axis=1) / (weights * side).sum(axis=1) for side in (~after, after)], axis=1)
    residuals = (values - np.where(after, levels[:, [1]], levels[:, [0]])) / scale[:, None]
    return splits, -(_DEGREES + 1) / 2 * np.log1p(residuals**2 / _DEGREES).sum(axis=1) - n * np.log(scale)


def _tiny(values: Floats) -> float:
    """A scale that is none: series without noise have to be divided as well."""
    return 1e-6 * max(float(np.ptp(values)), 1e-9)


def levels(values: Floats, cuts: Sequence[int]) -> tuple[list[float], float]:
    """The level of each segment between the cuts, and the standard deviation around them; outliers count less."""
    segments = np.split(values, cuts)
    found = [median(segment) for segment in segments]
    residuals = np.concatenate([segment - level for segment, level in zip(segments, found, strict=True)])
    scale = max(1.4826 * median(np.abs(residuals)) * math.sqrt(len(values) / max(len(values) - len(segments), 1)), _tiny(values))
    for _ in range(_ROUNDS):
        for i, segment in enumerate(segments):
            weights = (_DEGREES + 1) / (_DEGREES + ((segment - found[i]) / scale) ** 2)
            found[i] = float((weights * segment).sum() / weights.sum())
    return found, scale


@dataclass(frozen=True)
class Slope:
    start: int
    """The last night of the old level."""
    end: int
    """The first night of the new one."""
    before: float
    after: float


def slope_instead(values: Floats, cuts: Sequence[int], known: Collection[int] = (), remembers: float = 0.0) -> Slope | None:
    """The slope between two levels that describes a series better than steps at the cuts; None if the steps do. known: see the module.

    remembers: lag-1 autocorrelation; nights that resemble each other say less.
    """
    n, clean = len(values), cleaned(values)
    if n <= _SHORTEST_SLOPE:
        return None
    steps = sum(float(((part - part.mean()) ** 2).sum()) for part in np.split(clean, cuts))
    best, rest = _best_slope(clean)
    ends = (best.start > 0) + (best.end < n - 1)
    tiny = n * _tiny(values) ** 2
    # parameters: a level a segment and a night a cut; two levels, and each night at which the slope starts or ends within the series
    gain = n / 2 * (1 - remembers) / (1 + remembers) * math.log((steps + tiny) / (rest + tiny))
    gain += math.log(n) / 2 * (2 * len(cuts) + 1 - 2 - ends)
    return best if gain > _MARGIN + math.log(KNOWN_WEIGHT) * any(cut in known for cut in cuts) else None


def _best_slope(values: Floats) -> tuple[Slope, float]:
    """By least squares over a grid of starts and ends, with the sum of squares that is left."""
    n = len(values)
    grid = sorted(set(np.linspace(0, n - 1, min(n, 25)).round().astype(int).tolist()))
    pairs = np.array([(a, b) for a in grid for b in grid if b - a >= _SHORTEST_SLOPE])
    rise = np.clip((np.arange(n) - pairs[:, [0]]) / (pairs[:, [1]] - pairs[:, [0]]), 0, 1)
    centred = rise - rise.mean(axis=1, keepdims=True)
    height = (centred @ values) / (centred**2).sum(axis=1)
    rest = ((values - values.mean()) ** 2).sum() - height**2 * (centred**2).sum(axis=1)
    at = int(rest.argmin())
    before = float(values.mean() - height[at] * rise[at].mean())
    return Slope(int(pairs[at, 0]), int(pairs[at, 1]), before, before + float(height[at])), max(float(rest[at]), 0.0)
