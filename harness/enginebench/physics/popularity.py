"""The expected number of distinct experts that a decode step touches, for uniform, skewed, concentrated and measured routing.

Assumes that the tokens of a batch choose independently. In real batches choices are often correlated, so fewer experts are touched; if
single choices were recorded, `enginebench.physics.routing.distinct_per_step` counts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enginebench.errors import UserError
from enginebench.physics.routing import Routing

Chances = npt.NDArray[np.float64]
UNIFORM = "uniform routing"


@dataclass(frozen=True, eq=False)
class Popularity:
    chances: Chances
    """[layers, experts]: the probability that a token uses an expert. Rows are descending and sum to top_k."""
    source: str

    def touched(self, tokens: float, first: int = 0, last: int | None = None) -> float:
        """Distinct experts of a layer that a step of `tokens` tokens touches, among those ranked first..last-1 by popularity.

        The sum over experts of 1 - (1 - q)^tokens, averaged over the layers; E (1 - (1 - k/E)^tokens) for uniform routing.
        """
        chosen = self.chances[:, first:last]
        return float((1.0 - (1.0 - chosen) ** tokens).sum(axis=1).mean())

    def hit_rate(self, kept: int) -> float:
        """Share of all choices that hit the `kept` most popular experts of each layer."""
        return float(self.chances[:, :kept].sum() / self.chances.sum())


def uniform(experts: int, top_k: int) -> Popularity:
    return Popularity(np.full((1, experts), top_k / experts), UNIFORM)


def concentrated(experts: int, top_k: int) -> Popularity:
    """All tokens choose the same experts: no routing touches fewer, whatever the batch."""
    return Popularity((np.arange(experts) < top_k).astype(np.float64)[None], "the same experts for all tokens")


def zipf(experts: int, top_k: int, exponent: float) -> Popularity:
    """The n-th most popular expert is chosen in proportion to n^-exponent, at most once per token."""
    if exponent < 0:
        raise UserError(f"invalid Zipf exponent {exponent:g}", key="routing", advice="write a number from 0 (uniform) to about 2")
    weights = np.arange(1, experts + 1, dtype=np.float64) ** -exponent
    return Popularity(_capped(weights[None], top_k), f"Zipf routing, exponent {exponent:g}")


def measured(routing: Routing, top_k: int) -> Popularity:
    """From measured counts. top_k: of the model (counts do not include it)."""
    counts = -np.sort(-routing.counts.astype(np.float64), axis=1)
    what = f"routing of {routing.model} on {', '.join(routing.inputs)}" if routing.inputs else f"routing counted by {routing.source}"
    return Popularity(_capped(counts[counts.sum(axis=1) > 0], top_k), what)


def _capped(weights: Chances, total: int) -> Chances:
    """Rows in proportion to `weights` that sum to `total`. Probabilities above 1 are cut, and the excess goes to the other experts."""
    if total > weights.shape[1]:
        raise UserError(f"a token cannot use {total} of {weights.shape[1]} experts", key="top_k")
    chances = np.zeros_like(weights)
    for row, out in zip(weights, chances, strict=True):
        certain = 0
        while certain < total and row[certain:].sum() > 0 and (total - certain) * row[certain] > row[certain:].sum():
            certain += 1
        out[:certain] = 1.0
        rest = row[certain:].sum()
        out[certain:] = (total - certain) * row[certain:] / rest if rest > 0 else 0.0
    return chances
