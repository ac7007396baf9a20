"""What the runner says while it works. The runner knows only this protocol; the command line decides how it looks."""

from __future__ import annotations

from typing import Protocol

from enginebench.domain import Cell, Deployment
from enginebench.loadgen import Progress
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord


class Reporter(Protocol):
    """Told of every step; must return quickly, since some calls happen inside a measured window."""

    def launching(self, deployment: Deployment, what: str) -> None:
        """A deployment is being prepared; what: 'starting', 'loading', 'parity', ..."""
        ...

    def measuring(self, cell: Cell, progress: Progress | None) -> None:
        """A cell is running; progress is None during its warm-up."""
        ...

    def done(self, cell: Cell, record: CellRecord, samples: Samples | None) -> None:
        """A cell has been stored."""
        ...


class Silent:
    """A reporter for callers that want only the records."""

    def launching(self, deployment: Deployment, what: str) -> None: ...

    def measuring(self, cell: Cell, progress: Progress | None) -> None: ...

    def done(self, cell: Cell, record: CellRecord, samples: Samples | None) -> None: ...
