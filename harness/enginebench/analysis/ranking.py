"""The order of the rows of one load, and which of them cannot be told apart from the first: what a table marks.

Pure. What is concluded is in `enginebench.analysis.regimes`. Does not know tables or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.analysis.rows import Row
from enginebench.metrics.statistics import Comparison, Estimate, compare

RankedBy: TypeAlias = Literal["goodput", "output_throughput"]


@dataclass(frozen=True)
class Contender:
    row: Row
    value: Estimate
    """The figure that ranks it."""
    behind: Comparison | None
    """How the leader compares with it; None for the leader."""


def ranked_by(rows: Sequence[Row]) -> RankedBy:
    """The figure that ranks rows: goodput if an SLO gives any of them one, else output throughput."""
    return "goodput" if any(row.ranked and row.figures.get("goodput") for row in rows) else "output_throughput"


def contenders(rows: Sequence[Row]) -> list[Contender]:
    """The rows of one load that may be ranked, best first, each compared with the first. Sentences and marks both follow this order."""
    figure = ranked_by(rows)
    found = [(row, estimate) for row in rows if row.ranked and (estimate := row.figures.get(figure))]
    found.sort(key=lambda pair: pair[1].value, reverse=True)
    return [Contender(row, value, compare(found[0][1], value) if i else None) for i, (row, value) in enumerate(found)]
