"""What an exporter is: a function that turns a run into the files of another format. One file per format in `report/exporters`.

An exporter computes a metric by the definition of its format, or leaves it out and says so with `Material.say`. It never renames ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, TypeAlias, TypeVar

from enginebench.analysis.analysis import Analysis
from enginebench.domain import JSON
from enginebench.machine.folders import modules_in
from enginebench.records.run_folder import Run
from enginebench.report.measured import Measured, measured_cells

T = TypeVar("T")
File: TypeAlias = tuple[str, bytes]
"""(name within the export, content)."""


@dataclass(frozen=True, eq=False)
class Material:
    """The run that is exported."""

    analysis: Analysis
    folder: Run
    said: dict[str, None] = field(default_factory=dict)
    withheld: dict[str, tuple[dict[str, None], dict[str, None]]] = field(default_factory=dict)
    """Reason -> (metrics, deployments) that are left out for it."""

    def say(self, note: str) -> None:
        """Something that the export does not hold, in one sentence; said once."""
        self.said.setdefault(note)

    @cached_property
    def cells(self) -> tuple[Measured, ...]:
        """Every cell that has figures, in plan order. What is not among them is said."""
        found = tuple(measured_cells(self.analysis, self.folder))
        ran = {cell.record.id for cell in found}
        others = {cell.record.id for row in self.analysis.rows for cell in row.cells} - ran
        if others:
            self.say(f"{len(others)} of {len(ran) + len(others)} cells failed or were skipped: they are not in the export")
        if invalid := [cell for cell in found if cell.cell.verdict == "invalid"]:
            checks = dict.fromkeys(reason.check.id for cell in invalid for reason in cell.cell.reasons if reason.severity == "invalid")
            self.say(f"{len(invalid)} of {len(found)} exported cells are invalid ({', '.join(checks)}): see bench report --why")
        return found

    def kept(self, cell: Measured, values: Mapping[str, T]) -> dict[str, T]:
        """Those of the values (metric of ours -> anything) that mean something in this cell; that the others are left out is said."""
        for metric in values:
            if (why := cell.withheld(metric)) is not None:
                metrics, names = self.withheld.setdefault(why, ({}, {}))
                metrics.setdefault(metric)
                names.setdefault(cell.row.name)
        return {metric: value for metric, value in values.items() if cell.withheld(metric) is None}

    @property
    def notes(self) -> tuple[str, ...]:
        """All that was said."""
        left_out = (f"{', '.join(metrics)} of {', '.join(names)}: left out, {why}" for why, (metrics, names) in self.withheld.items())
        return (*self.said, *left_out)

    def sampled(self, what: str) -> Iterator[Measured]:
        """The cells with raw samples; that the others are left out is said. what: the part of the export that needs samples."""
        for cell in self.cells:
            if cell.samples is None:
                self.say(f"{what} needs raw samples: cells whose file states only figures are left out")
            else:
                yield cell


Write: TypeAlias = Callable[[Material], Iterator[File]]


@dataclass(frozen=True, eq=False)
class Exporter:
    """One exporter, as `exporter` declares it."""

    name: str
    """As in `bench export --to`."""
    title: str
    """The format, with its version: 'llm-d Benchmark Report 0.2'."""
    read_by: str
    """Programs that read it."""
    left_out: Mapping[str, str]
    """What of ours the format cannot hold, or holds under another definition -> why, for docs/export.md."""
    write: Write
    definitions: Mapping[str, str]
    """Field of the format -> its definition there, as it is computed here."""


def exporter(
    name: str, title: str, *, read_by: str, definitions: Mapping[str, str] | None = None, left_out: Mapping[str, str] | None = None
) -> Callable[[Write], Exporter]:
    """Declare the decorated function as the exporter of a format. It yields (file name, content)."""
    return lambda write: Exporter(name, title, read_by, left_out or {}, write, definitions or {})


@cache
def all_exporters() -> Mapping[str, Exporter]:
    """Name -> exporter, by name."""
    modules = modules_in("enginebench.report.exporters")
    found = [each for module in modules for each in vars(module).values() if isinstance(each, Exporter)]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def as_json(data: JSON | Mapping[str, Any] | list[Any], *, infinity: bool = False) -> bytes:
    """Data as JSON for another program. NaN is refused, and an infinite number too unless the program writes `Infinity` itself."""
    return (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=infinity) + "\n").encode(errors="replace")
