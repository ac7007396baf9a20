"""Ceilings over the batch size: curves, changes of the bottleneck, and the batch that a throughput needs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.physics.roofline import Step, decode
from enginebench.physics.setting import Setting

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MAX_BATCH = 2**20


@dataclass(frozen=True)
class Knee:
    """A batch size from which on the bottleneck is another one."""

    batch: int
    before: str
    after: str


def curve(setting: Setting, context: float, batches: Sequence[int] = BATCHES) -> list[Step]:
    """The ceilings of a decode step at these batch sizes."""
    return [decode(setting, batch, context) for batch in batches]


def knees(setting: Setting, context: float, most: int = 4096) -> list[Knee]:
    """Every change of the bottleneck up to batch `most`, found by bisection between powers of two."""

    def bottleneck(batch: int) -> str:
        return decode(setting, batch, context).bottleneck

    found = []
    low = 1
    while low < most:
        high = min(2 * low, most)
        begin = low
        while (before := bottleneck(begin)) != bottleneck(high):
            batch = bisect_left(range(high), x=True, lo=begin + 1, key=lambda batch, before=before: bottleneck(batch) != before)  # type: ignore[misc]
            found.append(Knee(batch, before, bottleneck(batch)))
            begin = batch
        low = high
    return found


def batch_needed(setting: Setting, tokens_per_s: float, context: float) -> int | None:
    """The smallest batch with a ceiling of at least this many output tokens/s; None if there is none. Ignores memory capacity."""
    batch = bisect_left(range(MAX_BATCH + 1), x=True, lo=1, key=lambda batch: decode(setting, batch, context).tokens_per_s >= tokens_per_s)
    return batch if batch <= MAX_BATCH else None


def all_touched(setting: Setting, share: float = 0.95) -> int | None:
    """The batch from which on a step touches this share of a layer's experts, so that experts cost no more. None for a dense model."""
    experts, routing = setting.weights.model.experts, setting.routing
    if experts is None or routing is None:
        return None
    batch = bisect_left(range(MAX_BATCH + 1), x=True, lo=1, key=lambda batch: routing.touched(batch) >= share * experts.count)
    return batch if batch <= MAX_BATCH else None
