"""How far two deployments are apart in the same places of the same text. Pure.

Of each distribution only the most probable tokens are known. The KL divergence is computed over the tokens that both report, with all the
rest as one further outcome. Merging outcomes never increases a KL divergence, so this is a lower bound of the true one (the data processing
inequality).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_LEAST = 1e-9
"""Least probability of the rest: below it rounding decides."""


def kl_of_top(reference: Mapping[int, float], other: Mapping[int, float]) -> float:
    """KL(reference || other) in nats, at least; of token id -> natural logarithm of its probability."""
    both = [token for token in reference if token in other]
    p, q = ([math.exp(its[token]) for token in both] for its in (reference, other))
    p.append(max(_LEAST, 1 - sum(p)))
    q.append(max(_LEAST, 1 - sum(q)))
    total_p, total_q = sum(p), sum(q)
    return max(0.0, sum(x / total_p * math.log((x / total_p) / (y / total_q)) for x, y in zip(p, q, strict=True) if x > 0 and y > 0))


def agreed(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of equal tokens before the first that differs."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
