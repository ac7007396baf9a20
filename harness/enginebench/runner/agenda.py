"""The cells of one deployment that are still to be measured, in order. A search adds its next probe when the last one has ended.

Knows no engine. A probe that is stored already is not measured again: its record answers, so a search resumes like a sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.bisection import Search
from enginebench.nouns import Cell
from enginebench.plan import Plan
from enginebench.probes import meets, with_probe
from enginebench.rows import CellResult, result_of
from enginebench.runner.folder import rewrite
from enginebench.samples import Samples
from enginebench.scenario import LoadSearch
from enginebench.slo import Slo
from enginebench.store import CellRecord, Run


@dataclass
class _Hunt:
    """A search under way on one deployment. first: the cell it began with."""

    planned: LoadSearch
    first: Cell
    search: Search

    def probe(self, level: float) -> Cell:
        return Cell(self.first.deployment, self.planned.load(level), self.first.repeat)


class Agenda:
    """cells: what is still to be measured. ended: how many cells have been."""

    def __init__(self, plan: Plan, run: Run, cells: Sequence[Cell]) -> None:
        self.cells: list[Cell] = []
        self.ended = 0
        self._run = run
        self._slo = plan.scenario.slo
        self._hunts: dict[str, list[_Hunt]] = {}  # by the probe they wait for: searches that overlap share one
        for cell in cells:
            if (planned := plan.searches.get(cell.id)) is not None:
                self._go_on(_Hunt(planned, cell, planned.begin()), len(self.cells))
            elif not run.has(cell.id):
                self.cells.append(cell)

    def end(self, record: CellRecord, samples: Samples | None) -> None:
        """The first cell has been stored, as `record`."""
        cell = self.cells.pop(0)
        self.ended += 1
        waiting = self._hunts.pop(cell.id, [])
        if waiting:
            met = self._met(record, samples)
            for hunt in waiting:
                hunt.search.tell(cell.load.level, met)
                self._go_on(hunt, 0)

    @property
    def _goal(self) -> Slo:
        if self._slo is None:
            raise ValueError("a search without an SLO")  # a scenario refuses it
        return self._slo

    def _met(self, record: CellRecord, samples: Samples | None) -> bool | None:
        if record.status != "ok" or samples is None:
            return meets(CellResult(record, {}, None), self._goal)
        return meets(result_of(record, samples, self._goal), self._goal)

    def _go_on(self, hunt: _Hunt, at: int) -> None:
        """Follow a search through what is stored to the next probe that must be measured, and put that at `at`."""
        while (level := hunt.search.next_level()) is not None:
            probe = hunt.probe(level)
            self._list(hunt, probe, level)
            if not self._run.has(probe.id):
                self._hunts.setdefault(probe.id, []).append(hunt)
                self.cells = [cell for cell in self.cells if cell.id != probe.id]
                self.cells.insert(at, probe)
                return
            record = next(record for record in self._run.cells() if record.id == probe.id)
            hunt.search.tell(level, self._met(record, self._run.samples(probe.id)))

    def _list(self, hunt: _Hunt, probe: Cell, level: float) -> None:
        extended = with_probe(self._run.record, hunt.first.id, probe.id, level)
        if extended != self._run.record:
            rewrite(self._run, extended)
