"""Whether a cell met the SLO: the answer that a search goes by. Nothing of it is stored; it is derived whenever a run is read."""

from __future__ import annotations

from enginebench.analysis.rows import CellResult
from enginebench.metrics.slo import Slo


def meets(cell: CellResult, slo: Slo) -> bool | None:
    """Whether a cell ran to its end and enough of the requests in its steady window kept every limit.

    None if unknown: a limit on TPOT where tokens were not counted, or latencies that are withheld for this cell.
    """
    if cell.record.status != "ok" or cell.record.delivery.stopped:
        return False
    attained = cell.figures.get("slo_attainment")
    return None if attained is None else attained >= slo.share
