"""Chooses the run folder for a plan: the unfinished run of the same plan on the same machine, or a new one."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench import __version__
from enginebench.domain import JSON, plain_object
from enginebench.errors import UserError
from enginebench.records.files import now, remove_parts
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run, find_runs, new_run_paths
from enginebench.runner.growth import Fixed, Growth
from enginebench.runner.quality.due import quality_due
from enginebench.runner.redaction import mask, secrets_of
from enginebench.scenario.contents import changed
from enginebench.scenario.plan import Plan

if TYPE_CHECKING:
    from enginebench.runner.uploads import Uploads

_SAME_MACHINE = ("architecture", "cpu", "logical_cores", "usable_cores", "cpu_quota", "gpus", "revision")
"""Machine facts that must not change within a run."""


@contextlib.contextmanager
def open_run_for(
    plan: Plan, results: Path, machine: Mapping[str, JSON], *, fresh: bool, retry_failed: bool, say: Callable[[str], None],
    growth: Growth | None = None, uploads: Uploads | None = None,
) -> Iterator[Run]:  # fmt: skip
    """The run to resume, or a new one, locked against other processes while the block lasts.
    fresh: always a new run. retry_failed: measure failed cells again, and those that were skipped for
    want of something that is here now. growth: what adds cells, by which a run is complete or not. uploads: where the run goes, if that is
    a store. UserError if another process holds the lock."""
    run = None if fresh else _to_resume(plan, results, machine, growth or Fixed(), retry_failed=retry_failed, say=say)
    if run is None:
        run = _new_run(plan, results, machine, uploads)
    elif uploads is not None:
        uploads.resume(run)
        run = Run(run.path)
    with _locked(run):
        remove_parts(results)
        for launch in run.launches().values():  # of a killed harness, which could not do this
            for log in (run.path / "logs").glob(f"{launch.id}.*"):
                mask(log, secrets_of(launch.deployment))
        current = replace(  # cells are judged when read: by the SLO of today's scenario
            run.record,
            slo=_slo(plan),
            scenario={key: its for key, its in run.record.scenario.items() if key not in ("equal_within", "quality")}
            | _margin(plan)
            | _quality(plan),
            searches=plan.searches,
            inputs={**run.record.inputs, **plan.contents},
        )
        if current != run.record:
            run.update(current)
        for cell_id in _to_retry(run, plan) if retry_failed else ():
            run.drop(cell_id)
        for cell_id, why in run.damage().items():
            say(f"warning: the stored cell {cell_id} is damaged ({why}); --retry-failed measures it again")
        yield run


def _new_run(plan: Plan, results: Path, machine: Mapping[str, JSON], uploads: Uploads | None) -> Run:
    """In a store another machine may take the same name at the same moment: then the next one."""
    record = _new_record(plan, machine)
    for path in new_run_paths(results, plan.scenario.name):
        run = Run.create(path, record, plan.scenario.text) if uploads is None else uploads.create(path, record, plan.scenario.text)
        if run is not None:
            return run
    raise UserError("there is no free name for another run of this day", file=results, advice="name another folder with --results")


def _to_resume(
    plan: Plan, results: Path, machine: Mapping[str, JSON], growth: Growth, *, retry_failed: bool, say: Callable[[str], None]
) -> Run | None:
    """The newest run of this plan on this machine with cells left to measure."""
    for run in reversed(find_runs(results, plan.scenario.name)):
        if run.record.plan_id != plan.id or (_complete(run, plan, growth) and not (retry_failed and _to_retry(run, plan))):
            continue
        if other := _changed(run.record.machine, machine):
            say(f"note: {run.path} is unfinished but was measured on another machine ({other}); starting a new run")
            continue
        if differs := changed(run.record.inputs, plan.contents):
            advice = f"restore what {run.path.name} was begun with, or start another run with --fresh"
            raise UserError(f"cannot resume {run.path}: changed since it was begun: {differs}", advice=advice)
        done = sum(run.has(cell) for cell in run.record.cells)
        rest = "; the quality is not all measured" if run.finished and quality_due(run, plan) else ""
        say(f"resuming {run.path}: {done} of {len(run.record.cells)} cells are stored{rest}")
        return run
    return None


def _complete(run: Run, plan: Plan, growth: Growth) -> bool:
    """Whether every cell of its record is stored, none would be added, and the quality is measured as the scenario asks for it."""
    return run.finished and growth.more(run) is None and not quality_due(run, plan)


def _new_record(plan: Plan, machine: Mapping[str, JSON]) -> RunRecord:
    scenario = plan.scenario
    about: dict[str, JSON] = {"title": scenario.title, "description": scenario.description, "file": scenario.file.name}
    about |= dict(plan.purpose)
    about |= {"repeats": scenario.repeats} | _margin(plan) | _quality(plan)
    about |= {"hardware": _hardware(scenario.hardware)} if scenario.hardware else {}
    probes = {first: {first: search.start} for first, search in plan.searches.items()}
    if scenario.auto is not None:
        about["auto_repeats"] = plain_object(scenario.auto)
    cells = tuple(cell.id for cell in plan.cells)
    return RunRecord(scenario.name, now(), about, plan.id, cells, machine, __version__, _slo(plan), plan.searches, probes, plan.contents)


def _hardware(stated: str) -> str:
    from enginebench.physics.catalogue import ANYTHING, self_contained  # reads the catalogue

    return stated if stated == ANYTHING else self_contained(stated)


def _margin(plan: Plan) -> dict[str, JSON]:
    return {} if plan.scenario.equal_within is None else {"equal_within": plan.scenario.equal_within}


def _quality(plan: Plan) -> dict[str, JSON]:
    return {} if plan.scenario.quality is None else {"quality": plain_object(plan.scenario.quality)}


def _slo(plan: Plan) -> dict[str, JSON] | None:
    return None if plan.scenario.slo is None else plain_object(plan.scenario.slo)


def _to_retry(run: Run, plan: Plan) -> list[str]:
    """The cells that failed, and those that were skipped for want of something that is here now."""
    again = (cell.id for cell in run.cells() if cell.status == "failed" or (cell.status == "skipped" and cell.id not in plan.skipped))
    return list(dict.fromkeys([*again, *run.damage()]))


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Lock a run folder. The kernel releases the lock however this process ends."""
    with (run.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            advice = "wait for it, or start another run with --fresh"
            raise UserError("another bench is writing to this run", file=run.path, advice=advice) from None
        yield


def _changed(then: Mapping[str, JSON], today: Mapping[str, JSON]) -> str | None:
    """The first fact in which the machine differs. A run that was measured elsewhere goes on with the same kind of placement."""
    keys = ("placement",) if "placement" in today else ("placement", *_SAME_MACHINE)
    return next((f"{key} was {then.get(key)}" for key in keys if then.get(key) != today.get(key)), None)
