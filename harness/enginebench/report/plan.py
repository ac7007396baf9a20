"""A plan as text for the terminal and as data: its size, its deployments with their memory and commands, its loads and searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from enginebench.analysis.labels import distinguishing_labels
from enginebench.domain import JSON, Cell, Deployment, Search, load_fields, plain, plain_object
from enginebench.domain.formatting import counted, duration, percent, printable
from enginebench.scenario.capacity import Capacity, capacities, time_of
from enginebench.scenario.defaults import search_seconds
from enginebench.scenario.plan import Plan

PLAN_SCHEMA = 1
"""Version of `plan_to_dict`. Raise it when a reader of the old form would misread the new one."""

_UNCHECKED = "what fits is not checked: no hardware is stated, and no known GPU is here; write e.g. --hardware 2xh100"


class Commands(Protocol):
    """The launch commands of one deployment: `enginebench.LaunchCommands`."""

    @property
    def deployment(self) -> Deployment: ...

    @property
    def commands(self) -> Mapping[str, str]: ...

    @property
    def nodes(self) -> Mapping[str, int]: ...

    @property
    def problem(self) -> str | None: ...


def plan_to_text(plan: Plan, commands: Sequence[Commands] = (), *, verbose: bool = True) -> str:
    """The plan for the terminal. commands: of its deployments, to be shown with `verbose`; otherwise only why there are none."""
    shown = {id(each.deployment): each for each in commands}
    launches = list(plan.launches())
    first = [(deployment, cells) for deployment, cells in launches if cells[0].repeat == plan.cells[0].repeat]
    known = capacities(plan)
    lines = [_summary(plan, len(first), launches), *_least_text(plan, known, first), *_hardware_notes(plan)]
    for deployment, cells in first:
        lines += ["", *_deployment_lines(plan, deployment, cells, known.get(id(deployment)), shown.get(id(deployment)), verbose)]
    lines.append("")
    if loads := _load_axes(plan):
        lines.append(f"loads: {loads}")
    lines += [f"search: {line}" for line in _search_lines(list(dict.fromkeys(plan.searches.values())))]
    if plan.scenario.slo is not None:
        lines.append(f"slo: {plan.scenario.slo.text}")
    if plan.contents:
        lines.append(f"inputs: {', '.join(f'{name} {found.short}' for name, found in plan.contents.items())}")
    return "\n".join(map(printable, lines)) + "\n"


def plan_to_dict(plan: Plan, commands: Sequence[Commands], missing: Sequence[str] = ()) -> JSON:
    """The plan as data; memory in bytes, times in seconds. commands: of every deployment. missing: what this machine lacks for it."""
    known, launched = capacities(plan), {id(each.deployment): each for each in commands}
    takes = time_of(plan, known)
    # The same in every repeat and for every deployment, and a large plan has thousands.
    load_as_data = {load: plain(load) for load in {cell.load for cell in plan.cells}}
    launches: list[JSON] = []
    for deployment, cells in plan.launches():
        launch = launched[id(deployment)]
        launches.append(
            {
                "deployment": deployment.shown,
                "command": launch.commands.get(""),
                "members": {name: command for name, command in launch.commands.items() if name},
                **({"nodes": dict(launch.nodes)} if launch.nodes else {}),
                "gpus": plan.registry[deployment.engine].traits(deployment).gpus,
                "problem": launch.problem,
                "memory": _memory_data(known[id(deployment)]) if id(deployment) in known else None,
                "cells": [{"id": c.id, "repeat": c.repeat, "load": load_as_data[c.load], "skip": plan.skipped.get(c.id)} for c in cells],
            }
        )
    return {
        "schema": PLAN_SCHEMA, "scenario": plan.scenario.name, "hardware": plan.bounds.machine.name if plan.bounds else None,
        "unchecked": plan.unchecked or None, "missing": list(missing),
        "cells": len(plan.cells), "least_s": takes.least_s if known else None, "expected_s": takes.expected_s,
        "cells_without_expectation": takes.unexpected if known else None, "time_unknown": takes.unknown or None, "probes": plan.probes,
        "plan_id": plan.id, "identity": plan.identity, "inputs": plain(plan.contents),
        "slo": plain(plan.scenario.slo),
        "searches": {
            first: {**plain_object(search), "most": search.most_probes, "seconds": plain(search_seconds(search))}
            for first, search in plan.searches.items()
        },
        "launches": launches,
    }  # fmt: skip


def _summary(plan: Plan, deployments: int, launches: Sequence[tuple[Deployment, Sequence[Cell]]]) -> str:
    """The size of a plan: '2 deployments x 3 loads x 2 repeats = 12 cells, 2 of them skipped, 4 server starts, 160 measured requests'.

    '14 deployments, 8 loads, 3 repeats: 312 cells' when not every deployment has every load. Skipped cells start and send nothing.
    """
    fixed = _fixed(plan)
    loads = [counted(len({cell.load for cell in fixed}), "load")] if fixed else []
    searches = len(set(plan.searches.values()))
    loads += [counted(searches, "search", "searches")] if searches else []
    repeats = len({cell.repeat for cell in plan.cells})
    auto = plan.scenario.auto
    restarts = f"{repeats} to {auto.most} repeats" if auto is not None else counted(repeats, "repeat")
    factors = [counted(deployments, "deployment"), " and ".join(loads), restarts]
    full = searches or len(plan.cells) == deployments * len({cell.load for cell in fixed}) * repeats
    cells = f"{'up to ' if searches else ''}{counted(len(plan.cells) + plan.probes, 'cell')}"
    parts = [f"{' x '.join(factors)} = {cells}" if full else f"{', '.join(factors)}: {cells}"]
    if plan.skipped:  # computing ids takes time, and most plans skip nothing
        parts.append(f"{len(plan.skipped):,} of them skipped")
        fixed = [cell for cell in fixed if cell.id not in plan.skipped]
        launches = [launch for launch in launches if any(cell.id not in plan.skipped for cell in launch[1])]
    parts.append(counted(len(launches), "server start"))
    requests = sum(cell.load.requests for cell in fixed)
    seconds = sum(cell.load.duration_s or 0 for cell in fixed if not cell.load.requests)
    sent = [counted(requests, "measured request")] if requests else []
    sent += [f"{duration(seconds)} of load by duration"] if seconds else []
    hosts = plan.scenario.client_nodes
    return ", ".join([*parts, *([" and ".join(sent)] if sent else []), *([f"sent from {counted(hosts, 'client host')}"] if hosts else [])])


def _least_text(plan: Plan, known: Mapping[int, Capacity], first: Sequence[tuple[Deployment, Sequence[Cell]]]) -> Iterator[str]:
    """'about 31 min of load on 4x h100-sxm-80gb (expected), at least 12 min ...'; for containers with GPUs also that nothing is checked."""
    takes = time_of(plan, known)
    if takes.unknown:
        yield f"how long the loads take is unknown: {takes.unknown}; --calibrate RUN learns from a run of your own"
    if takes.least_s and known:
        least, machine = f"at least {duration(takes.least_s)}", plan.bounds.machine.name if plan.bounds else "this CPU"
        partly = f" of all but {counted(takes.unexpected, 'cell')}" if takes.unexpected else ""
        usual = f"about {duration(takes.expected_s)} of load on {machine} (expected{partly}), {least}" if takes.expected_s else ""
        yield f"{usual or f'{least} of load on {machine}'} by the ceiling; warm-up and server starts come on top"
        return
    boxed = any(each.runtime == "docker" and plan.registry[each.engine].traits(each).gpus for each, _ in first)
    if boxed and plan.bounds is None and plan.scenario.hardware is None and not plan.unchecked:
        yield _UNCHECKED


def _hardware_notes(plan: Plan) -> Iterator[str]:
    if plan.unchecked:
        first, *advice = plan.unchecked.split("\n")
        yield f"what fits is not checked: {first.removeprefix('hardware: ')}"
        yield from advice
    if plan.bounds is not None:
        yield from (f"note: {remark}" for remark in plan.bounds.machine.device.remarks)


def _deployment_lines(
    plan: Plan, deployment: Deployment, cells: Sequence[Cell], capacity: Capacity | None, commands: Commands | None, verbose: bool
) -> Iterator[str]:
    gpus = plan.registry[deployment.engine].traits(deployment).gpus
    yield f"{_describe(deployment)}{f'  ({gpus} GPUs)' if gpus > 1 else ''}"
    skipped = dict.fromkeys(plan.skipped[c.id] for c in cells if c.id in plan.skipped) if plan.skipped else {}
    if capacity is not None and (memory := _memory_text(capacity)):
        yield f"  {memory}"
    for reason in skipped:
        yield f"  skip: {reason}"
    if commands is not None:
        for name, command in commands.commands.items() if verbose else ():
            where = f"node {commands.nodes[name]} " if commands.nodes else ""
            yield f"  {where}{name and f'{name} '}$ {command}"
        if commands.problem and commands.problem not in skipped and (verbose or deployment.runtime != "attach"):
            yield f"  not launchable here: {commands.problem}"


def _describe(deployment: Deployment) -> str:
    """A deployment in one line: 'llamacpp  moe  f16  process  threads=2'."""
    parts = [deployment.engine, deployment.model, deployment.known_precision, deployment.runtime]
    parts += [f"{k}={v}" for k, v in deployment.options.items()]
    parts += [f"{k}={v}" for k, v in vars(deployment.parallelism).items() if v != 1]
    parts += [f"nodes={deployment.nodes}"] if deployment.nodes > 1 else []
    parts += [f"speculation={deployment.speculation.text}"] if deployment.speculation is not None else []
    return "  ".join(filter(None, [*parts, deployment.url]))


def _memory_text(capacity: Capacity) -> str:
    """'fits: 61.2 of 85.5 GB per GPU (...) at 64 streams of 2,048 tokens'; 'tight' without working memory; why it is unknown."""
    if capacity.need is None:
        return f"unknown whether it fits: {capacity.unknown}" if capacity.unknown else ""
    return f"{'fits' if capacity.need.fit.fits else 'tight'}: {capacity.need.text}"


def _memory_data(capacity: Capacity) -> JSON:
    if capacity.need is None:
        return {"unknown": capacity.unknown}
    fit, budget = capacity.need.fit, capacity.need.fit.budget
    return {
        "streams": fit.concurrency, "context": fit.context, "weights": sum(budget.weights.values()), "kv_cache": budget.cache,
        "working": budget.activations + budget.runtime, "needed": budget.needed, "usable": budget.usable, "host": budget.host,
        "fits": fit.fits,
    }  # fmt: skip


def _fixed(plan: Plan) -> Sequence[Cell]:
    """The cells that are not the first of a search."""
    return [cell for cell in plan.cells if cell.id not in plan.searches] if plan.searches else plan.cells


def _load_axes(plan: Plan) -> str:
    """The axes of the loads: '1 stream, 4 streams; 64 + 32 tokens; ...', each with its values; an axis at its default is left out."""
    loads = dict.fromkeys(cell.load for cell in _fixed(plan))
    out = [", ".join(dict.fromkeys(load.level_text for load in loads)), ", ".join(dict.fromkeys(load.shape_text for load in loads))]
    for name, declared in load_fields().items():
        values = [load.value(name) for load in loads]
        shown = declared.role == "extent" or any(value != declared.default for value in values)
        if shown and name != "warmup_requests" and declared.role not in ("level", "lengths", "client"):
            known = dict.fromkeys(value for value in values if value or (value is not None and declared.role != "extent"))
            out += [declared.text(", ".join(f"{value:g}" if isinstance(value, int | float) else value for value in known))] if known else []
    return "; ".join(filter(None, out))


def _search_lines(searches: Sequence[Search]) -> Iterator[str]:
    """'max_goodput over rate from 1 to 256, to 10 %: up to 9 cells each, 2.1 to 9.5 min of load; 64 + 32 tokens; requests 400'."""
    labels = distinguishing_labels([search.base.without_level(*search.follows) for search in searches])
    for search, apart in zip(searches, labels, strict=True):
        bounds = f"over {search.over} from {search.start:g} to {search.stop:g}, to {percent(search.precision, 6)}"
        cells = f"max_goodput {bounds}: up to {counted(search.most_probes, 'cell')} each, {_search_time(search)}"
        yield "; ".join(part for part in (cells, search.base.shape_text, apart) if part)


def _search_time(search: Search) -> str:
    """'2.1 to 9.5 min of load': from the easiest to the longest way that a search can go."""
    known = search_seconds(search)
    if known is None:
        return "time unknown before the first: the server's pace decides"
    low, high = map(duration, known)
    return f"{low} of load" if low == high else f"{low} to {high} of load"
