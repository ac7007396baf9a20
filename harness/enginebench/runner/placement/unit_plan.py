"""From a plan to its units on the driver, and from a unit to the plan that a node measures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.analysis.labels import deployment_titles
from enginebench.domain import Cell, Deployment, Load, plain_object
from enginebench.domain.ids import text_of
from enginebench.domain.quality import QualityCheck
from enginebench.engines.registry import discover, path_of
from enginebench.errors import UserError
from enginebench.machine.folders import resource_dir
from enginebench.metrics.slo import Slo
from enginebench.runner.placement.unit_data import Setting, Unit
from enginebench.scenario import Scenario
from enginebench.scenario.contents import changed, contents_of, files_of_load
from enginebench.scenario.plan import Plan
from enginebench.scenario.scenario import ParityCheck

MOST_CARRIED = 64 << 20
"""Bytes of data sets and traces that travel with a unit. Weights never do."""


def units_of(plan: Plan, lacks: Callable[[Cell], bool] = lambda _: True, assessed: Collection[str] = (), **how: Any) -> list[Unit]:
    """The units of a plan in its order, each with the cells that are not skipped and that `lacks` says are to be measured.

    The first unit of a deployment measures its quality, where the scenario asks for that. assessed: texts (`text_of`) of the deployments
    whose quality is known. how: `client_processes`, `wait_quiet_s`, `share_machine`. UserError for a data set that is too large to travel.
    """
    titles, setting, base = deployment_titles([each for each, _ in plan.launches()]), _setting(plan), plan.base
    found, judged = [], set(assessed)
    for deployment, cells in plan.launches():
        todo = [cell for cell in cells if cell.id not in plan.skipped and lacks(cell)]
        if not todo:
            continue
        loads, repeat = tuple(cell.load for cell in todo), todo[0].repeat
        text = text_of(deployment)
        quality = plan.scenario.quality if text not in judged else None
        judged.add(text)
        files, adapter = _carried([*_data_files(loads, base), *_quality_files(quality, base)], base), plan.registry[deployment.engine]
        its = contents_of([deployment], loads, base)
        found.append(
            Unit(
                id=f"{todo[0].launch_id}-0", name=f"{titles[text]}, repeat {repeat + 1}", deployment=deployment, loads=loads,
                repeat=repeat, setting=setting, searches={cell.id: plan.searches[cell.id] for cell in todo if cell.id in plan.searches},
                inputs={name: known for name, known in plan.contents.items() if name in its or name.startswith("prompts hf:")},
                files=files, adapter=_source(type(adapter)), gpus=_gpus(plan, deployment), needs_gpus=_needs_gpus(plan, deployment),
                exclusive=plan.scenario.exclusive, cores=plan.scenario.cores, quality=quality, **how,
            )
        )  # fmt: skip
    return found


def _setting(plan: Plan) -> Setting:
    its = plan.scenario
    return Setting(
        its.name, its.title, its.description, str(its.file.resolve()), its.text, its.hardware, its.hardware_by_command, its.equal_within,
        None if its.slo is None else plain_object(its.slo),
        None if its.parity is None else vars(its.parity),
    )  # fmt: skip


def _gpus(plan: Plan, deployment: Deployment) -> int:
    """Devices that a deployment takes where there are any."""
    adapter = plan.registry[deployment.engine]
    weightless = deployment.runtime == "attach" or adapter.checkpoint_format == "none"
    return 0 if weightless and deployment.runtime != "docker" else adapter.traits(deployment.inside).gpus


def _needs_gpus(plan: Plan, deployment: Deployment) -> bool:
    """Whether the scenario is meant for accelerators."""
    from enginebench.physics.catalogue import ANYTHING
    from enginebench.physics.detect import is_cpu

    stated = plan.scenario.hardware
    return bool(stated and stated != ANYTHING and not is_cpu(stated) and _gpus(plan, deployment))


def _data_files(loads: Sequence[Load], base: Path) -> Iterator[Path]:
    yield from (path for load in loads for _, path in files_of_load(load, base))


def _quality_files(quality: QualityCheck | None, base: Path) -> Iterator[Path]:
    """The text of the perplexity, and what is in the folders of tasks."""
    if quality is not None:
        yield base / Path(quality.perplexity.text).expanduser()
        for task in quality.tasks:
            if task.folder is not None:
                yield from sorted((base / Path(task.folder).expanduser()).rglob("*"))


def _carried(paths: Iterable[Path], base: Path) -> dict[str, str]:
    """Those of these files that are below the scenario's folder, by path relative to it."""
    found: dict[str, str] = {}
    size = 0
    for path in paths:
        if path.is_file() and path.resolve().is_relative_to(base.resolve()):
            size += path.stat().st_size
            if size > MOST_CARRIED:
                advice = "put it where every node has it, and write its absolute path"
                raise UserError(f"is too large to be sent with a unit ({MOST_CARRIED >> 20} MiB at most)", file=path, advice=advice)
            found[str(path.resolve().relative_to(base.resolve()))] = base64.b64encode(path.read_bytes()).decode()
    return found


def _source(adapter: type) -> dict[str, str]:
    """Path -> text of every file of an adapter that is neither built in nor of an installed package."""
    path = path_of(adapter)
    if path is None or path.parent.resolve() == resource_dir("adapters").resolve():
        return {}
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return {file.relative_to(path.parent).as_posix(): file.read_text(encoding="utf-8") for file in files}


# -- on a node -------------------------------------------------------------------------------------------------------------------


def plan_of(unit: Unit, inputs: Path) -> Plan:
    """The plan of a unit here. inputs: the folder of the files that came with it. UserError where this machine's files differ."""
    its, written = unit.setting, Path(unit.setting.file)
    base = written.parent if written.parent.is_dir() and not unit.files else _joined(written.parent, inputs)
    registry = discover(_adapters(unit.adapter, inputs.parent / "adapters"))
    registry.need(unit.deployment.engine)
    scenario = Scenario(
        name=its.name, deployments=(unit.deployment,), loads=(unit.loads,), searches=(tuple(unit.searches.values()),), quality=unit.quality,
        slo=None if its.slo is None else Slo(**its.slo), parity=None if its.parity is None else ParityCheck(**its.parity),  # type: ignore[arg-type]
        title=its.title, description=its.description, hardware=its.hardware, hardware_by_command=its.hardware_by_command,
        equal_within=its.equal_within, exclusive=unit.exclusive, cores=unit.cores, file=base / written.name, text=its.text,
    )  # fmt: skip
    plan = Plan(scenario, unit.cells, searches=unit.searches, registry=registry, placed=True)
    here = contents_of([unit.deployment], unit.loads, plan.base)
    if differs := changed(unit.inputs, here):
        raise UserError(f"this node has other files than the driver: {differs}", advice="copy them there, or use a disk that both see")
    return replace(plan, contents={**unit.inputs, **here})


def _joined(base: Path, inputs: Path) -> Path:
    """A folder with the files that came with the unit; what else is in the scenario's folder, if that is here, is linked there."""
    inputs.mkdir(parents=True, exist_ok=True)
    for each in sorted(base.iterdir()) if base.is_dir() else ():
        link = inputs / each.name
        if not link.exists() and not link.is_symlink():
            link.symlink_to(each)
    return inputs


def _adapters(sources: Mapping[str, str], folder: Path) -> Iterator[Path]:
    for name, text in sources.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    yield from sorted({folder / Path(name).parts[0] for name in sources})
