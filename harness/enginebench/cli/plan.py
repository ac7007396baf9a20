"""`bench plan`: everything that would happen, and nothing launched."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginebench.cli.shared import AS_JSON, installs_of, planned, print_json, scenario_options
from enginebench.errors import UserError

if TYPE_CHECKING:
    from enginebench.domain import JSON, Cell, Deployment, Runtime
    from enginebench.engines.registry import Registry
    from enginebench.scenario import LoadSearch
    from enginebench.scenario.plan import Plan

EXAMPLE_PORT = 8000
_UNCHECKED = "what fits is not checked: no hardware is stated, and no known GPU is here; write e.g. --hardware 2xh100"


@click.command(epilog="\b\nExamples:\n  bench plan quickstart\n  bench plan scenarios/cpu_engines.yaml -v --only engine=transformers")
@scenario_options
@click.option("-v", "--verbose", is_flag=True, help="Also the launch command of every deployment.")
@AS_JSON
def plan(
    scenario: str,
    only: Sequence[str],
    repeats: int | None,
    hardware: str | None,
    runtime: Runtime | None,
    adapters: Sequence[Path],
    verbose: bool,
    as_json: bool,
) -> None:
    """Show the cells of SCENARIO in order, what is skipped and why, and with -v the launch commands. Launches nothing.

    Where the hardware is known (`hardware` in the scenario, --hardware, or the GPUs of this machine), also what fits it, and how long
    the loads take at least.
    """
    from enginebench.cli.capacity import capacities, least_text
    from enginebench.domain.text import printable

    found, registry = planned(scenario, only, repeats, adapters, runtime, hardware)
    if as_json:
        print_json(_as_data(found, registry))
        return
    launches = list(found.launches())
    first = [(deployment, cells) for deployment, cells in launches if cells[0].repeat == found.cells[0].repeat]
    click.echo(_summary(found, len(first), launches))
    known = capacities(found)
    boxed = any(each.runtime == "docker" and registry[each.engine].traits(each).gpus for each, _ in first)
    if said := least_text(found, known) or (_UNCHECKED if boxed and found.bounds is None and hardware is None else ""):
        click.echo(said)
    for deployment, cells in first:
        gpus = registry[deployment.engine].traits(deployment).gpus
        click.echo(f"\n{describe(deployment)}{f'  ({gpus} GPUs)' if gpus > 1 else ''}")
        # Ids cost time, and most plans skip nothing.
        skipped = dict.fromkeys(found.skipped[c.id] for c in cells if c.id in found.skipped) if found.skipped else {}
        if id(deployment) in known and (memory := known[id(deployment)].text):
            click.echo(f"  {memory}")
        for reason in skipped:
            click.echo(f"  skip: {printable(reason)}")
        if verbose:
            commands, problem = launch_commands(deployment, registry)
            for name, command in commands.items():
                click.echo(f"  {name and f'{name} '}$ {command}")
            if problem and problem not in skipped:
                click.echo(f"  not launchable here: {problem}")
    click.echo()
    if loads := _describe_loads(found):
        click.echo(f"loads: {loads}")
    for line in _describe_searches(list(dict.fromkeys(found.searches.values()))):
        click.echo(f"search: {line}")
    if found.scenario.slo is not None:
        click.echo(f"slo: {found.scenario.slo.text}")
    click.echo(f"next: {_next(scenario, only, repeats, hardware, runtime, adapters)}")


def _next(
    scenario: str, only: Sequence[str], repeats: int | None, hardware: str | None, runtime: Runtime | None, adapters: Sequence[Path]
) -> str:
    """The `bench run` of exactly the cells that were shown: without --runtime or --only it would be another run."""
    given = [("--only", one) for one in only] + [("--adapter", str(file)) for file in adapters]
    given += [(name, str(value)) for name, value in (("--repeats", repeats), ("--hardware", hardware), ("--runtime", runtime)) if value]
    return shlex.join(["bench", "run", scenario, *(word for option in given for word in option)])


def describe(deployment: Deployment) -> str:
    """A deployment in one line: 'llamacpp  moe  f16  process  threads=2'."""
    parts = [deployment.engine, deployment.model, deployment.precision, deployment.runtime]
    parts += [f"{k}={v}" for k, v in deployment.options.items()]
    parts += [f"{k}={v}" for k, v in vars(deployment.parallelism).items() if v != 1]
    return "  ".join([*parts, deployment.url or ""]).rstrip()


def launch_commands(deployment: Deployment, registry: Registry) -> tuple[dict[str, str], str | None]:
    """The shell form of the launch commands with example ports, in the order of their start, or why there are none.

    Keys are the names of the deployment's members; the main command, which is the last, has the empty one.
    """
    from enginebench.adapter import Site, Unsupported

    if deployment.runtime == "attach":
        return {}, f"attaches to {deployment.url}, which is up already"
    adapter = registry[deployment.engine]
    if deployment.runtime == "docker":
        from enginebench.runner.containers import commands

        try:
            return commands(adapter, deployment), None
        except (Unsupported, UserError) as reason:
            return {}, str(reason)
    first, *more = range(EXAMPLE_PORT, EXAMPLE_PORT + 1 + adapter.traits(deployment).extra_ports)
    site = Site("127.0.0.1", first, Path("LAUNCH_FOLDER"), f"CHECKPOINT:{deployment.checkpoint}", tuple(more))
    try:
        launch = adapter.launch(deployment, adapter.choose(deployment, installs_of(adapter)), site)
    except Unsupported as reason:
        return {}, str(reason)
    shown = {name: [*(f"{key}={value}" for key, value in env.items()), shlex.join(argv)] for name, argv, env in launch.commands}
    return {name: " ".join(words) for name, words in shown.items()}, None


def _summary(found: Plan, deployments: int, launches: Sequence[tuple[Deployment, Sequence[Cell]]]) -> str:
    """The size of a plan: '2 deployments x 3 loads x 2 repeats = 12 cells, 2 of them skipped, 4 server starts, 160 measured requests'.

    '14 deployments, 8 loads, 3 repeats: 312 cells' where not every deployment has every load. Skipped cells start and send nothing.
    """
    fixed = _fixed(found)
    loads = [_count(len({cell.load for cell in fixed}), "load")] if fixed else []
    searches = len(set(found.searches.values()))
    loads += [_count(searches, "search", "searches")] if searches else []
    repeats = len({cell.repeat for cell in found.cells})
    factors = [_count(deployments, "deployment"), " and ".join(loads), _count(repeats, "repeat")]
    full = searches or len(found.cells) == deployments * len({cell.load for cell in fixed}) * repeats
    cells = f"{'up to ' if searches else ''}{_count(len(found.cells) + found.probes, 'cell')}"
    parts = [f"{' x '.join(factors)} = {cells}" if full else f"{', '.join(factors)}: {cells}"]
    if found.skipped:  # ids cost time, and most plans skip nothing
        parts.append(f"{len(found.skipped):,} of them skipped")
        fixed = [cell for cell in fixed if cell.id not in found.skipped]
        launches = [launch for launch in launches if any(cell.id not in found.skipped for cell in launch[1])]
    parts.append(_count(len(launches), "server start"))
    requests = sum(cell.load.requests for cell in fixed)
    seconds = sum(cell.load.duration_s or 0 for cell in fixed if not cell.load.requests)
    sent = [_count(requests, "measured request")] if requests else []
    sent += [f"{_duration(seconds)} of load by duration"] if seconds else []
    return ", ".join([*parts, *([" and ".join(sent)] if sent else [])])


def _count(number: int, one: str, many: str | None = None) -> str:
    """'1 load', '2,000 loads'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _fixed(found: Plan) -> Sequence[Cell]:
    """The cells that no search begins with."""
    return [cell for cell in found.cells if cell.id not in found.searches] if found.searches else found.cells


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _describe_loads(found: Plan) -> str:
    """The axes of the loads: '1 stream, 4 streams; 64 + 32 tokens; ...', each with the values that occur and say something."""
    from enginebench.domain import load_fields

    loads = dict.fromkeys(cell.load for cell in _fixed(found))
    out = [", ".join(dict.fromkeys(load.level_text for load in loads)), ", ".join(dict.fromkeys(load.shape_text for load in loads))]
    for name, declared in load_fields().items():
        values = [load.value(name) for load in loads]
        shown = declared.role == "extent" or any(value != declared.default for value in values)
        if shown and name != "warmup_requests" and declared.role not in ("level", "lengths", "client"):
            known = dict.fromkeys(value for value in values if value or (value is not None and declared.role != "extent"))
            out += [declared.text(", ".join(f"{value:g}" if isinstance(value, int | float) else value for value in known))] if known else []
    return "; ".join(filter(None, out))


