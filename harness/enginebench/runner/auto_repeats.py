"""`repeats: auto` while a run goes on: which restarts can still change an answer, and what they cost. Judges by the analysis of the run."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis, analyse
from enginebench.analysis.conclude import decides, fields_of
from enginebench.analysis.engine_time import EngineTime
from enginebench.analysis.sequential import Looks
from enginebench.domain import Cell
from enginebench.domain.formatting import counted, duration
from enginebench.domain.ids import text_of
from enginebench.domain.repeats import AutoRepeats
from enginebench.records.run_folder import Run
from enginebench.runner.growth import Added
from enginebench.scenario.plan import Plan, in_turn


@dataclass(frozen=True)
class AutoGrowth:
    """`repeats: auto`: after each look, further restarts of the deployments and loads whose answer they can still change."""

    plan: Plan
    auto: AutoRepeats

    def more(self, run: Run) -> Added | None:
        looks, analysis = self.auto.looks, analyse(run)
        for number, (done, goal) in enumerate(itertools.pairwise(looks), 1):
            places, decided, loads = self._open(analysis, number)
            added = self._restarts(places, range(done, goal))
            left = [cell for cell in added if not run.has(cell.id)]
            if not added:
                return None
            if not left:
                continue
            costs = EngineTime.of(run.launches().values(), run.cells())
            limited = self.auto.budget_s is not None and len(left) == len(added)  # a round that was begun is completed
            if limited and costs.spent_s + costs.expected_s(left) > (self.auto.budget_s or 0.0):
                return None
            takes = duration(costs.expected_s(left))
            names = len({text_of(cell.deployment) for cell in added})
            why = f"after {done} restarts {decided} of {counted(loads, 'load')} are decided; {goal - done} more of "
            return Added(tuple(added), f"{why}{counted(names, 'deployment')} at the others, about {takes}")
        return None

    def _open(self, analysis: Analysis, looks: int) -> tuple[set[tuple[str, str]], int, int]:
        """(deployment, load) of every cell whose restarts can change an answer, as canonical texts; the loads decided; the loads."""
        rows = analysis.rows
        figures = {model: decides(model, rows) for model in dict.fromkeys(row.deployment.model for row in rows)}
        found: set[tuple[str, str]] = set()
        decided = loads = 0
        for field in fields_of(rows, analysis.run, figures, slo=analysis.slo, equal_within=analysis.equal_within).values():
            if not isinstance(field, Looks):
                continue
            for load in field.loads:
                its = field.judged(load, looks)
                loads, decided = loads + 1, decided + its.decided
                found |= {
                    (text_of(row.deployment), text_of(row.cells[0].record.load))
                    for _, row in field.field.rows
                    if row.load == load and row.name in its.contenders
                }
        return found, decided, loads

    def _restarts(self, places: set[tuple[str, str]], repeats: Iterable[int]) -> list[Cell]:
        """Those cells in each of the repeats; the order of the deployments alternates."""
        by_deployment: dict[int, dict[str, Cell]] = defaultdict(dict)
        for cell in self.plan.cells:
            if (text_of(cell.deployment), text_of(cell.load)) in places:
                by_deployment[id(cell.deployment)].setdefault(text_of(cell.load), cell)
        each = [list(its.values()) for its in by_deployment.values()]
        return [Cell(cell.deployment, cell.load, repeat) for repeat in repeats for its in in_turn(each, repeat) for cell in its]
