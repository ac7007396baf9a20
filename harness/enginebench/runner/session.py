"""One session of a run: checks the plan, ends what earlier runs left behind, opens the run folder, measures, and reports every step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from enginebench.domain import JSON, Deployment, plain_object
from enginebench.engines.installed import installs_of
from enginebench.errors import UserError
from enginebench.machine.host import facts
from enginebench.records.run_folder import Run
from enginebench.runner.audience import Audience
from enginebench.runner.clients.hosts import client_hosts
from enginebench.runner.doctor import remove_leftovers
from enginebench.runner.events import OnEvent, ignore
from enginebench.runner.folder import open_run_for
from enginebench.runner.growth import Fixed, Growth
from enginebench.runner.instruments import Instruments
from enginebench.runner.preflight import CannotRun, check_prompts, gpu_users, preflight
from enginebench.runner.quiet import Moment, check_quiet
from enginebench.runner.sweep import Sweep
from enginebench.runtime.container.neighbour import shared_folder
from enginebench.runtime.machine_lease import machine_lease
from enginebench.runtime.nodes import Followers
from enginebench.scenario.plan import Plan


def run_plan(
    plan: Plan,
    results: str | Path,
    *,
    fresh: bool = False,
    retry_failed: bool = False,
    client_processes: int = 1,
    clients: Sequence[str] = (),
    wait_quiet_s: float = 0.0,
    share_machine: bool = False,
    otlp: str | None = None,
    on_event: OnEvent = ignore,
    growth: Growth | None = None,
    others: Followers | None = None,
    reported: bool = True,
) -> Run:
    """Measure every cell of a plan that has no record yet. growth: what adds cells; None: what the scenario asks for. others: the other
    nodes of an engine that spans several. reported: the run is read on this machine when it has ended. Other arguments and errors:
    `enginebench.api.run`."""
    began, growth = Moment(), growth or growth_of(plan)
    lacking = preflight(plan)
    if lacking.refused:
        raise CannotRun(lacking)
    plan = replace(plan, skipped={**plan.skipped, **lacking.skipped})
    plan = replace(plan, contents={**plan.contents, **check_prompts(plan)})
    tell = Audience(on_event, reported=reported)
    for line in lacking.warnings:
        tell.note(f"warning: {line}")
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(client_hosts(clients, plan.scenario))
        instruments = stack.enter_context(Instruments())  # first of what is slow: its process takes a while to start
        docker = shared_folder() is None and any(deployment.runtime == "docker" for deployment, _ in plan.launches())
        for line in remove_leftovers(docker=docker):
            tell.note(line)
        lease = stack.enter_context(machine_lease(f"bench run {plan.scenario.name}", containers=docker))
        users = gpu_users(plan)
        if (found := [*lease.others(), *users]) and not share_machine:
            advice = "wait until it has ended, or go on with --share-machine: then every cell is suspect"
            raise UserError(f"this machine is in use by {', '.join(found)}", advice=advice)
        folder, uploads = tell.add_sinks(results, plan, stack, retry_failed=retry_failed, otlp=otlp)
        machine = _machine(plan)
        try:
            opened = open_run_for(
                plan, folder, machine, fresh=fresh, retry_failed=retry_failed, say=tell.note, growth=growth, uploads=uploads
            )
            run = stack.enter_context(opened)
        except OSError as error:
            advice = "name another folder with --results"
            raise UserError(f"no run can be stored there: {error.strerror}", file=folder, advice=advice) from None
        tell.open(plan, run, stack)
        if not run.finished:
            check_quiet(began, wait_quiet_s, tell.note)
        Sweep(
            plan, run, plan.registry, installs_of, tell, instruments, client_processes, lease=lease, gpu_users=users, growth=growth,
            hosts=hosts, others=others,
        ).go()  # fmt: skip
    tell.end()
    return run


def growth_of(plan: Plan) -> Growth:
    """What the scenario of a plan asks for."""
    if plan.scenario.auto is None:
        return Fixed()
    from enginebench.runner.auto_repeats import AutoGrowth  # brings the analysis, which takes a while to import

    return AutoGrowth(plan, plan.scenario.auto)


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
