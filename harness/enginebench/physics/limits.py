"""Curves over the batch, where the ruling limit changes, and the batch that a throughput takes. Pure; asks `roofline`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.physics.roofline import Step, decode
from enginebench.physics.setting import Setting

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MOST = 2**20
"""A batch beyond which nobody asks."""


@dataclass(frozen=True)
class Knee:
    """From this batch on something else rules."""

    batch: int
    before: str
    after: str


def curve(setting: Setting, context: float, batches: Sequence[int] = BATCHES) -> list[Step]:
    """The ceiling of a decode step at each of these batches."""
    return [decode(setting, batch, context) for batch in batches]


def knees(setting: Setting, context: float, most: int = 4096) -> list[Knee]:
    """Every batch up to `most` from which another limit rules, found by halving between powers of two."""
    found = []
    low = 1
    while low < most:
        high = min(2 * low, most)
        begin = low
        while (before := decode(setting, begin, context).rules) != decode(setting, high, context).rules:
            first, last = begin, high
            while last - first > 1:
                middle = (first + last) // 2
                first, last = (middle, last) if decode(setting, middle, context).rules == before else (first, middle)
            found.append(Knee(last, before, decode(setting, last, context).rules))
            begin = last
        low = high
    return found


def batch_needed(setting: Setting, tokens_per_s: float, context: float) -> int | None:
    """The smallest batch whose ceiling reaches so many output tokens/s; None where no batch does, whatever memory there is."""
    if decode(setting, MOST, context).tokens_per_s < tokens_per_s:
        return None
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decode(setting, middle, context).tokens_per_s >= tokens_per_s else (middle, high)
    return high


def all_touched(setting: Setting, share: float = 0.95) -> int | None:
    """The batch from which a step touches this share of a layer's experts: beyond it, experts cost no more. None for a dense model."""
    experts, routing = setting.weights.model.experts, setting.routing
    if experts is None or routing is None:
        return None
    low, high = 0, MOST
    if routing.touched(high) < share * experts.count:
        return None
    while high - low > 1:
        middle = math.floor((low + high) / 2)
        low, high = (low, middle) if routing.touched(middle) >= share * experts.count else (middle, high)
    return high
