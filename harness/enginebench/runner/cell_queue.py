"""The cells of one deployment that are still to be measured, in order. A search adds its next probe when the last one has ended.

Knows no engine. A probe that is stored already is not measured again: its record answers, so a search resumes like a sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.analysis.rows import CellResult, result_of
from enginebench.analysis.searches import meets, with_probe
from enginebench.domain import Cell
from enginebench.metrics.context import RunContext
from enginebench.metrics.slo import Slo
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord, Run
from enginebench.runner.folder import rewrite
from enginebench.scenario import LoadSearch
from enginebench.scenario.bisection import Search
from enginebench.scenario.plan import Plan


@dataclass
class _ActiveSearch:
    """A search under way on one deployment. first: the cell it began with."""

    planned: LoadSearch
    first: Cell
    search: Search

    def probe(self, level: float) -> Cell:
        return Cell(self.first.deployment, self.planned.load(level), self.first.repeat)


class CellQueue:
    """cells: what is still to be measured. ended: how many cells have been."""

    def __init__(self, plan: Plan, run: Run, cells: Sequence[Cell]) -> None:
        self.cells: list[Cell] = []
        self.ended = 0
        self._run = run
        self._slo = plan.scenario.slo
        self._active: dict[str, list[_ActiveSearch]] = {}  # by the probe they wait for: searches that overlap share one
        for cell in cells:
            if (planned := plan.searches.get(cell.id)) is not None:
                self._go_on(_ActiveSearch(planned, cell, planned.begin()), len(self.cells))
            elif not run.has(cell.id):
                self.cells.append(cell)

    def end(self, record: CellRecord, samples: Samples | None) -> None:
        """The first cell has been stored, as `record`."""
        cell = self.cells.pop(0)
        self.ended += 1
        waiting = self._active.pop(cell.id, [])
        if waiting:
            met = self._met(record, samples)
            for active in waiting:
                active.search.tell(cell.load.level, met)
                self._go_on(active, 0)

    @property
    def _goal(self) -> Slo:
        if self._slo is None:
            raise ValueError("a search without an SLO")  # a scenario refuses it
        return self._slo

    def _met(self, record: CellRecord, samples: Samples | None) -> bool | None:
        if record.status != "ok" or samples is None:
            return meets(CellResult(record, {}), self._goal)
        return meets(result_of(record, samples, RunContext(slo=self._goal)), self._goal)

    def _go_on(self, active: _ActiveSearch, at: int) -> None:
        """Follow a search through what is stored to the next probe that must be measured, and put that at `at`."""
        while (level := active.search.next_level()) is not None:
            probe = active.probe(level)
            self._list(active, probe, level)
            if not self._run.has(probe.id):
                self._active.setdefault(probe.id, []).append(active)
                self.cells = [cell for cell in self.cells if cell.id != probe.id]
                self.cells.insert(at, probe)
                return
            record = next(record for record in self._run.cells() if record.id == probe.id)
            active.search.tell(level, self._met(record, self._run.samples(probe.id)))

    def _list(self, active: _ActiveSearch, probe: Cell, level: float) -> None:
        extended = with_probe(self._run.record, active.first.id, probe.id, level)
        if extended != self._run.record:
            rewrite(self._run, extended)