def _describe_searches(searches: Sequence[LoadSearch]) -> list[str]:
    """'max_goodput over rate from 1 to 256, to 10 %: up to 12 cells each; 64 + 32 tokens; requests 400', the last where they differ."""
    from enginebench.analysis.labels import distinguishing_labels

    out: list[str] = []
    labels = distinguishing_labels([search.base.without_level(*search.follows) for search in searches])
    for search, apart in zip(searches, labels, strict=True):
        bounds = f"over {search.over} from {search.start:g} to {search.stop:g}, to {100 * search.precision:g} %"
        cells = f"max_goodput {bounds}: up to {_count(search.most, 'cell')} each"
        out.append("; ".join(part for part in (cells, search.base.shape_text, apart) if part))
    return out


def _as_data(found: Plan, registry: Registry) -> JSON:
    from enginebench.cli.capacity import capacities, least_s
    from enginebench.domain import plain, plain_object

    known = capacities(found)
    # The same in every repeat and for every deployment, and a large plan has thousands.
    load_as_data = {load: plain(load) for load in {cell.load for cell in found.cells}}
    commands: dict[int, tuple[dict[str, str], str | None]] = {}
    launches: list[JSON] = []
    for deployment, cells in found.launches():
        if id(deployment) not in commands:
            commands[id(deployment)] = launch_commands(deployment, registry)
        named, problem = commands[id(deployment)]
        launches.append(
            {
                "deployment": plain(deployment),
                "command": named.get(""),
                "members": {name: command for name, command in named.items() if name},
                "gpus": registry[deployment.engine].traits(deployment).gpus,
                "problem": problem,
                "memory": known[id(deployment)].data if id(deployment) in known else None,
                "cells": [{"id": c.id, "repeat": c.repeat, "load": load_as_data[c.load], "skip": found.skipped.get(c.id)} for c in cells],
            }
        )
    return {
        "schema": 1,
        "scenario": found.scenario.name,
        "hardware": found.bounds.machine.name if found.bounds else None,
        "cells": len(found.cells),
        "least_s": least_s(found.cells, known) if found.bounds else None,
        "probes": found.probes,
        "slo": plain(found.scenario.slo),
        "searches": {first: {**plain_object(search), "most": search.most} for first, search in found.searches.items()},
        "launches": launches,
    }
