"""How long engines were up or starting, as a run has stored it: what restarts and tuning cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from enginebench.domain import Cell
from enginebench.domain.ids import text_of
from enginebench.records.cell import CellRecord
from enginebench.records.launch import LaunchRecord


@dataclass(frozen=True)
class EngineTime:
    """Seconds of every server start and of every cell with its warm-up."""

    starts: Mapping[str, float]
    """Launch id -> seconds from exec to the first generation, and of stopping."""
    cells: Mapping[str, float]
    """Cell id -> seconds."""
    deployments: Mapping[str, str]
    """Id of each of them -> its deployment, as canonical text."""

    @classmethod
    def of(cls, launches: Iterable[LaunchRecord], cells: Iterable[CellRecord]) -> EngineTime:
        starts: dict[str, float] = {}
        took: dict[str, float] = {}
        deployments: dict[str, str] = {}
        for launch in launches:
            its = launch.startup
            starts[launch.id] = (its.start_s or 0.0) + (its.first_generation_s or 0.0) + (its.stop_s or 0.0)
            deployments[launch.id] = text_of(launch.deployment)
        for cell in cells:
            took[cell.id], deployments[cell.id] = cell.wall_s or 0.0, text_of(cell.deployment)
        return cls(starts, took, deployments)

    @property
    def spent_s(self) -> float:
        return sum(self.starts.values()) + sum(self.cells.values())

    def expected_s(self, cells: Sequence[Cell]) -> float:
        """Of further cells with their starts: the means of their deployments, else of all."""
        starts = {(text_of(cell.deployment), cell.repeat) for cell in cells}
        total = sum(self._mean(self.starts, deployment) for deployment, _ in starts)
        return total + sum(self._mean(self.cells, text_of(cell.deployment)) for cell in cells)

    def _mean(self, known: Mapping[str, float], deployment: str) -> float:
        its = [seconds for key, seconds in known.items() if self.deployments[key] == deployment] or list(known.values())
        return fmean(its) if its else 0.0
