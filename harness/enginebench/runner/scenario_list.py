"""The scenarios that can be run by name or from a folder: what each is for, what it needs, and whether this machine has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enginebench.domain.formatting import counted
from enginebench.errors import UserError
from enginebench.machine.folders import resource_dir
from enginebench.runner.preflight import preflight
from enginebench.scenario.plan import Plan
from enginebench.scenario.planning import built_in_scenarios, plan

_MOST_BYTES = 1 << 20
"""A larger YAML file is no scenario."""


@dataclass(frozen=True)
class ListedScenario:
    name: str
    """What `bench run` takes: a built-in name, or the path of a file."""
    built_in: bool
    title: str = ""
    """What it is for."""
    needs: tuple[str, ...] = ()
    """Hardware that it states, engines, Docker: '4xh100', 'vllm', 'Docker'."""
    size: str = ""
    """'5 deployments x 8 loads x 3 repeats'."""
    lacks: tuple[str, ...] = ()
    """What this machine lacks for it, or for a part of it."""
    runs_here: str = ""
    """'whole', 'part' or 'no'; '' if it cannot be read."""
    problem: str = ""
    """Why it cannot be read."""


def list_scenarios(folder: str | Path = ".") -> list[ListedScenario]:
    """The built-in scenarios, then the scenario files of a folder, each by name. A file that cannot be read is listed with the reason.

    YAML files without `deployments` are no scenarios, and left out. UserError if the folder is not there.
    """
    here = Path(folder)
    if not here.is_dir():
        raise UserError("is not a folder", file=here)
    own = resource_dir("scenarios").resolve()
    files = sorted(file for pattern in ("*.yaml", "*.yml") for file in here.glob(pattern) if file.resolve().parent != own)
    return [*(_listed(name, built_in=True) for name in built_in_scenarios()), *_of_files(files)]


def _of_files(files: list[Path]) -> Iterator[ListedScenario]:
    for file in files:
        try:
            known = file.is_file() and file.stat().st_size <= _MOST_BYTES and "deployments" in file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            known = False
        if known:
            yield _listed(str(file), built_in=False)


def _listed(name: str, *, built_in: bool) -> ListedScenario:
    try:
        made = plan(name)
        found = preflight(made)
    except UserError as error:
        return ListedScenario(name, built_in, problem=f"{f'line {error.line}: ' if error.line else ''}{error.message}")
    here = "no" if found.refused or not found.cells else "part" if found.skipped else "whole"
    lacks = tuple(dict.fromkeys(each.what for each in (*found.missing, *found.waiting)))
    return ListedScenario(name, built_in, made.scenario.title or "", tuple(_needs(made)), _size(made), lacks, here)


def _needs(made: Plan) -> Iterator[str]:
    deployments = made.scenario.deployments
    if made.scenario.hardware:
        yield made.scenario.hardware
    yield from dict.fromkeys(each.engine for each in deployments)
    if any(each.runtime == "docker" for each in deployments):
        yield "Docker"
    yield from dict.fromkeys(f"${each.api_key_env}" for each in deployments if each.api_key_env)


def _size(made: Plan) -> str:
    loads = len({load for its in made.scenario.loads for load in its})
    parts = [counted(len(made.scenario.deployments), "deployment"), counted(loads, "load")]
    repeats, auto = made.scenario.repeats, made.scenario.auto
    restarts = f"{repeats} to {auto.most} repeats" if auto is not None else counted(repeats, "repeat") if repeats > 1 else ""
    return " x ".join(filter(None, [*parts, restarts]))
