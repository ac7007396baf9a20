"""`--on` and what goes with it: options of the verbs that can work on a cluster, and how nodes and placed units are shown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

import enginebench
from enginebench.domain.formatting import counted, printable
from enginebench.errors import UserError


def placement_options(command: Callable[..., object]) -> Callable[..., object]:
    """--on, --place, --partition and --namespace, which the command receives as `on` and `settings`."""

    @functools.wraps(command)
    def called(place: Sequence[str], partition: str | None, namespace: str | None, on: str | None, **given: Any) -> object:
        settings = _settings(place) | {key: value for key, value in (("partition", partition), ("namespace", namespace)) if value}
        if settings and on is None:
            raise UserError(
                f"{next(iter(settings))} says where on a cluster, and no cluster is named", advice="write --on slurm, or --on k8s"
            )
        return command(**given, on=on, settings=settings)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called


_OPTIONS = (
    click.option(
        "--on", metavar="CLUSTER", help="Measure there: ray://HOST:PORT, ray, local-ray, slurm, k8s or local; see docs/clusters.md."
    ),
    click.option("--place", multiple=True, metavar="KEY=VALUE", help="A setting of that cluster, e.g. time=02:00:00 (repeatable)."),
    click.option("--partition", metavar="NAME", help="The same as --place partition=NAME."),
    click.option("--namespace", metavar="NAME", help="The same as --place namespace=NAME."),
)


def _settings(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UserError(f"--place {item}: expected KEY=VALUE")
        found[key] = value
    return found


def nodes_text(nodes: Sequence[enginebench.Node]) -> str:
    """One line for each node with what it has, then its engines and labels."""
    lines: list[str] = []
    for node in nodes:
        cpu = str(node.facts.get("cpu") or "")
        has = [counted(node.cores, "core") if node.cores else "", cpu, counted(node.gpus, "GPU") if node.gpus else "no GPU"]
        lines.append(f"{'no  ' if node.problem else 'ok  '}  {node.name:<24} {node.problem or ', '.join(filter(None, has))}")
        engines = ", ".join(f"{name} {version}" for name, version in (node.engines or {}).items())
        labels = " ".join(f"{key}={value}" for key, value in node.labels.items() if not key.startswith(("engine-", "ray.io/")))
        lines += [f"{'':<6}{line}" for line in (f"engines: {engines}" if engines else "", f"labels: {labels}" if labels else "") if line]
    return "\n".join(map(printable, lines)) + "\n"


def placing_text(units: Sequence[enginebench.Placing]) -> str:
    """Which unit goes where; those that cannot be placed say why."""
    width = max((len(each.unit) for each in units), default=0)
    lines = [
        f"  {each.unit:<{width}}  {counted(each.cells, 'cell'):>9}  {' or '.join(each.nodes) or f'cannot be placed: {each.why_not}'}"
        for each in units
    ]
    placed = sum(bool(each.nodes) for each in units)
    return "\n".join(map(printable, [f"{placed} of {counted(len(units), 'unit')} can be placed:", *lines])) + "\n"
