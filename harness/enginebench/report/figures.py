"""Which figures a report shows, in which unit, and how a number is written: the one definition behind every output.

Scales SI values for display and says why a figure is missing. Knows no table, no Markdown and no HTML, and computes no metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from enginebench.analysis import Analysis, Row
from enginebench.statistics import Estimate, samples_needed

MISSING = "-"


@dataclass(frozen=True)
class Column:
    """One figure as it is shown. factor: display unit / SI unit. Of two columns the one with the lower `rank` stays when space is short."""

    figure: str
    label: str
    unit: str
    factor: float
    rank: int

    @property
    def heading(self) -> str:
        """Label and unit: 'TTFT p50 ms'."""
        return f"{self.label} {self.unit}"

    @property
    def heading_lines(self) -> tuple[str, str]:
        """Label over unit, for narrow columns."""
        return self.label, self.unit


THROUGHPUT = Column("output_throughput", "output", "tok/s", 1, 0)
TTFT = Column("ttft_p50", "TTFT p50", "ms", 1e3, 1)
TPOT = Column("tpot_p50", "TPOT p50", "ms", 1e3, 2)
TTFT_P99 = Column("ttft_p99", "TTFT p99", "ms", 1e3, 3)
TTFT_P90 = Column("ttft_p90", "TTFT p90", "ms", 1e3, 3)
USER = Column("user_throughput", "per user", "tok/s", 1, 4)
ITL_P99 = Column("itl_p99", "ITL p99", "ms", 1e3, 5)
EVENT_P99 = Column("itl_p99", "event interval p99", "ms", 1e3, 5)
REQUESTS = Column("request_throughput", "requests", "req/s", 1, 6)


def shown(analysis: Analysis) -> tuple[Column, ...]:
    """The default figures of a run, in reading order: the highest TTFT percentile that any row supports, and an honest name for ITL."""
    ran = [row for row in analysis.rows if row.status == "ok"]
    tail = next((c for c in (TTFT_P99, TTFT_P90) if any(row.figures.get(c.figure) for row in ran)), None)
    exact = all(cell.itl_exact for row in ran for cell in row.cells if cell.verdict is not None)
    columns = (THROUGHPUT, TTFT, tail, TPOT, ITL_P99 if exact else EVENT_P99, USER, REQUESTS)
    return tuple(column for column in columns if column is not None)


def decimals(value: float) -> int:
    """Digits after the point that leave at least three significant ones."""
    if value == 0 or not math.isfinite(value):
        return 0
    exponent = int(f"{abs(value):.2e}".partition("e")[2])  # rounds first: 99.96 has the exponent of 100
    return max(0, 2 - exponent)


def number(value: float, places: int | None = None) -> str:
    """At least three significant digits, thousands separated: 9.12, 41.0, 1,742."""
    return f"{value:,.{decimals(value) if places is None else places}f}"


def value_text(found: Estimate | None, column: Column) -> str:
    """The estimate in the display unit, without its interval; '-' where there is none."""
    return number(found.value * column.factor) if found else MISSING


def interval_text(found: Estimate | None, column: Column, dash: str = "-") -> str:
    """'[1,701-1,790]' with the value's precision; empty without repeats."""
    if found is None or found.low is None or found.high is None:
        return ""
    places = decimals(found.value * column.factor)
    low, high = (number(edge * column.factor, places) for edge in (found.low, found.high))
    return f"[{low}{dash}{high}]"


def full_text(found: Estimate | None, column: Column) -> str:
    """Value and interval: '1,742 [1,701-1,790]'."""
    return f"{value_text(found, column)} {interval_text(found, column)}".rstrip()


def why_missing(row: Row, column: Column) -> str | None:
    """Why a row that ran has no such figure; None when it has one or never ran."""
    if row.status != "ok" or row.figures.get(column.figure):
        return None
    metric, _, q = column.figure.rpartition("_p")
    if metric and q.isdigit():
        needed = samples_needed(float(q))
        if metric == "itl":
            return f"{column.label} needs {needed} intervals"
        if row.load.requests < needed:
            return f"{column.label} needs {needed} requests"
    if metric == "tpot" or column is USER:
        return f"{column.label} needs streamed events and 2 counted tokens per request"
    return f"{column.label} is unknown: the server did not say enough"


def repeats_text(row: Row) -> str:
    """'3': repeats behind the figures, or '2/3' when some repeats failed or were invalid and therefore left out."""
    used = max((found.n for found in row.figures.values() if found), default=0)
    return str(used) if used == len(row.cells) else f"{used}/{len(row.cells)}"


def streams_text(concurrency: int) -> str:
    """'1 stream', '16 streams'."""
    return f"{concurrency} stream{'s' if concurrency != 1 else ''}"
