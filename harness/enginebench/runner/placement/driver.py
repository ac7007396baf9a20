"""The driver of a run that is measured elsewhere: opens the run folder, sends what lacks as units, stores what comes back as it comes.

Every cell is on disk here when `store` returns, so a lost driver loses at most the cells in flight, and the same command resumes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.domain import JSON
from enginebench.errors import UserError
from enginebench.records.run_folder import Run
from enginebench.runner.audience import Audience
from enginebench.runner.events import OnEvent, ignore
from enginebench.runner.folder import open_run_for
from enginebench.runner.placement.base import Choice, Placement
from enginebench.runner.placement.intake import RunIntake
from enginebench.runner.placement.unit_data import Unit
from enginebench.runner.placement.unit_plan import units_of
from enginebench.runner.preflight import check_prompts
from enginebench.scenario.plan import Plan


def run_placed(
    plan: Plan,
    results: str | Path,
    placement: Placement,
    *,
    fresh: bool = False,
    retry_failed: bool = False,
    client_processes: int = 1,
    wait_quiet_s: float = 0.0,
    share_machine: bool = False,
    otlp: str | None = None,
    on_event: OnEvent = ignore,
) -> Run:
    """Measure every cell of a plan that has no record yet where the placement says. Arguments as of `enginebench.api.run`.

    UserError when no unit fits any node, with what each node lacks.
    """
    _check_elsewhere(plan)
    plan = replace(plan, contents={**plan.contents, **check_prompts(plan)})
    how: dict[str, Any] = {"client_processes": client_processes, "wait_quiet_s": wait_quiet_s, "share_machine": share_machine}
    tell = Audience(on_event)
    with contextlib.ExitStack() as stack:
        stack.enter_context(placement)
        everything = units_of(plan, **how)
        unfit = _unfit(everything, placement)
        if everything and len(unfit) == len(everything):
            raise UserError(_refusal(unfit, placement), advice="see the nodes with: bench doctor --on " + placement.on)
        folder, uploads = tell.add_sinks(results, plan, stack, retry_failed=retry_failed, otlp=otlp)
        machine = _machine(placement)
        opened = open_run_for(plan, folder, machine, fresh=fresh, retry_failed=retry_failed, say=tell.note, uploads=uploads)
        run = stack.enter_context(opened)
        tell.open(plan, run, stack, placed=True)
        intake = RunIntake(plan, run, tell)
        intake.skip_planned()
        units = [replace(unit, run=run.path.name) for unit in intake.lacking(units_of(plan, intake.lacks, intake.assessed(), **how))]
        for unit in units:
            if unit.launch_id in unfit:
                intake.skip(unit, f"no node fits: {unfit[unit.launch_id].why_not}")
        placement.run([unit for unit in units if unit.launch_id not in unfit], intake)
        intake.finish()
    tell.end()
    return run


def _check_elsewhere(plan: Plan) -> None:
    """UserError for what a run does only on its own machine."""
    if plan.scenario.auto is not None:
        raise UserError("repeats: auto looks at results while it runs, which --on does not", advice="state a number: --repeats 5")
    if plan.scenario.client_nodes is not None:
        advice = "run it on one machine with --clients, see docs/clusters.md, or leave `client_nodes` out"
        raise UserError("--on starts no client hosts", file=plan.scenario.file, key="client_nodes", advice=advice)


def _unfit(units: list[Unit], placement: Placement) -> dict[str, Choice]:
    """Launch id of each unit that cannot be placed -> why."""
    return {unit.launch_id: choice for unit, choice in zip(units, placement.choices_of(units), strict=True) if not choice.nodes}


def _refusal(unfit: Mapping[str, Choice], placement: Placement) -> str:
    reasons = dict.fromkeys(choice.why_not for choice in unfit.values())
    return f"no node of {placement.on} fits any deployment: {'; '.join(reasons)}"


def _machine(placement: Placement) -> dict[str, JSON]:
    """In the place of this machine's facts, which say nothing of the nodes. A run is resumed by the same kind of placement."""
    return {"placement": placement.names[0]}
