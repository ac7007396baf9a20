"""What of a plan is handed to a cluster's scheduler next. Pure: the scheduler chooses among the nodes that fit, and waits for a free one.

Units with the same demand begin in the order of the plan, because only one of each demand waits at a time; so repeats stay interleaved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from enginebench.runner.placement.base import Node
from enginebench.runner.placement.fitting import alike, gpus_on
from enginebench.runner.placement.unit_data import Unit


@dataclass(frozen=True)
class Demand:
    """Resources, and the nodes among which the scheduler may choose."""

    nodes: tuple[str, ...]
    cores: int
    gpus: int
    count: int = 1
    """Nodes that it takes, each with these resources."""


def demands_of(unit: Unit, nodes: Sequence[Node]) -> list[Demand]:
    """The demands that a unit can be started with, on nodes that fit it: one for each kind of node. An exclusive unit takes all cores."""
    count = unit.deployment.nodes
    return [
        Demand(tuple(node.name for node in its), its[0].cores if unit.exclusive else max(1, unit.cores), gpus_on(unit, its[0]), count)
        for its in alike(unit, nodes)
        if len(its) >= count
    ]


def next_of(
    waiting: Sequence[tuple[Unit, Sequence[Demand]]], queued: AbstractSet[Demand], busy: Mapping[str, int]
) -> tuple[int, Demand] | None:
    """Position of the unit to hand over now, and its demand; None: wait.

    waiting: in the order of the plan. queued: demands of units that the scheduler has, and that have not begun. busy: node -> units that
    it runs. Of several demands the one whose nodes are least busy. Nothing is handed over behind a demand of several nodes that waits:
    whatever took one of its nodes would keep it waiting.
    """
    blocked = set(queued)
    if any(each.count > 1 for each in queued):
        return None
    for place, (_, demands) in enumerate(waiting):
        free = [each for each in demands if each not in blocked]
        if free:
            return place, min(free, key=lambda each: min(busy.get(node, 0) for node in each.nodes))
        blocked.update(demands)
    return None
