"""The analysis of a run: its rows, the sentence that answers the question, and caveats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from enginebench.analysis.caveats import caveats, contradictions, of_nodes, slower_than_usual, unpriced
from enginebench.analysis.conclude import conclude
from enginebench.analysis.conclusion import Conclusion
from enginebench.analysis.parity import Parity, parities
from enginebench.analysis.quality import Quality, qualities, without_broken
from enginebench.analysis.rows import LOAD_COLUMNS, CellResult, Row, context_of, read_rows
from enginebench.metrics.context import RunContext
from enginebench.metrics.costs import Prices
from enginebench.metrics.slo import Slo
from enginebench.records.launch import LaunchRecord
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run

__all__ = ["LOAD_COLUMNS", "Analysis", "CellResult", "Parity", "Row", "analyse"]


@dataclass(frozen=True)
class Analysis:
    run: RunRecord
    rows: tuple[Row, ...]
    launches: Mapping[str, LaunchRecord]
    """Launch id -> server start."""
    columns: tuple[str, ...]
    """The label columns that a table shows."""
    parity: tuple[Parity, ...] = ()
    quality: tuple[Quality, ...] = ()
    """Of each deployment whose quality was measured."""
    slo: Slo | None = None
    """None: no SLO was given, so there is no goodput."""
    prices: Prices | None = None
    """None: no prices were given, so no row has a cost."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Id of each stored cell whose record cannot be read -> why. Such a cell is in no row."""
    equal_within: float | None = None
    """The share below which a difference is equal in practice; None: that of each metric."""

    @cached_property
    def conclusion(self) -> Conclusion:
        """What may be concluded, computed when it is first asked for."""
        missing = self.counts["missing"] + len(self.damaged)
        currency = self.prices.currency if self.prices is not None else ""
        return conclude(
            self.rows, self.run, self.launches, slo=self.slo, equal_within=self.equal_within, missing=missing, currency=currency
        )  # fmt: skip

    @property
    def sentence(self) -> str:
        """The headline: what to run and why, by regime."""
        return self.conclusion.sentence

    @property
    def caveats(self) -> tuple[str, ...]:
        """What to know before quoting a figure: random weights, parity, settings without effect, figures above a ceiling."""
        found, context = caveats(self.rows, self.parity), RunContext(self.run, prices=self.prices)
        damaged = [
            f"the stored cell {cell} is damaged: {why}; `bench run --retry-failed` measures it again" for cell, why in self.damaged.items()
        ]
        return tuple(
            dict.fromkeys(
                (
                    *damaged,
                    *of_nodes(self.launches.values()),
                    *found,
                    *contradictions(self.rows),
                    *slower_than_usual(self.rows),
                    *unpriced(self.rows, context),
                )
            )
        )

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells by status; 'missing': not measured yet."""
        # a cell of several phases has several rows
        records = {cell.record.id: cell.record for row in self.rows for cell in row.cells}.values()
        out = {status: sum(r.status == status for r in records) for status in ("ok", "failed", "skipped")}
        damaged = {"damaged": len(self.damaged)} if self.damaged else {}
        return out | damaged | {"missing": len(self.run.cells) - len(records) - len(self.damaged)}

    @property
    def incomplete(self) -> str | None:
        """Why the run is not complete: cells failed or are missing, or all were skipped; None when it is."""
        counts = self.counts
        short = [f"{counts[status]} {status}" for status in ("failed", "damaged", "missing") if counts.get(status)]
        if short:
            return f"not every cell was measured ({', '.join(short)})"
        return None if counts["ok"] else "nothing was measured: every cell was skipped"


def analyse(run: Run, prices: Prices | None = None, *, equal_within: float | None = None) -> Analysis:
    """Read every stored cell of a run and fold the repeats. UserError if the stored SLO is invalid. prices: by names of the catalogue.

    equal_within: the share below which a difference is equal in practice; None: that of the run's scenario, else of each metric.
    """
    if equal_within is None and isinstance(stored := run.record.scenario.get("equal_within"), int | float):
        equal_within = float(stored)
    context = context_of(run, prices)
    launches = context.launches
    rows, columns = read_rows(run, context)
    asked = run.record.scenario.get("quality")
    quality = qualities(rows, launches, asked if isinstance(asked, dict) else {})
    rows = without_broken(rows, quality)
    known = {cell.record.id for row in rows for cell in row.cells}
    damaged = (
        {cell: why for cell, why in run.damage().items() if cell not in known} if any(map(run.has, {*run.record.cells} - known)) else {}
    )
    parity = tuple(parities(rows, launches))
    return Analysis(run.record, rows, launches, columns, parity, quality, context.slo, prices, damaged, equal_within)
