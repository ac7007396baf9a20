"""How good each candidate of a race is, from few and noisy restarts: its own scores, drawn towards what its options predict. Pure.

Restarts vary by a few per cent, as much as candidates do near the best, so the best of many single scores is mostly luck. A Gaussian
process over the options uses every restart for every candidate: candidates are alike as far as they share values, pairs of values, and all
of them. How much each of these explains, and how much restarts vary, is estimated from the restarts themselves (marginal likelihood, with
a prior).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from enginebench.metrics.statistics import Floats

_SHARES = ((0.9, 0.08, 0.02), (0.6, 0.3, 0.1), (0.35, 0.35, 0.3))
"""Of the variance between candidates: by single values, by pairs of values, by what is particular to a candidate."""
_NOISE = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Variance of a restart of full length, over that between candidates."""
_USUAL, _SPREAD = math.log(0.03), 0.7
"""What restarts usually vary by (standard deviation), as a logarithm, and how far off that usually is."""


class Seen(Protocol):
    """A restart."""

    @property
    def candidate(self) -> tuple[int, ...]: ...
    @property
    def score(self) -> float | None: ...
    @property
    def length(self) -> float:
        """Of its cells, as a share of the scenario's."""


@dataclass(frozen=True)
class Expected:
    """The score of a candidate, as it is expected."""

    mean: float
    deviation: float


def estimates(
    history: Sequence[Seen], others: Sequence[tuple[int, ...]] = ()
) -> Mapping[tuple[int, ...], Expected]:  # fmt: skip
    """Of each candidate in the history, and of others. One that failed in any restart is left out."""
    failed = {each.candidate for each in history if each.score is None}
    known = [each for each in history if each.score is not None and each.candidate not in failed]
    if not known:
        return {}
    candidates = list(dict.fromkeys([*(each.candidate for each in known), *(its for its in others if its not in failed)]))
    points = np.array([each.candidate for each in known])
    scores, lengths = np.array([each.score for each in known], dtype=float), np.array([each.length for each in known])
    middle = float((lengths * scores).sum() / lengths.sum())
    best = max((_fitted(points, scores - middle, lengths, shares, noise) for shares, noise in itertools.product(_SHARES, _NOISE)),
               key=lambda its: its.likelihood)  # fmt: skip
    mean, variance = best.at(points, np.array(candidates))
    found = zip(candidates, (middle + mean).tolist(), np.sqrt(variance).tolist(), strict=True)
    return {candidate: Expected(value, deviation) for candidate, value, deviation in found}


@dataclass(frozen=True)
class _Fit:
    likelihood: float
    scale: float
    """Variance between candidates."""
    shares: tuple[float, float, float]
    inverse: Floats
    weights: Floats

    def at(self, points: Floats, candidates: Floats) -> tuple[Floats, Floats]:
        cross = _alike(candidates, points, self.shares)
        variance = 1 - np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        return cross @ self.weights, self.scale * np.maximum(variance, 1e-9)


def _fitted(points: Floats, scores: Floats, lengths: Floats, shares: tuple[float, float, float], noise: float) -> _Fit:
    matrix = _alike(points, points, shares) + np.diag(noise / lengths) + 1e-9 * np.eye(len(points))
    inverse: Floats = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    weights = inverse @ scores
    scale = max(1e-8, float(scores @ weights) / len(scores))
    _, determinant = np.linalg.slogdet(matrix)
    prior = -((0.5 * math.log(noise * scale) - _USUAL) ** 2) / (2 * _SPREAD**2)
    return _Fit(-0.5 * (len(scores) * math.log(scale) + float(determinant)) + prior, scale, shares, inverse, weights)


def _alike(a: Floats, b: Floats, shares: tuple[float, float, float]) -> Floats:
    """1 for equal candidates, else by the values and pairs of values that they share."""
    same = (a[:, None, :] == b[None, :, :]).sum(axis=2)
    count = a.shape[1]
    pairs = same * (same - 1) / max(1, count * (count - 1))
    return np.asarray(shares[0] * same / count + shares[1] * pairs + shares[2] * (same == count))
