"""What adds cells to a run between its server starts: restarts where `repeats: auto` has not decided yet, trials of a tuning.

Searches add their probes within a server start (`enginebench.runner.cell_queue`). In both cases the next cells follow from those that are
stored, so an interrupted run goes on where it stopped, and the record of the run lists every cell before it is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from enginebench.domain import Cell
from enginebench.records.run_folder import Run


@dataclass(frozen=True)
class Added:
    """The next cells of a run."""

    cells: tuple[Cell, ...]
    """In the order they are measured; some may be stored already."""
    why: str
    """In one sentence."""


class Growth(Protocol):
    """Decides which cells a run still needs when those of its plan are stored."""

    def more(self, run: Run) -> Added | None:
        """The next cells, of which at least one is not stored yet; None: the run is complete."""


class Fixed:
    """The plan is all there is."""

    def more(self, run: Run) -> Added | None:
        return None
