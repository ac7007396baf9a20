"""What a node says of itself: its facts, the engines it has, and the labels by which a scenario can ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enginebench.domain import JSON, plain_object
from enginebench.machine.labels import labels_of
from enginebench.runner.placement.unit_data import VERSION


@dataclass(frozen=True)
class NodeFacts:
    """Plain data; `node.json` and the fleet view are made of it."""

    machine: Mapping[str, JSON]
    """`enginebench.machine.host.facts`."""
    engines: Mapping[str, str]
    """Engine -> version of its best installation here."""
    labels: Mapping[str, str]
    enginebench: str = VERSION


def node_facts() -> NodeFacts:
    """Of this machine. Takes about as long as `bench engines`."""
    from enginebench.engines.installed import installs_of
    from enginebench.engines.registry import discover
    from enginebench.machine.host import facts

    machine = plain_object(facts())
    adapters, _ = discover().survey()
    found = {adapter.name: installs[0].version for adapter in adapters if (installs := installs_of(adapter))}
    return NodeFacts(machine, found, labels_of(machine, found))
