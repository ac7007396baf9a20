"""One session of a run: checks the plan, ends what earlier runs left behind, opens the run folder, measures, and reports every step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.domain import JSON, Deployment, plain_object
from enginebench.domain.ids import text_of
from enginebench.engines.installed import installs_of
from enginebench.errors import UserError
from enginebench.machine.host import facts
from enginebench.records.remote.urls import url_of
from enginebench.records.run_folder import Run
from enginebench.runner.doctor import remove_leftovers
from enginebench.runner.events import Event, Note, OnEvent, RunOpened, ignore
from enginebench.runner.folder import open_run_for
from enginebench.runner.growth import Fixed, Growth
from enginebench.runner.instruments import Instruments
from enginebench.runner.live import LiveFile
from enginebench.runner.preflight import CannotRun, check_prompts, gpu_users, preflight
from enginebench.runner.quiet import Moment, check_quiet
from enginebench.runner.sweep import Sweep
from enginebench.runtime.container.neighbour import shared_folder
from enginebench.runtime.machine_lease import machine_lease
from enginebench.scenario.plan import Plan

if TYPE_CHECKING:
    from enginebench.runner.uploads import Uploads


def run_plan(
    plan: Plan,
    results: str | Path,
    *,
    fresh: bool = False,
    retry_failed: bool = False,
    client_processes: int = 1,
    wait_quiet_s: float = 0.0,
    share_machine: bool = False,
    otlp: str | None = None,
    on_event: OnEvent = ignore,
    growth: Growth | None = None,
) -> Run:
    """Measure every cell of a plan that has no record yet. growth: what adds cells; None: what the scenario asks for. Other arguments and
    errors: `enginebench.api.run`."""
    began, growth = Moment(), growth or growth_of(plan)
    lacking = preflight(plan)
    if lacking.refused:
        raise CannotRun(lacking)
    plan = replace(plan, skipped={**plan.skipped, **lacking.skipped})
    plan = replace(plan, contents={**plan.contents, **check_prompts(plan)})
    listener, live = Listener(on_event), LiveFile()
    listeners: list[OnEvent] = [live, listener]

    def tell(event: Event) -> None:
        for each in listeners:
            each(event)

    def note(text: str) -> None:
        tell(Note(text))

    for line in lacking.warnings:
        note(f"warning: {line}")
    with contextlib.ExitStack() as stack:
        instruments = stack.enter_context(Instruments())  # first: its process takes a while to start
        docker = shared_folder() is None and any(deployment.runtime == "docker" for deployment, _ in plan.launches())
        for line in remove_leftovers(docker=docker):
            note(line)
        lease = stack.enter_context(machine_lease(f"bench run {plan.scenario.name}", containers=docker))
        users = gpu_users(plan)
        if (found := [*lease.others(), *users]) and not share_machine:
            advice = "wait until it has ended, or go on with --share-machine: then every cell is suspect"
            raise UserError(f"this machine is in use by {', '.join(found)}", advice=advice)
        folder, uploads = folder_of(results, plan, stack, note, retry_failed=retry_failed)
        listeners += [uploads] if uploads is not None else []
        if otlp is not None:
            from enginebench.runner.otlp import Otlp

            listeners.append(stack.enter_context(Otlp(otlp, note)))
        machine = _machine(plan)
        try:
            opened = open_run_for(plan, folder, machine, fresh=fresh, retry_failed=retry_failed, say=note, growth=growth, uploads=uploads)
            run = stack.enter_context(opened)
        except OSError as error:
            advice = "name another folder with --results"
            raise UserError(f"no run can be stored there: {error.strerror}", file=folder, advice=advice) from None
        loads = tuple(dict.fromkeys(cell.load for cell in plan.cells))
        deployments = tuple({text_of(deployment): deployment for deployment, _ in plan.launches()}.values())
        todo = tuple(cell for cell in plan.cells if cell.id not in plan.skipped and not run.has(cell.id))
        stored = sum(map(run.has, run.record.cells))
        stack.enter_context(live)
        tell(RunOpened(run.path, len(run.record.cells), stored, loads, deployments, todo, plan.searches))
        if not run.finished:
            check_quiet(began, wait_quiet_s, note)
        Sweep(plan, run, plan.registry, installs_of, tell, instruments, client_processes, lease=lease, gpu_users=users, growth=growth).go()
    if listener.error is not None:
        raise listener.error
    return run


def growth_of(plan: Plan) -> Growth:
    """What the scenario of a plan asks for."""
    if plan.scenario.auto is None:
        return Fixed()
    from enginebench.runner.auto_repeats import AutoGrowth  # brings the analysis, which takes a while to import

    return AutoGrowth(plan, plan.scenario.auto)


def folder_of(
    results: str | Path, plan: Plan, stack: contextlib.ExitStack, note: Callable[[str], None], *, retry_failed: bool
) -> tuple[Path, Uploads | None]:
    """Where the run is measured; where `results` is a store, also what takes it there."""
    if (url := url_of(results)) is None:
        return Path(results), None
    from enginebench.runner.uploads import Uploads

    uploads = stack.enter_context(Uploads(url, note))
    uploads.prepare(plan.scenario.name, plan.id, whole=retry_failed or plan.scenario.auto is not None)
    return uploads.folder, uploads


class Listener:
    """Passes events on until the listener raises; its error must not look like one of the engine, and is raised after the run."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self.error: Exception | None = None

    def __call__(self, event: Event) -> None:
        if self.error is None:
            try:
                self._on_event(event)
            except Exception as error:  # noqa: BLE001  # whatever it is, the run goes on
                self.error = error


def _machine(plan: Plan) -> dict[str, JSON]:
    """The facts of this machine; with its memory bandwidth, measured in about half a second, when its CPU does the work."""
    found = facts()
    local_docker = os.environ.get("DOCKER_HOST", "unix:").startswith("unix:")
    local = [each for each in plan.scenario.deployments if each.runtime != "attach" and (each.runtime != "docker" or local_docker)]
    return plain_object(found) | (_bandwidth(local) if local and not found.gpus else {})


def _bandwidth(deployments: Sequence[Deployment]) -> dict[str, JSON]:
    """Measured, which takes half a second and 1 GB, unless no deployment can have a ceiling because the size of its model is unknown."""
    from enginebench.physics.deployment_limits import weights_of  # physics takes a while to import
    from enginebench.physics.detect import BANDWIDTH
    from enginebench.physics.this_cpu import memory_bandwidth

    sized = (each.checkpoint != each.model or weights_of(each.model, each.precision, each.checkpoint) for each in deployments)
    return {BANDWIDTH: memory_bandwidth()} if any(sized) else {}
