"""The cells of one deployment that are still to be measured, in order. A search adds its next probe when the last one has ended.

Does not know engines. A stored probe is not measured again: its record answers, so a search resumes like a sweep.
"""

from collections.abc import Sequence

from enginebench.analysis.rows import CellResult, meets, result_of
from enginebench.domain import Cell
from enginebench.errors import UserError
from enginebench.metrics.context import RunContext
from enginebench.records.cell import CellRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.scenario import load_at
from enginebench.scenario.plan import Plan


class CellQueue:
    """The cells to measure on one deployment."""

    def __init__(self, plan: Plan, run: Run, cells: Sequence[Cell]) -> None:
        self.cells: list[Cell] = []
        """Still to be measured."""
        self.ended = 0
        """How many cells were measured."""
        self._plan, self._run = plan, run
        self._answers: dict[str, bool | None] = {}
        """Id of a stored probe -> whether it met the SLO."""
        self._waiting: dict[str, list[Cell]] = {}
        """Id of a queued probe -> the first cells of the searches that wait for it; overlapping searches share probes."""
        for cell in cells:
            if cell.id in plan.searches:
                self._advance(cell, len(self.cells))
            elif not run.has(cell.id):
                self.cells.append(cell)

    def end(self, record: CellRecord, samples: Samples | None) -> None:
        """The first cell was stored as `record`."""
        cell = self.cells.pop(0)
        self.ended += 1
        if waiting := self._waiting.pop(cell.id, []):
            self._answers[cell.id] = self._met(record, samples)
            for first in waiting:
                self._advance(first, 0)

    def _advance(self, first: Cell, at: int) -> None:
        """Queue the next probe, at position `at`, of the search that begins with the cell `first`; nothing if the search has ended."""
        search = self._plan.searches[first.id]
        answers: dict[float, bool | None] = {}
        while (level := search.bracket(answers).next_level) is not None:
            probe = Cell(first.deployment, load_at(search, level), first.repeat)
            extended = self._run.record.with_probe(first.id, probe.id, level)
            if extended is not self._run.record:
                self._run.update(extended)
            if not self._run.has(probe.id):
                self._waiting.setdefault(probe.id, []).append(first)
                self.cells = [cell for cell in self.cells if cell.id != probe.id]
                self.cells.insert(at, probe)
                return
            if probe.id not in self._answers:
                self._answers[probe.id] = self._stored(probe.id)
            answers[level] = self._answers[probe.id]

    def _stored(self, probe_id: str) -> bool | None:
        try:
            return self._met(self._run.cell(probe_id), self._run.samples(probe_id))
        except UserError:  # damaged
            return None

    def _met(self, record: CellRecord, samples: Samples | None) -> bool | None:
        slo = self._plan.scenario.slo
        assert slo is not None  # noqa: S101  # a scenario with a search and without an SLO is refused
        measured = samples if record.status == "ok" else None
        context = RunContext(launches=self._run.launches(), slo=slo)
        return meets(CellResult(record, {}) if measured is None else result_of(record, measured, context), slo)
