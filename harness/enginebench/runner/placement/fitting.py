"""Which nodes fit a unit, and why others do not. Pure: nodes and units in, names and sentences out. A cluster's scheduler does the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.domain.formatting import counted
from enginebench.physics.detect import count_alike, gpus_of
from enginebench.runner.placement.base import Choice, Node
from enginebench.runner.placement.unit_data import Unit

_MOST = 4
"""Nodes that a sentence names."""


def choice_of(unit: Unit, nodes: Sequence[Node]) -> Choice:
    """The nodes that fit, or one sentence with what each lacks; nodes that lack the same are named together."""
    reasons, wanted = {node.name: why_not(unit, node) for node in nodes}, unit.deployment.nodes
    fit = [node for node in nodes if not reasons[node.name]]
    if len(fit) >= wanted > 1 and max(map(len, alike(unit, fit))) < wanted:
        return Choice(why_not=f"{wanted} nodes with as many cores and GPUs needed; {_names([node.name for node in fit])} differ")
    if len(fit) >= wanted:
        return Choice(tuple(node.name for node in fit))
    if not nodes:
        return Choice(why_not="the cluster has no node")
    few = f"{counted(wanted, 'node')} needed, {_fitting(fit)}" if wanted > 1 else ""
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    lacks = [f"{_names(names)}: {reason}" for reason, names in groups.items() if reason]
    return Choice(why_not="; ".join(filter(None, [few, *lacks])))


def alike(unit: Unit, nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes in groups, each of which a unit asks the same of. An exclusive unit takes all cores."""
    kinds: dict[tuple[int, int], list[Node]] = {}
    for node in nodes:
        kinds.setdefault((node.cores if unit.exclusive else 0, gpus_on(unit, node)), []).append(node)
    return list(kinds.values())


def why_not(unit: Unit, node: Node) -> str:
    """What keeps a unit from a node; empty if nothing does."""
    return node.problem or next(_lacks(unit, node), "")


def gpus_on(unit: Unit, node: Node) -> int:
    """Devices that a unit takes on this node: none where it needs none and the node has none."""
    return unit.gpus_each if unit.needs_gpus or node.gpus else 0


def _lacks(unit: Unit, node: Node) -> Iterator[str]:
    for key, wanted in unit.deployment.node.items():
        has = node.name if key == "name" else node.labels.get(key)
        if has != wanted:
            yield f"its {key} is {has}, not {wanted}" if has is not None else f"it has no label {key}"
    hardware, found = unit.setting.hardware, gpus_of(node.facts)
    same = count_alike(hardware, found) if hardware and unit.needs_gpus and not unit.setting.hardware_by_command and found else None
    if same is not None and same < unit.gpus_each:
        yield f"{counted(unit.gpus_each, 'GPU')} as in {hardware} needed, it has {', '.join(gpu.name for gpu in found)}"
    elif gpus_on(unit, node) > node.gpus:
        yield f"{counted(unit.gpus_each, 'GPU')} needed, it has {node.gpus or 'none'}"
    started_here = unit.deployment.runtime in ("process", "in-process")
    if started_here and node.engines is not None and unit.deployment.engine not in node.engines:
        yield f"{unit.deployment.engine} is not installed there"
    if not unit.exclusive and unit.cores > node.cores > 0:
        yield f"{counted(unit.cores, 'core')} needed, it has {node.cores}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{', '.join(names[:_MOST])}{more}"


def _fitting(nodes: Sequence[Node]) -> str:
    return f"{_names([node.name for node in nodes]) or 'none'} {'fit' if len(nodes) > 1 else 'fits'}"
