"""What the stages of a pipeline have. Weights and layers that are alike are counted, because all of them take the same work in a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, TypeVar

from enginebench.physics.geometry import Role
from enginebench.physics.sharding import stage_of, stages
from enginebench.physics.weights import Offload, Stored, Weights, split

T = TypeVar("T")
Counted: TypeAlias = tuple[tuple[T, int], ...]
"""(one of those that are alike, how many they are)"""


@dataclass(frozen=True, eq=False)
class Stage:
    """What a step uses of one stage. Of tables just a few rows per token are read, so the input table counts only if it is the head."""

    parts: Counted[Stored]
    """On the device and on the host together."""
    on_device: Counted[Stored]
    on_host: Counted[Stored]
    layers: Counted[int]


@lru_cache(maxsize=64)
def pipeline(weights: Weights, offload: Offload, count: int) -> tuple[Stage, ...]:
    """The stages of a pipeline of `count` stages."""
    of = stages(len(weights.model.layers), count)
    on_device, on_host = split(weights, offload)
    layers = weights.model.layers
    return tuple(
        Stage(
            parts=_parts(weights, offload, of, stage),
            on_device=_parts(on_device, offload, of, stage),
            on_host=_parts(on_host, offload, of, stage),
            layers=_counted((i, (layers[i], i < offload.blocks)) for i in of[stage]),
        )
        for stage in range(count)
    )


def _parts(weights: Weights, offload: Offload, of: tuple[range, ...], stage: int) -> Counted[Stored]:
    model, last = weights.model, len(weights.model.layers) - 1

    def used(part: Stored) -> bool:
        if part.role in (Role.OTHER, Role.LOOKUP) or (part.role == Role.EMBEDDING and not model.tied):
            return False
        return stage_of(part, last + 1, of, tied=model.tied)[-1] == stage

    def kind(part: Stored) -> Hashable:
        layer = model.layers[min(max(part.layer, 0), last)]
        kept = offload.on_device(part.layer, layer.experts.count) if layer.experts else 0
        return part.role, part.params, part.bytes, layer, kept, 0 <= part.layer < offload.blocks

    return _counted((part, kind(part)) for part in weights.parts if used(part))


def _counted(items: Iterable[tuple[T, Hashable]]) -> Counted[T]:
    """Items with what makes them alike -> the first of each kind, and how many there are."""
    first: dict[Hashable, T] = {}
    counts: Counter[Hashable] = Counter()
    for item, kind in items:
        first.setdefault(kind, item)
        counts[kind] += 1
    return tuple((item, counts[kind]) for kind, item in first.items())
