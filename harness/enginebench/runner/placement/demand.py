"""What of a plan is handed to a cluster's scheduler next. Pure: the scheduler chooses among the nodes that fit, and waits for a free one.

Units with the same demand begin in the order of the plan, because only one of each demand waits at a time; so repeats stay interleaved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from enginebench.runner.placement.base import Node
from enginebench.runner.placement.fitting import gpus_on
from enginebench.runner.placement.unit_data import Unit


@dataclass(frozen=True)
class Demand:
    """Resources, and the nodes among which the scheduler may choose."""

    nodes: tuple[str, ...]
    cores: int
    gpus: int


def demands_of(unit: Unit, nodes: Sequence[Node]) -> list[Demand]:
    """The demands that a unit can be started with, on nodes that fit it: one for each kind of node. An exclusive unit takes all cores."""
    kinds: dict[tuple[int, int], list[str]] = {}
    for node in nodes:
        cores = node.cores if unit.exclusive else max(1, unit.cores)
        kinds.setdefault((cores, gpus_on(unit, node)), []).append(node.name)
    return [Demand(tuple(names), *kind) for kind, names in kinds.items()]


def next_of(
    waiting: Sequence[tuple[Unit, Sequence[Demand]]], queued: AbstractSet[Demand], busy: Mapping[str, int]
) -> tuple[int, Demand] | None:
    """Position of the unit to hand over now, and its demand; None: wait.

    waiting: in the order of the plan. queued: demands of units that the scheduler has, and that have not begun. busy: node -> units that
    it runs. Of several demands the one whose nodes are least busy.
    """
    blocked = set(queued)
    for place, (_, demands) in enumerate(waiting):
        free = [each for each in demands if each not in blocked]
        if free:
            return place, min(free, key=lambda each: min(busy.get(node, 0) for node in each.nodes))
        blocked.update(demands)
    return None
