"""Which run folder a sweep goes into: the unfinished one of the same plan on the same machine, or a new one.

Knows nothing of engines. A folder that another process is writing to is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from enginebench import __version__
from enginebench.errors import UserError
from enginebench.nouns import JSON
from enginebench.plan import Plan
from enginebench.store import Run, RunRecord, find_runs, new_run_path, now

_SAME_MACHINE = ("architecture", "cpu", "logical_cores", "gpus")


def open_run_for(
    plan: Plan, results: Path, machine: Mapping[str, JSON], *, fresh: bool, retry_failed: bool, say: Callable[[str], None]
) -> Run:
    """The run to continue, or a new one. fresh: always a new one. retry_failed: failed cells count as not measured yet."""
    if not fresh:
        for run in reversed(find_runs(results, plan.scenario.name)):
            if run.record.plan_id != plan.id:
                continue
            failed = [cell.id for cell in run.cells() if cell.status == "failed"] if retry_failed else []
            if run.finished and not failed:
                continue
            if moved := _moved(run.record.machine, machine):
                say(f"note: {run.path} is unfinished but was measured elsewhere ({moved}); starting a new run")
                continue
            for cell_id in failed:
                run.drop(cell_id)
            done = sum(run.has(cell) for cell in run.record.cells)
            say(f"resuming {run.path}: {done} of {len(run.record.cells)} cells are stored")
            return run
    scenario = plan.scenario
    record = RunRecord(
        name=scenario.name,
        created_at=now(),
        scenario={"title": scenario.title, "description": scenario.description, "file": scenario.file.name, "repeats": scenario.repeats},
        plan_id=plan.id,
        cells=tuple(cell.id for cell in plan.cells),
        machine=machine,
        enginebench=__version__,
    )
    return Run.create(new_run_path(results, scenario.name), record, scenario.text)


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold a run folder; the kernel frees it when this process ends in whatever way."""
    with (run.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                "another bench is writing to this run", file=run.path, advice="wait for it, or start another run with --fresh"
            ) from None
        yield


def _moved(then: Mapping[str, JSON], now_: Mapping[str, JSON]) -> str | None:
    return next((f"{key} was {then.get(key)}" for key in _SAME_MACHINE if then.get(key) != now_.get(key)), None)
