"""Which run folder a sweep goes into: the unfinished one of the same plan on the same machine, or a new one.

Knows nothing of engines. A folder that another process is writing to is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from enginebench import __version__
from enginebench.analysis.searches import SearchRecord, with_searches
from enginebench.domain import JSON, plain, plain_object
from enginebench.errors import UserError
from enginebench.records.store import Run, RunRecord, find_runs, new_run_path, now, write_atomically
from enginebench.scenario.plan import Plan

_SAME_MACHINE = ("architecture", "cpu", "logical_cores", "usable_cores", "cpu_quota", "gpus", "revision")


@contextlib.contextmanager
def open_run_for(
    plan: Plan, results: Path, machine: Mapping[str, JSON], *, fresh: bool, retry_failed: bool, say: Callable[[str], None]
) -> Iterator[Run]:
    """The run to continue, or a new one, held against other processes for as long as the block lasts.

    fresh: always a new one. retry_failed: failed cells count as not measured yet. UserError when another process holds it.
    """
    run = None if fresh else _to_continue(plan, results, machine, retry_failed=retry_failed, say=say)
    if run is None:
        run = Run.create(new_run_path(results, plan.scenario.name), _new_record(plan, machine), plan.scenario.text)
    with _held(run):
        if run.record.slo != (slo := _slo(plan)):
            rewrite(run, replace(run.record, slo=slo))  # cells are judged when they are read, so by what the scenario says now
        if retry_failed:
            for cell_id in _failed(run):
                run.drop(cell_id)
        yield run


def _to_continue(plan: Plan, results: Path, machine: Mapping[str, JSON], *, retry_failed: bool, say: Callable[[str], None]) -> Run | None:
    """The newest run of this plan on this machine that has something left to measure."""
    for run in reversed(find_runs(results, plan.scenario.name)):
        if run.record.plan_id != plan.id or (run.finished and not (retry_failed and _failed(run))):
            continue
        if moved := _moved(run.record.machine, machine):
            say(f"note: {run.path} is unfinished but was measured elsewhere ({moved}); starting a new run")
            continue
        done = sum(run.has(cell) for cell in run.record.cells)
        say(f"resuming {run.path}: {done} of {len(run.record.cells)} cells are stored")
        return run
    return None


def rewrite(run: Run, record: RunRecord) -> None:
    """Replace what is known of a run that goes on."""
    write_atomically(run.path / "run.json", json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    run.record = record


def _new_record(plan: Plan, machine: Mapping[str, JSON]) -> RunRecord:
    scenario = plan.scenario
    about: dict[str, JSON] = {"title": scenario.title, "description": scenario.description, "file": scenario.file.name}
    record = RunRecord(
        name=scenario.name,
        created_at=now(),
        scenario=about | {"repeats": scenario.repeats} | ({"hardware": scenario.hardware} if scenario.hardware else {}),
        plan_id=plan.id,
        cells=tuple(cell.id for cell in plan.cells),
        machine=machine,
        enginebench=__version__,
        slo=_slo(plan),
    )
    searches = tuple(SearchRecord(s.over, s.start, s.stop, s.precision, {first: s.start}, s.follows) for first, s in plan.searches.items())
    return with_searches(record, searches) if searches else record


def _slo(plan: Plan) -> dict[str, JSON] | None:
    return None if plan.scenario.slo is None else plain_object(plan.scenario.slo)


def _failed(run: Run) -> list[str]:
    return [cell.id for cell in run.cells() if cell.status == "failed"]


@contextlib.contextmanager
def _held(run: Run) -> Iterator[None]:
    """Hold a run folder; the kernel frees it when this process ends in whatever way."""
    with (run.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            advice = "wait for it, or start another run with --fresh"
            raise UserError("another bench is writing to this run", file=run.path, advice=advice) from None
        yield


def _moved(then: Mapping[str, JSON], now_: Mapping[str, JSON]) -> str | None:
    return next((f"{key} was {then.get(key)}" for key in _SAME_MACHINE if then.get(key) != now_.get(key)), None)
