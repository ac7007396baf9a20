"""What engines usually reach, learnt from published measurements and, where asked, from stored runs of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from enginebench.analysis.analysis import analyse
from enginebench.errors import UserError
from enginebench.physics.expectation import OWN, Expectations, Measured, published
from enginebench.records.remote.local import local
from enginebench.records.run_folder import Run, find_runs, open_run


def expectations(calibrate: Sequence[str | Path] = ()) -> Expectations:
    """What engines usually reach, for `ceiling`, `fit` and `plan`: by published measurements, and by runs of one's own.

    calibrate: runs, or folders of runs. Their cells replace what is published for the same engine, device and regime; what is expected of
    that engine on that device in other regimes is scaled by the median of measured / expected. One measured cell is enough.
    UserError for a path without runs, and if no cell has a known bound.
    """
    return published().calibrated(point for path in calibrate for point in _points(Path(path))) if calibrate else published()


def _points(path: Path) -> Iterator[Measured]:
    path = local(path)
    runs = [open_run(path)] if (path / "run.json").exists() else find_runs(path)
    if not runs:
        raise UserError("holds no run", file=path, advice="name a run, or a folder of runs such as results")
    found = [point for run in runs for point in _measured(run)]
    if not found:
        advice = "it needs a model whose size is known, on a machine that is in the catalogue or a CPU; attached servers have none"
        raise UserError("no cell has a known bound, so nothing can be learnt from it", file=path, advice=advice)
    yield from found


def _measured(run: Run) -> Iterator[Measured]:
    """Every cell of a run that is not invalid, and whose estimate is known."""
    for row in analyse(run).rows:
        for cell in row.cells:
            rate = cell.figures.get("output_throughput")
            if cell.ran and cell.verdict != "invalid" and rate and cell.estimate is not None:
                yield Measured(row.deployment.engine, OWN, rate, cell.estimate)
