"""What a cluster is, before anything is sent there: its nodes, where the units of a plan would go, what would be submitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enginebench.runner.placement.base import Node, find
from enginebench.runner.placement.unit_plan import units_of
from enginebench.scenario.plan import Plan


@dataclass(frozen=True)
class Placing:
    """Where a server start with its loads would go."""

    unit: str
    """'llamacpp f16, repeat 2'."""
    cells: int
    nodes: tuple[str, ...] = ()
    """The nodes that fit; the cluster's scheduler chooses among them."""
    why_not: str = ""
    """Why none fits."""


def cluster_nodes(on: str, settings: Mapping[str, str] | None = None) -> list[Node]:
    """Every node that `on` ('ray://HOST:10001', 'local-ray', 'slurm', 'k8s') reaches, with what it can run and what keeps it from that.

    settings: those of the placement, as `--place KEY=VALUE`. UserError when the cluster does not answer.
    """
    with find(on, settings or {}) as placement:
        return list(placement.nodes())


def placing(plan: Plan, on: str, settings: Mapping[str, str] | None = None) -> list[Placing]:
    """Which unit of a plan goes where, in plan order. Starts nothing. UserError when the cluster does not answer."""
    units = units_of(plan)
    with find(on, settings or {}) as placement:
        choices = placement.choices_of(units)
    return [Placing(unit.name, len(unit.loads), its.nodes, its.why_not) for unit, its in zip(units, choices, strict=True)]


def submission(plan: Plan, on: str, settings: Mapping[str, str] | None = None) -> str:
    """What would be submitted for a plan: scripts or manifests. UserError for a placement that submits none."""
    placement = find(on, settings or {})
    return placement.dry_run(units_of(plan))


def install_on(on: str, engine: str, settings: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Install an engine on every node; name of a node -> what is there then, or why it failed. UserError where nodes install nothing."""
    with find(on, settings or {}) as placement:
        return placement.install(engine)
