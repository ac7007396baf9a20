"""`bench plan`: everything that would happen, and nothing launched."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginebench.cli.shared import AS_JSON, installs_of, planned, print_json, scenario_options

if TYPE_CHECKING:
    from enginebench.nouns import JSON, Deployment
    from enginebench.plan import Plan
    from enginebench.registry import Registry


@click.command(epilog="\b\nExamples:\n  bench plan quickstart\n  bench plan scenarios/cpu_engines.yaml -v --only engine=transformers")
@scenario_options
@click.option("-v", "--verbose", is_flag=True, help="Also the launch command of every deployment.")
@AS_JSON
def plan(scenario: str, only: Sequence[str], repeats: int | None, adapters: Sequence[Path], verbose: bool, as_json: bool) -> None:
    """Show the cells of SCENARIO in order, what is skipped and why, and with -v the launch commands. Launches nothing."""
    from enginebench.text import printable

    found, registry = planned(scenario, only, repeats, adapters)
    if as_json:
        print_json(_as_data(found, registry))
        return
    launches = list(found.launches())
    first = [(deployment, cells) for deployment, cells in launches if cells[0].repeat == found.cells[0].repeat]
    repeats_now = len({cell.repeat for cell in found.cells})
    loads = {cell.load for cell in found.cells}
    click.echo(
        f"{len(first)} deployments x {len(loads)} loads x {repeats_now} repeats = {len(found.cells)} cells, "
        f"{len(launches)} server starts, {sum(c.load.requests for c in found.cells):,} measured requests"
    )
    for deployment, cells in first:
        click.echo(f"\n{describe(deployment)}")
        # Ids cost time, and most plans skip nothing.
        skipped = dict.fromkeys(found.skipped[c.id] for c in cells if c.id in found.skipped) if found.skipped else {}
        for reason in skipped:
            click.echo(f"  skip: {printable(reason)}")
        if verbose and not skipped:
            command, problem = launch_command(deployment, registry)
            click.echo(f"  $ {command}" if command else f"  not launchable here: {problem}")
    click.echo("\nloads: " + _describe_loads(found))
    click.echo(f"next: bench run {scenario}")


def describe(deployment: Deployment) -> str:
    """A deployment in one line: 'llamacpp  moe  f16  process  threads=2'."""
    parts = [deployment.engine, deployment.model, deployment.precision, deployment.runtime]
    parts += [f"{k}={v}" for k, v in deployment.options.items()]
    parts += [f"{k}={v}" for k, v in vars(deployment.parallelism).items() if v != 1]
    return "  ".join([*parts, deployment.url or ""]).rstrip()


def launch_command(deployment: Deployment, registry: Registry) -> tuple[str | None, str | None]:
    """The shell form of the launch command with an example port, or why there is none."""
    from enginebench.adapter import Site, Unsupported

    if deployment.runtime == "attach":
        return None, f"attaches to {deployment.url}, which is up already"
    adapter = registry[deployment.engine]
    try:
        install = adapter.choose(deployment, installs_of(adapter))
        launch = adapter.launch(deployment, install, Site("127.0.0.1", 8000, Path("LAUNCH_FOLDER"), f"CHECKPOINT:{deployment.checkpoint}"))
    except Unsupported as reason:
        return None, str(reason)
    env = [f"{name}={value}" for name, value in launch.env.items()]
    return " ".join([*env, shlex.join(launch.argv)]), None


def _describe_loads(found: Plan) -> str:
    """The axes of the loads: 'concurrency 1, 4; input_tokens 64; ...', each with the values that occur."""
    axes = {
        name: sorted({getattr(cell.load, name) for cell in found.cells})
        for name in ("concurrency", "input_tokens", "output_tokens", "requests")
    }
    return "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in axes.items())


def _as_data(found: Plan, registry: Registry) -> JSON:
    from enginebench.nouns import plain

    # The same in every repeat and for every deployment, and a large plan has thousands.
    load_as_data = {load: plain(load) for load in {cell.load for cell in found.cells}}
    commands: dict[int, tuple[str | None, str | None]] = {}
    launches: list[JSON] = []
    for deployment, cells in found.launches():
        if id(deployment) not in commands:
            commands[id(deployment)] = launch_command(deployment, registry)
        command, problem = commands[id(deployment)]
        launches.append(
            {
                "deployment": plain(deployment),
                "command": command,
                "problem": problem,
                "cells": [{"id": c.id, "repeat": c.repeat, "load": load_as_data[c.load], "skip": found.skipped.get(c.id)} for c in cells],
            }
        )
    return {"schema": 1, "scenario": found.scenario.name, "cells": len(found.cells), "launches": launches}
