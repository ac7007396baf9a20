"""Whether the restarts that are left can still decide a load: predicted from the spread of those seen so far. Pure.

The prediction is the predictive power of a sequential test: restarts yet to come are drawn from what is known of each deployment (its mean
and its spread, both uncertain, on logarithms), and judged by the rules of `Field` at the looks that are left. To stop because a decision is
unlikely claims nothing, so it cannot add a false winner (non-binding futility; Lachin 2005, A review of methods for futility stopping).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from enginebench.metrics.statistics import Floats, cut

LEAST_CHANCE = 0.2
"""Of a decision, below which restarts are not worth their time."""
_DRAWS = 300
_SHARED = 3
"""Degrees of freedom that the spread of all deployments counts for in that of each."""
_POWER = 0.8
_MOST = 999

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Side:
    """A deployment at one load."""

    values: tuple[float, ...]
    counts: tuple[int, ...]
    """How many restarts it will have at each look that is left, if it goes on."""


@dataclass(frozen=True)
class Forecast:
    """What the looks that are left will probably show."""

    decided: float
    """Probability that one of them tells for each of the others whether it is equal to the best or behind."""
    behind: tuple[float, ...]
    """For each of the others, that one of them shows it and the best to differ."""
    needed: int | None
    """Restarts of each deployment that would tell with a probability of 80 %, if the differences are those seen; None: 1,000 or more."""

    @property
    def text(self) -> str:
        """'about 60 restarts of each would tell'."""
        if self.needed is None:
            return "1,000 restarts of each would not tell"
        digits = 10 ** max(0, len(str(self.needed)) - 2)
        return f"about {math.ceil(self.needed / digits) * digits} restarts of each would tell"


def forecast(best: Side, others: Sequence[Side], errors: Sequence[float], margin: float) -> Forecast | None:
    """errors: of each look that is left. margin: below which a difference is equal in practice, as a share.

    None where nothing can be predicted: no look is left, a figure of 0 or below, or fewer than two restarts of a deployment.
    """
    sides = (best, *others)
    if not errors or not others or any(len(side.values) < 2 or min(side.values) <= 0 for side in sides):
        return None
    logs = [np.log(side.values) for side in sides]
    squares, free = ([float(((its - its.mean()) ** 2).sum()) for its in logs], [len(its) - 1 for its in logs])
    spread = sum(squares) / sum(free)
    variances = [(square + _SHARED * spread) / (n + _SHARED) for square, n in zip(squares, free, strict=True)]
    random = np.random.default_rng(0)
    first, *rest = (_continued(its, variance, max(side.counts), random) for its, variance, side in zip(logs, variances, sides, strict=True))
    behind, told = np.zeros((len(rest), _DRAWS), bool), np.zeros(_DRAWS, bool)
    for look, error in enumerate(errors):
        at = [_judged(first[:, : best.counts[look]], its[:, : side.counts[look]], error, margin)
              for its, side in zip(rest, others, strict=True)]  # fmt: skip
        behind |= np.array([differs for differs, _ in at])
        told |= np.all([differs | equal for differs, equal in at], axis=0)
    apart = [abs(float(np.median(logs[0][:, None] - its[None, :]))) for its in logs[1:]]
    goals = [_restarts(gap, variances[0] + variance, errors[-1], margin) for gap, variance in zip(apart, variances[1:], strict=True)]
    needed = math.ceil(max(goals))
    return Forecast(float(told.mean()), tuple(behind.mean(axis=1).tolist()), needed if needed <= _MOST else None)


def _continued(logs: Floats, variance: float, restarts: int, random: np.random.Generator) -> Floats:
    """The restarts seen, followed by drawn ones: one row for each draw."""
    free = len(logs) - 1 + _SHARED
    spread = np.sqrt(variance * free / random.chisquare(free, _DRAWS))
    mean = logs.mean() + spread / math.sqrt(len(logs)) * random.standard_normal(_DRAWS)
    new = mean[:, None] + spread[:, None] * random.standard_normal((_DRAWS, max(0, restarts - len(logs))))
    return np.hstack([np.broadcast_to(logs, (_DRAWS, len(logs))), new])


def _judged(a: Floats, b: Floats, error: float, margin: float) -> tuple[Flags, Flags]:
    """For each draw whether the two surely differ, by no less than the margin, and whether they are surely equal within it: the rank test
    and the interval of Hodges and Lehmann, as in `Field`."""
    differences = np.sort((a[:, :, None] - b[:, None, :]).reshape(len(a), -1), axis=1)
    none: Flags = np.zeros(len(a), dtype=np.bool_)
    middle = np.median(differences, axis=1)
    outside, coverage = cut(a.shape[1], b.shape[1], 1 - error)
    apart = (differences[:, outside] > 0) | (differences[:, -1 - outside] < 0) if coverage >= 1 - error else none
    outside, coverage = cut(a.shape[1], b.shape[1], 1 - 2 * error)
    within = (differences[:, outside] > math.log1p(-margin)) & (differences[:, -1 - outside] < math.log1p(margin))
    return apart & (np.abs(middle) >= math.log1p(margin)), within if coverage >= 1 - 2 * error - 1e-9 else none


def _restarts(gap: float, variance: float, error: float, margin: float) -> float:
    """Restarts of each after which an interval is short enough to tell. variance: of a difference of two restarts."""
    limit = math.log1p(margin)
    two_sided, room = (True, gap) if gap >= limit else (False, limit - gap)
    z = NormalDist().inv_cdf(1 - error / (2 if two_sided else 1)) + NormalDist().inv_cdf(_POWER)
    return math.inf if room <= 0 else min(1e9, math.pi / 3 * variance * (z / room) ** 2)
