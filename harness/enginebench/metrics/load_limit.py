"""The load at which the share of good requests falls below a limit, from measured shares that are noisy and need not fall steadily.

Attainment falls as the load rises, but a measured share may rise again by chance. So it is fitted by isotonic regression (pool adjacent
violators; Barlow et al. 1972), weighted by requests, and the limit is interpolated between the last level above it and the first below.
The interval comes from a bootstrap over restarts, and over the requests within each. Pure; it does not know cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from enginebench.metrics.statistics import CONFIDENCE, Floats

_RESAMPLES = 1000
_EPSILON = 1e-9


@dataclass(frozen=True)
class Probe:
    """One measurement at one level."""

    level: float
    good: float
    """Requests that met all limits."""
    requests: float
    restart: int = 0


@dataclass(frozen=True)
class LoadLimit:
    """Where attainment falls below the share; levels in their unit."""

    level: float | None
    """The interpolated limit; None if no level is above the share, or none is below."""
    low: float | None
    """95 % interval: the highest level that surely holds; None: not even the lowest surely does."""
    high: float | None
    """The lowest level that surely does not; None: not even the highest surely fails."""
    holds: float | None
    """The highest level whose fitted attainment reaches the share, and whose measured attainment does."""
    fitted: Mapping[float, float]
    """Level -> fitted attainment."""
    draws: tuple[float, ...] = ()
    """The limit in each bootstrap draw; 0 below the lowest level, infinite above the highest."""

    def above(self, other: LoadLimit) -> bool:
        """Whether this limit surely is the higher one: it is in 95 % of the draws, each against one of the other's."""
        pairs = list(zip(self.draws, reversed(other.draws), strict=False))
        return sum(a > b for a, b in pairs) >= CONFIDENCE * len(pairs) > 0


def load_limit(probes: Sequence[Probe], share: float) -> LoadLimit | None:
    """The limit from all probes of one deployment; None without any. share: of the requests that must be good, above 0, at most 1.

    With a single restart the interval is over requests only: what another restart would change is not in it.
    """
    if not probes:
        return None
    levels = sorted({probe.level for probe in probes})
    good, requests = _table(probes, levels)
    fitted = _falling(good.sum(axis=0).tolist(), requests.sum(axis=0).tolist())
    measured = good.sum(axis=0) / requests.sum(axis=0)
    passing = [i for i in range(len(levels)) if fitted[i] >= share - _EPSILON and measured[i] >= share - _EPSILON]
    last = _last(fitted, share)
    draws = list(_draws(good, requests))
    low, high = _interval(draws, levels, share)
    between = _between(levels, fitted, last, share) if 0 <= last < len(levels) - 1 else None
    return LoadLimit(
        between, low, high, levels[passing[-1]] if passing else None, dict(zip(levels, fitted, strict=True)),
        tuple(_limit(levels, each, share) for each in draws),
    )  # fmt: skip


def _table(probes: Sequence[Probe], levels: Sequence[float]) -> tuple[Floats, Floats]:
    """Good requests and requests, one row for each restart and one column for each level."""
    restarts = sorted({probe.restart for probe in probes})
    good, requests = np.zeros((len(restarts), len(levels))), np.zeros((len(restarts), len(levels)))
    for probe in probes:
        at = restarts.index(probe.restart), levels.index(probe.level)
        good[at] += probe.good
        requests[at] += probe.requests
    return good, requests


def _falling(good: Sequence[float], requests: Sequence[float]) -> list[float]:
    """The attainments nearest to the measured ones that never rise with the level; levels without requests take a neighbour's."""
    blocks: list[tuple[float, float, float, int]] = []  # good, requests, their ratio, number of levels
    for its, of in zip(good, requests, strict=True):
        rate, n = its / of if of > 0 else 0.0, 1
        while blocks and blocks[-1][2] < rate:
            before, of_before, _, levels = blocks.pop()
            its, of, n = before + its, of_before + of, levels + n  # noqa: PLW2901  # the pooled block
            rate = its / of if of > 0 else 0.0
        blocks.append((its, of, rate, n))
    return [rate for _, _, rate, n in blocks for _ in range(n)]


def _last(fitted: Sequence[float], share: float) -> int:
    """Index of the last level that reaches the share; -1 without any."""
    return sum(each >= share - _EPSILON for each in fitted) - 1


def _between(levels: Sequence[float], fitted: Sequence[float], last: int, share: float) -> float:
    """The crossing, interpolated in the logarithm of the level."""
    above, below = fitted[last], fitted[last + 1]
    part = (above - share) / (above - below) if above > below else 0.0
    low, high = levels[last], levels[last + 1]
    return low * math.exp(max(0.0, min(1.0, part)) * math.log(high / low))


def _limit(levels: Sequence[float], fitted: Sequence[float], share: float) -> float:
    last = _last(fitted, share)
    return 0.0 if last < 0 else math.inf if last == len(levels) - 1 else _between(levels, fitted, last, share)


def _interval(draws: Sequence[Sequence[float]], levels: Sequence[float], share: float) -> tuple[float | None, float | None]:
    """(level that surely holds, level that surely does not), from the bracket of each draw; None beyond the measured levels."""
    lasts = sorted(_last(fitted, share) for fitted in draws)
    tail = (1 - CONFIDENCE) / 2
    low, high = lasts[int(tail * len(lasts))], lasts[math.ceil((1 - tail) * len(lasts)) - 1] + 1
    return levels[low] if low >= 0 else None, levels[high] if high < len(levels) else None


def _draws(good: Floats, requests: Floats) -> Iterator[list[float]]:
    """Fits to resampled restarts, whose shares are drawn from what their requests allow: Beta(good + 1/2, bad + 1/2), after Jeffreys."""
    random = np.random.default_rng(0)
    n = len(good)
    ups, downs = good + 0.5, requests - good + 0.5
    for _ in range(_RESAMPLES):
        rows = random.integers(n, size=n)
        of = requests[rows]
        drawn = (random.beta(ups[rows], downs[rows]) * of).sum(axis=0).tolist()
        yield _filled(drawn, of.sum(axis=0).tolist())


def _filled(good: Sequence[float], requests: Sequence[float]) -> list[float]:
    """The fit. A level that no resampled restart has takes the attainment of the next measured one above it, else of the last one below."""
    if all(requests):
        return _falling(good, requests)
    kept = [i for i, of in enumerate(requests) if of > 0]
    if not kept:
        return [0.0] * len(requests)
    fitted = dict(zip(kept, _falling([good[i] for i in kept], [requests[i] for i in kept]), strict=True))
    return [fitted[next((j for j in kept if j >= i), kept[-1])] for i in range(len(requests))]
