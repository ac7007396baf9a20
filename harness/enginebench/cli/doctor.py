"""`bench doctor`: what this machine can run, and why not."""

from collections.abc import Sequence
from pathlib import Path

import click

import enginebench
from enginebench.cli.placement import nodes_text, placement_options
from enginebench.cli.shared import ADAPTERS, AS_JSON, print_json
from enginebench.domain import plain
from enginebench.domain.formatting import printable

_MARKS = {"ok": "ok  ", "warn": "warn", "no": "no  "}
_COLOURS = {"ok": "green", "warn": "yellow", "no": "red"}


@click.command(epilog="\b\nExamples:\n  bench doctor\n  bench doctor --json")
@ADAPTERS
@placement_options
@AS_JSON
def doctor(adapters: Sequence[Path], on: str | None, settings: dict[str, str], as_json: bool) -> None:
    """Look at this machine: CPU, memory, GPUs, Docker, engines, leftovers of earlier runs.

    With --on, at every node of a cluster.
    """
    if on is not None:
        nodes = enginebench.cluster_nodes(on, settings)
        print_json([plain(node) for node in nodes]) if as_json else click.echo(nodes_text(nodes), nl=False)
        return
    found = enginebench.doctor(adapters)
    if as_json:
        print_json([plain(each) for each in found])
        return
    for each in found:
        click.echo(f"{click.style(_MARKS[each.level], fg=_COLOURS[each.level])}  {each.topic:<12} {printable(each.text)}")
        if each.advice:
            click.echo(f"{'':<19}{each.advice}")
