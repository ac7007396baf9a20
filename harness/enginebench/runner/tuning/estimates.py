"""How good each candidate of a race is, from few and noisy restarts: its own scores, drawn towards what its options predict. Pure.

Restarts vary by a few per cent, as much as candidates do near the best, so the best of many single scores is mostly luck. An additive model
of the options (ridge regression, one number per value) uses every restart for every candidate; what is particular to a candidate counts
the more, the longer it has run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

_RIDGE = 0.1
"""Full-length restarts that count for 'no effect' of a value."""
_OWN = 3.0
"""Full-length restarts of a candidate after which its own residual counts by half."""


class Seen(Protocol):
    """A restart."""

    @property
    def candidate(self) -> tuple[int, ...]: ...
    @property
    def score(self) -> float | None: ...
    @property
    def length(self) -> float:
        """Of its cells, as a share of the scenario's."""


def estimates(sizes: Sequence[int], history: Sequence[Seen]) -> Mapping[tuple[int, ...], float]:
    """Candidate -> estimated score. One that failed in any restart is left out. sizes: number of values of each option."""
    failed = {each.candidate for each in history if each.score is None}
    known = [each for each in history if each.score is not None and each.candidate not in failed]
    if not known:
        return {}
    rows = np.array([_row(each.candidate, sizes) for each in known])
    scores = np.array([each.score for each in known], dtype=float)
    weights = np.array([each.length for each in known])
    mean = float((weights * scores).sum() / weights.sum())
    normal = rows.T @ (rows * weights[:, None]) + _RIDGE * np.eye(rows.shape[1])
    effects = np.linalg.solve(normal, rows.T @ (weights * (scores - mean)))
    residuals = scores - mean - rows @ effects
    out: dict[tuple[int, ...], float] = {}
    for candidate in dict.fromkeys(each.candidate for each in known):
        own = np.array([each.candidate == candidate for each in known])
        length = float(weights[own].sum())
        particular = float((weights * residuals)[own].sum() / length)
        out[candidate] = mean + float(_row(candidate, sizes) @ effects) + length / (length + _OWN) * particular
    return out


def _row(candidate: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """1 for each value that it has."""
    out = np.zeros(sum(sizes))
    start = 0
    for value, size in zip(candidate, sizes, strict=True):
        out[start + value] = 1.0
        start += size
    return out
