"""How far two deployments are apart in the same places of the same text. Pure.

Of each distribution only the most probable tokens are known. The KL divergence is the least that these allow. Of tokens that only one of
them reports, the other says that none is more probable than the last one it reports; all the rest is one further outcome. Merging outcomes
never increases a KL divergence (the data processing inequality), so this is a lower bound of the true one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

_LEAST = 1e-9
"""Least probability of the rest: below it rounding decides."""
_ROUNDS = 60
_TIED = 2.5e-5
"""Natural logarithms that are as close are the same: they are stored with five digits, and engines that compute in 16 bits have ties."""


def kl_of_top(reference: Mapping[int, float], other: Mapping[int, float]) -> float:
    """KL(reference || other) in nats, at least; of token id -> natural logarithm of its probability. Each has all tokens that are more
    probable than the last one it has."""
    both = [token for token in reference if token in other]
    p, q = ([math.exp(its[token]) for token in both] for its in (reference, other))
    left_p, left_q = max(_LEAST, 1 - sum(p)), max(_LEAST, 1 - sum(q))
    own, most_q = _alone(reference, other, left_p, left_q)
    others, most_p = _alone(other, reference, left_q, left_p)
    found = _split(left_p, left_q, own, others, most_p, most_q)
    pairs = [*zip(p, q, strict=True), *found]
    total_p, total_q = sum(x for x, _ in pairs), sum(y for _, y in pairs)
    return max(0.0, sum(x / total_p * math.log((x / total_p) / (y / total_q)) for x, y in pairs if x > 0 and y > 0))


def _alone(its: Mapping[int, float], other: Mapping[int, float], left: float, room: float) -> tuple[float, float]:
    """(the probability of the tokens that the other does not report, the most that the other may give them).
    left, room: the probability that each has beside the tokens that both report."""
    missing = [token for token in its if token not in other]
    found = min(sum(math.exp(its[token]) for token in missing), left)
    return found, min(room, len(missing) * math.exp(min(other.values()))) if other else room


def _split(
    left_p: float, left_q: float, own: float, others: float, most_p: float, most_q: float
) -> tuple[tuple[float, float], ...]:  # fmt: skip
    """(p, q) of three outcomes, with the least divergence: tokens that only the reference reports, that only the other reports, the rest.

    Unknown are q of the first, at most `most_q`, and p of the second, at most `most_p`. It is convex in both, so each in turn is set
    to its best value.
    """
    p, q = min(most_p, left_p - own, others * left_p / left_q), min(most_q, left_q - others, own * left_q / left_p)
    for _ in range(_ROUNDS):
        rest_p, rest_q = max(0.0, left_p - own - p), max(0.0, left_q - others - q)
        q = min(most_q, (q + rest_q) * own / (own + rest_p)) if own + rest_p > 0 else 0.0
        rest_q = max(0.0, left_q - others - q)
        p = min(most_p, (p + rest_p) * others / (others + rest_q)) if others + rest_q > 0 else 0.0
    return (own, max(q, _LEAST) if own else 0.0), (p, others), (max(0.0, left_p - own - p), max(_LEAST, left_q - others - q))


def same_best(reference: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether a most probable token of one is a most probable token of the other; several may be equally probable."""
    first, second = ({token for token, value in its.items() if value >= max(its.values()) - _TIED} for its in (reference, other))
    return bool(first & second)


def stretch(pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> tuple[float, float] | None:
    """(slope, correlation) of the second's logarithms over the first's, of the tokens that both report in a place, about their mean there.

    The slope of one model in two precisions is about 1. One far from 1 with a correlation of 1 is another unit: 0.434 is what logarithms to
    base 10 give, 1.443 those to base 2, and 1/T a temperature T. None for fewer than 16 tokens, or where they do not vary.
    """
    shared = [(reference, other, [token for token in reference if token in other]) for reference, other in pairs]
    centred = [
        np.array([[its[token] for token in both] for its in (reference, other)])
        for reference, other, both in shared
        if len(both) > 1 and all(math.isfinite(its[token]) for its in (reference, other) for token in both)
    ]
    if sum(each.shape[1] for each in centred) < 16:
        return None
    x, y = np.hstack([each - each.mean(axis=1, keepdims=True) for each in centred])
    if not (xx := float(x @ x)) or not (yy := float(y @ y)):
        return None
    return float(x @ y) / xx, float(x @ y) / math.sqrt(xx * yy)


def agreed(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of equal tokens before the first that differs."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
