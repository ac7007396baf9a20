"""`bench rerun`: plans a stored run again and says what differs on this machine. Measures nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from enginebench import __version__
from enginebench.analysis.analysis import analyse
from enginebench.checkpoints import hub, local_path
from enginebench.checkpoints.content import Content, content_of
from enginebench.domain import JSON, plain_object
from enginebench.domain.formatting import counted, stored
from enginebench.engines.docker_images import SdkDaemon
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import Registry, discover
from enginebench.errors import UserError
from enginebench.inputs.source import parse
from enginebench.machine.host import facts
from enginebench.records.launch import LaunchRecord
from enginebench.records.run_folder import Run, open_run
from enginebench.runner.import_facts import read_facts
from enginebench.runner.on_the_fly import as_run
from enginebench.runner.rerun_imported import scenario_of
from enginebench.scenario.expand import expand
from enginebench.scenario.plan import plan as plan_of

_MACHINE = (
    "system", "kernel", "architecture", "cpu", "logical_cores", "usable_cores", "cpu_quota", "memory_bytes", "memory_limit_bytes",
    "governor", "python",
)  # fmt: skip
_GPU = ("name", "driver", "memory_bytes")
Kind: TypeAlias = Literal["harness", "machine", "engine", "input", "plan"]


@dataclass(frozen=True)
class Differs:
    """One thing that is not as it was when the run was measured."""

    kind: Kind
    what: str
    """'cpu', 'vllm', 'checkpoint tiny.gguf'."""
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: was {self.then}, here {self.now}"


@dataclass(frozen=True)
class Rerun:
    """A stored run, planned again."""

    name: str
    scenario: str
    """The scenario as it was written."""
    cells: int
    """Cells that this plan has in common with the run: they are measured in the same way."""
    differences: tuple[Differs, ...]

    def to_dict(self) -> dict[str, JSON]:
        return plain_object(self)


def rerun(
    run: str | Path, *, base: str | Path = ".", only: Literal["doubtful"] | None = None, facts: Sequence[str] = ()
) -> Rerun:  # fmt: skip
    """Plan a stored run again and say what differs here: harness, hardware, engine versions, inputs, and the cells of the plan.

    run: a capsule, a run folder, or another tool's file, for which a scenario is written that measures the same again. base: the folder
    that relative paths of checkpoints, data sets and traces start from. only: of another tool's file 'doubtful', the rows that are suspect
    or invalid. facts: what such a file does not say: 'engine=vllm'. UserError when the run cannot be read, or a file says too little; a
    scenario that cannot be planned here is a difference.
    """
    folder, registry = open_run(as_run(Path(run), read_facts(facts)) or Path(run)), discover()
    if any(cell.imported is not None for cell in folder.cells()):
        return _imported(folder, registry, doubtful=only == "doubtful")
    if only is not None:
        raise UserError(
            "--only doubtful is for other tools' files", advice=f"measure a run again with `bench run`; see bench report {run} --why"
        )
    try:
        text = (folder.path / "scenario.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError("the run has no readable scenario.yaml", file=folder.path) from None
    cells, planned = _plan(folder, text, Path(base), registry)
    found = [*_harness(folder), *_machine(folder.record.machine), *_engines(folder, registry), *_inputs(folder, Path(base)), *planned]
    return Rerun(folder.record.name, text, cells, tuple(found))


def _imported(run: Run, registry: Registry, *, doubtful: bool) -> Rerun:
    """What another tool measured, as a scenario of ours."""
    text = scenario_of(analyse(run).rows, run.record.name, doubtful=doubtful)
    try:
        planned = plan_of(expand(parse(text, Path("scenario.yaml").absolute()), registry), registry)
    except UserError as error:
        return Rerun(run.record.name, text, 0, (Differs("plan", "scenario", "another tool's", f"cannot be planned here: {error.message}"),))
    return Rerun(run.record.name, text, len(planned.cells), ())


def _harness(run: Run) -> Iterator[Differs]:
    if run.record.enginebench != __version__:
        yield Differs("harness", "enginebench", run.record.enginebench, __version__)
    then, now = run.record.machine.get("revision"), facts().revision
    if then != now and isinstance(then, str):
        yield Differs("harness", "revision", then, now or "unknown: not a checkout")


def _machine(then: Mapping[str, JSON]) -> Iterator[Differs]:
    if not then:
        yield Differs("machine", "", "not recorded", "this one")
        return
    now = plain_object(facts())
    for name in _MACHINE:
        if name in then and then[name] != now[name]:
            yield Differs("machine", name, stored(then[name]), stored(now[name]))
    before, after = _gpus(then.get("gpus")), _gpus(now["gpus"])
    if before != after:
        yield Differs("machine", "gpus", before, after)


def _gpus(listed: JSON) -> str:
    """'2x NVIDIA H100, driver 580.65', or 'none'."""
    found = [
        ", ".join(f"{key} {one[key]}" for key in _GPU if one.get(key))
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
    ]
    return "; ".join(f"{found.count(one)}x {one}" for one in dict.fromkeys(found)) or "none"


def _engines(run: Run, registry: Registry) -> Iterator[Differs]:
    seen: set[str] = set()
    for launch in run.launches().values():
        if launch.deployment.runtime == "attach":
            continue
        found = _image(launch) if launch.deployment.runtime == "docker" else _engine(launch, registry)
        if found is not None and str(found) not in seen:
            seen.add(str(found))
            yield found


def _engine(launch: LaunchRecord, registry: Registry) -> Differs | None:
    install = launch.startup.install
    if install is None:
        return None
    name, then = launch.deployment.engine, f"{install.variant} {install.version}"
    try:
        here = installs_of(registry.need(name))
    except UserError as error:
        return Differs("engine", name, then, f"unknown: {error.message}")
    if any((one.variant, one.version) == (install.variant, install.version) for one in here):
        return None
    return Differs("engine", name, then, ", ".join(f"{one.variant} {one.version}" for one in here) or "not installed")


def _image(launch: LaunchRecord) -> Differs | None:
    container = launch.startup.container
    image, digest = str(container.get("image") or launch.deployment.container.image), str(container.get("id") or "unknown")
    try:
        here = SdkDaemon().image_id(image)
    except UserError:
        return Differs("engine", f"image {image}", digest, "unknown: no Docker daemon answers")
    return None if here == digest else Differs("engine", f"image {image}", digest, here or "not here")


def _inputs(run: Run, base: Path) -> Iterator[Differs]:
    for name, then in run.record.inputs.items():
        kind, _, reference = name.partition(" ")
        path = _path_of(kind, reference, base)
        if path is None or not path.exists():
            yield Differs("input", name, _identity(then), "missing")
            continue
        try:
            now = content_of(path)
        except OSError as error:
            yield Differs("input", name, _identity(then), f"cannot be read: {error.strerror}")
            continue
        if not then.same_as(now):
            yield Differs("input", name, _identity(then), _identity(now))


def _path_of(kind: str, reference: str, base: Path) -> Path | None:
    """Where an input should be: names are those of `enginebench.scenario.contents`."""
    if kind == "checkpoint":
        path = local_path(reference, base)
        if path is None and hub.is_id(reference):
            with suppress(OSError):
                path = hub.cached_folder(reference, "config.json", os.environ)
        return path
    if kind == "prompts":
        reference = reference.partition(":")[2].partition("#")[0]
    return base / Path(reference).expanduser()


def _identity(content: Content) -> str:
    return f"{content.size:,} bytes, sha256 {content.short}"


def _plan(run: Run, text: str, base: Path, registry: Registry) -> tuple[int, Sequence[Differs]]:
    """How many cells of the run a plan made here has, and what differs in the plan."""
    file = base / str(run.record.scenario.get("file") or "scenario.yaml")
    try:
        plan = plan_of(expand(parse(text, file), registry), registry)
    except UserError as error:
        return 0, [Differs("plan", "scenario", f"{counted(len(run.record.cells), 'cell')}", f"cannot be planned: {error.message}")]
    probes = {probe for first, probes in run.record.probes.items() for probe in probes if probe != first}
    then, now = set(run.record.cells) - probes, {cell.id for cell in plan.cells}
    found = []
    if then != now:
        new, gone = len(now - then), len(then - now)
        found.append(Differs("plan", "cells", f"{len(then)}", f"{len(now)} ({new} new, {gone} of the run's not among them)"))
    skipped = [reason for cell, reason in plan.skipped.items() if cell in then]
    if skipped:
        found.append(Differs("plan", "skipped", "measured", f"{counted(len(skipped), 'cell')} skipped: {skipped[0]}"))
    return len(then & now), found
