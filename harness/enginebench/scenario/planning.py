"""From a scenario's name and what overrides it to a plan: find the file, read it, select cells, check them against the hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.domain import Runtime
from enginebench.domain.repeats import FIRST_LOOK, AutoRepeats, Repeats
from enginebench.engines.registry import discover
from enginebench.errors import UserError, did_you_mean
from enginebench.machine.folders import resource_dir
from enginebench.scenario import Scenario, load_scenario
from enginebench.scenario.contents import contents_of
from enginebench.scenario.plan import SELECTABLE, Plan
from enginebench.scenario.plan import plan as plan_of

if TYPE_CHECKING:
    from enginebench.physics.deployment_limits import MachineLimits
    from enginebench.physics.expectation import Expectations
else:
    Expectations = object  # for typing.get_type_hints(plan)


def plan(
    scenario: str | Path,
    *,
    only: Sequence[str] = (),
    repeats: Repeats | None = None,
    hardware: str | None = None,
    runtime: Runtime | None = None,
    adapters: Sequence[str | Path] = (),
    expectations: Expectations | None = None,
    elsewhere: bool = False,
) -> Plan:
    """The cells of a scenario in the order they would be measured, and which are skipped and why. Launches nothing.

    scenario: a YAML file, or the name of a built-in scenario. only: 'KEY=VALUE' items, such as 'engine=vllm'; a cell must have one of the
    values of every key. repeats: a number or 'auto' instead of the scenario's. hardware: what it will run on, such as '4xh100', to skip
    what does not fit; 'any': check nothing; None: the scenario's, else the GPUs of this machine. runtime: 'process' or 'docker' for every
    server that the scenario starts. adapters: further adapter files. expectations: what engines usually reach, for the time it takes, see
    `expectations`; None: by published measurements. elsewhere: it is measured on other machines, so that only stated hardware is checked.
    UserError with file, line and key for a mistake in the scenario, and for a selection without cells.
    """
    registry = discover(map(Path, adapters))
    loaded = load_scenario(find_scenario(scenario), registry, runtime=runtime, hardware=hardware)
    if repeats == "auto":
        loaded = replace(loaded, repeats=FIRST_LOOK, auto=loaded.auto or AutoRepeats())
    elif repeats is not None:
        loaded = replace(loaded, repeats=repeats, auto=None)
    bounds, unchecked = (None, "") if elsewhere and not loaded.hardware else _bounds(loaded, expectations)
    whole = replace(plan_of(loaded, registry, bounds), unchecked=unchecked, expectations=expectations)
    selection = _selection(only)
    for key, values in selection.items():
        for value in sorted(values - (known := whole.values(key))):
            raise UserError(f"--only {key}={value}: no cell has that", advice=did_you_mean(value, known))
    selected = whole.only(selection) if only else whole
    if not selected.cells:
        advice = f"see the values with: bench plan {scenario}"
        raise UserError(f"--only {' '.join(only)} leaves no cell of {len(whole.cells)}", advice=advice)
    deployments = {id(cell.deployment): cell.deployment for cell in selected.cells}.values()
    loads = {id(cell.load): cell.load for cell in selected.cells}.values()
    return replace(selected, contents=contents_of(deployments, loads, selected.base))


def find_scenario(name: str | Path) -> Path:
    """The path of a scenario file, or of a built-in scenario by its name. UserError when there is neither."""
    path = Path(name)
    if path.exists():
        return path
    stem = path.stem if path.parent in (Path(), Path("scenarios")) else ""
    if stem in (known := built_in_scenarios()):
        return resource_dir("scenarios") / f"{stem}.yaml"
    raise UserError("no such file, and no built-in scenario of that name", file=path, advice=did_you_mean(stem or str(name), known))


def built_in_scenarios() -> list[str]:
    """Names of the scenarios that come with enginebench, sorted."""
    return sorted(file.stem for file in resource_dir("scenarios").glob("*.yaml"))


def _bounds(scenario: Scenario, expectations: Expectations | None) -> tuple[MachineLimits | None, str]:
    """The memory and bandwidth to check against, and why the GPUs that are here are not checked.

    None when no hardware is stated and no known GPU is here, or a CPU does the work.
    """
    from enginebench.machine.accelerators import gpus

    seen = () if scenario.hardware else gpus()
    if not scenario.hardware and not seen:
        return None, ""
    from enginebench.physics.deployment_limits import MachineLimits  # physics takes a while to import
    from enginebench.physics.detect import local_machine, stated_machine, undetected

    machine = stated_machine(scenario.hardware) if scenario.hardware else local_machine(seen)
    if machine is None:
        return None, str(undetected(seen) or "")
    return MachineLimits(machine, scenario.file.resolve().parent, expectations), ""


def _selection(only: Sequence[str]) -> dict[str, frozenset[str]]:
    """'KEY=VALUE' items as key -> accepted values; a repeated key accepts either value."""
    chosen: dict[str, frozenset[str]] = {}
    for item in only:
        key, equals, value = item.partition("=")
        if not equals or key not in SELECTABLE:
            raise UserError(f"--only {item}: expected KEY=VALUE", advice=did_you_mean(key, SELECTABLE))
        chosen[key] = chosen.get(key, frozenset()) | {value}
    return chosen
