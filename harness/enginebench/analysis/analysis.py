"""A run, understood: its rows, the sentence that answers the question, and what a reader must know before he quotes a figure.

Only assembles: `rows` reads and folds the cells, `ranking` and `parity` draw the conclusions, `caveats` warns. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enginebench.analysis.caveats import caveats
from enginebench.analysis.cost_and_ceiling import contradictions, unpriced
from enginebench.analysis.parity import Parity, parities
from enginebench.analysis.ranking import verdict_sentence
from enginebench.analysis.rows import LOAD_COLUMNS, CellResult, Row, read_rows
from enginebench.metrics.context import RunContext
from enginebench.metrics.costs import Prices
from enginebench.metrics.slo import Slo, parse
from enginebench.records.launch import LaunchRecord
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run

__all__ = ["LOAD_COLUMNS", "Analysis", "CellResult", "Parity", "Row", "analyse", "verdict_sentence"]


@dataclass(frozen=True)
class Analysis:
    """A run, understood. slo: what a good answer was to be; None: nobody said, and there is no goodput.

    prices: what the devices cost; None: nobody said, and no row has a cost.
    """

    run: RunRecord
    rows: tuple[Row, ...]
    launches: Mapping[str, LaunchRecord]
    columns: tuple[str, ...]
    sentence: str
    parity: tuple[Parity, ...] = ()
    slo: Slo | None = None
    prices: Prices | None = None

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader must know before he quotes a figure: random weights, disagreement, settings that did not take, the impossible."""
        found, context = caveats(self.rows, self.launches, self.parity), RunContext(self.run, prices=self.prices)
        return tuple(dict.fromkeys((*found, *contradictions(self.rows), *unpriced(self.rows, context))))

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells by status, and of those not measured yet under 'missing'."""
        records = [cell.record for row in self.rows for cell in row.cells]
        out = {status: sum(r.status == status for r in records) for status in ("ok", "failed", "skipped")}
        return out | {"missing": len(self.run.cells) - len(records)}

    @property
    def incomplete(self) -> str | None:
        """Why the run is not complete: cells failed or are missing, or all were skipped; None when it is."""
        counts = self.counts
        short = [f"{counts[status]} {status}" for status in ("failed", "missing") if counts[status]]
        if short:
            return f"not every cell was measured ({', '.join(short)})"
        return None if counts["ok"] else "nothing was measured: every cell was skipped"


def analyse(run: Run, prices: Prices | None = None) -> Analysis:
    """Read every stored cell of a run and fold the repeats. UserError when the stored SLO is none. prices: by the catalogue's names."""
    slo = parse(run.record.slo) if run.record.slo is not None else None
    launches = run.launches()
    rows, columns = read_rows(run, RunContext(run.record, launches, slo, prices))
    return Analysis(run.record, rows, launches, columns, verdict_sentence(rows), tuple(parities(rows, launches)), slo, prices)
