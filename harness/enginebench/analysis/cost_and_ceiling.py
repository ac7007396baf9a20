"""What the figures of a run are worth: each row's share of what physics allows its machine, and what its tokens cost.

Joins rows with `ceilings` and `costs`; a row of which one of the two is not known goes without. Judges nothing but the impossible: a share
above 100 % is said to be one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from enginebench.analysis.rows import CellResult, Row
from enginebench.metrics.cost_and_ceiling import COST_METRICS, share_of_ceiling
from enginebench.metrics.costs import Cost, Prices, cost
from enginebench.metrics.hardware import mean_watts
from enginebench.metrics.statistics import estimate
from enginebench.records.store import LaunchRecord, RunRecord

if TYPE_CHECKING:
    from enginebench.analysis.ceilings import Ceilings
    from enginebench.physics.machine import Machine

THROUGHPUT, SHARE = "output_throughput", "share_of_ceiling"


@dataclass(frozen=True)
class CostAndCeiling:
    """What is needed to tell: the run, how its servers said that they were set up, and prices (None: nobody gave any)."""

    run: RunRecord
    launches: Mapping[str, LaunchRecord]
    prices: Prices | None = None

    def of(self, row: Row) -> Row:
        """The row with the figures that can be told beside its own."""
        if row.deployment.runtime == "attach" and self.prices is None:
            return row  # somebody else's server has no ceiling, as only he knows how it is spread and placed
        machine = self._ceilings.machine(row)
        used = [cell for cell in row.cells if cell.ran and (cell.verdict != "invalid" or row.verdict == "invalid")]
        each = [{**self._share(cell, machine), **self._costs(cell, machine)} for cell in used]
        names = dict.fromkeys(name for figures in each for name in figures)
        found = {name: estimate([figures.get(name) for figures in each]) for name in names}
        return replace(row, figures={**row.figures, **{name: its for name, its in found.items() if its is not None}})

    def unpriced(self, rows: Sequence[Row]) -> Iterator[str]:
        """A sentence where there are prices, and none of them is for what the rows ran on."""
        ran = [row for row in rows if row.status == "ok"]
        if self.prices is None or not ran or any(row.figures.get(name) for row in ran for name in COST_METRICS):
            return
        names = dict.fromkeys(machine.device.name for row in ran if (machine := self._ceilings.machine(row)) is not None)
        yield f"no price is for what this ran on ({', '.join(names) or 'hardware that nobody knows'}): name that, or * for everything"

    def _share(self, cell: CellResult, machine: Machine | None) -> dict[str, float]:
        measured = cell.figures.get(THROUGHPUT)
        ceiling = self._ceilings.of(cell, machine) if measured else None
        return {SHARE: float(share_of_ceiling(measured, ceiling)[0])} if measured and ceiling is not None else {}

    def _costs(self, cell: CellResult, machine: Machine | None) -> dict[str, float]:
        measured = cell.figures.get(THROUGHPUT)
        if self.prices is None or not measured or cell.window is None:
            return {}
        priced = cost(
            measured,
            machine.device.name if machine else "",
            self._ceilings.devices(cell, machine),
            self.prices,
            watts=mean_watts(cell.record, cell.window),
            bandwidth_gb_s=machine.device.bandwidth / 1e9 if machine else None,
        )
        return dict(_known(priced))

    @cached_property
    def _ceilings(self) -> Ceilings:
        from enginebench.analysis.ceilings import Ceilings  # with all of physics

        return Ceilings(self.run, self.launches)


def _known(priced: Cost) -> Iterator[tuple[str, float]]:
    for name, metric in COST_METRICS.items():
        value = float(metric.compute(priced)[0])
        if value == value:
            yield name, value


def contradictions(rows: Sequence[Row]) -> Iterator[str]:
    """A sentence for each row that is faster than can be."""
    for row in rows:
        share = row.figures.get(SHARE)
        if share is not None and share.value > 1:
            load = f"{row.load.level_text}, {row.load.shape_text}"
            yield (
                f"{row.name} on {row.deployment.model} reaches {share.value:.0%} of the ceiling with {load}: either the measurement "
                "is wrong, or what the ceiling takes for granted (weights read from memory and not from a cache, even routing, bandwidth)"
            )
