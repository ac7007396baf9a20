"""Tidy CSV: one line per deployment, load and figure, in SI units."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.report.export import to_csv
from enginebench.report.exporter import File, Material, exporter


@exporter("csv", "Tidy CSV", read_by="data frames, spreadsheets", definitions={"figure, unit, value": "as in docs/metrics.md"})
def csv(run: Material) -> Iterator[File]:
    """The same as `bench report --csv`."""
    yield "figures.csv", to_csv(run.analysis).encode()
