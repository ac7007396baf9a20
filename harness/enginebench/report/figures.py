"""Which figures a report shows, in which unit, and how a number is written: the one definition behind every output.

Scales SI values for display and says why a figure is missing. Knows no table, no Markdown and no HTML, and computes no metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.rows import metric_name
from enginebench.metrics.cost_and_ceiling import COST_AND_CEILING_METRICS, COST_METRICS
from enginebench.metrics.statistics import BOOTSTRAP_FROM, Estimate, range_coverage, samples_needed

MISSING = "-"
_NOT_WORTH = {False: "the model's size, its placement or the machine's limits are not known", True: "the price or the power is not known"}


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
GOODPUT = Column("goodput", "goodput", "req/s", 1, 1)
TTFT = Column("ttft_p50", "TTFT p50", "ms", 1e3, 2)
TPOT = Column("tpot_p50", "TPOT p50", "ms", 1e3, 3)
WITHIN = Column("slo_attainment", "within SLO", "%", 1e2, 4)
TTFT_P99 = Column("ttft_p99", "TTFT p99", "ms", 1e3, 5)
TTFT_P90 = Column("ttft_p90", "TTFT p90", "ms", 1e3, 5)
DUE_P99 = Column("ttft_due_p99", "TTFT from due p99", "ms", 1e3, 6)
DUE_P90 = Column("ttft_due_p90", "TTFT from due p90", "ms", 1e3, 6)
DUE_P50 = Column("ttft_due_p50", "TTFT from due p50", "ms", 1e3, 6)
ANSWER = Column("ttfa_p50", "first answer p50", "ms", 1e3, 7)
USER = Column("user_throughput", "per user", "tok/s", 1, 8)
ITL_P99 = Column("itl_p99", "ITL p99", "ms", 1e3, 9)
EVENT_P99 = Column("itl_p99", "event interval p99", "ms", 1e3, 9)
REQUESTS = Column("request_throughput", "requests", "req/s", 1, 10)
WAIT = Column("reader_wait_p50", "reader waits p50", "%", 1e2, 11)
CEILING = Column("share_of_ceiling", "of ceiling", "%", 1e2, 4)
ENERGY = Column("energy_per_token", "energy", "J/tok", 1, 5)
STATED_ENERGY = Column("joules_per_token", "energy", "J/tok", 1, 5)


def cost_columns(currency: str) -> tuple[Column, ...]:
    """Cost per token, and what a unit of money buys."""
    return (
        Column("cost_per_token", "cost", f"{currency}/M tok", 1, 1),
        Column("throughput_per_money", "speed per price", f"tok/s/{currency}", 1, 4),
        Column("bandwidth_per_money", "bandwidth per price", f"GB/s/{currency}", 1, 7),
    )


def shown(analysis: Analysis) -> tuple[Column, ...]:
    """The default figures of a run, in reading order: the highest TTFT percentile that any row supports, and an honest name for ITL.

    A run of in-process batches alone has no TTFT and no ITL, and no column for them. Goodput is there with an SLO; the latency
    from due and the time to the first answer where they are not the TTFT; the reader's wait where a reader waits; the share of the
    ceiling, costs and energy where any row has them.
    """
    ran = [row for row in analysis.rows if row.status == "ok"]
    goals = tuple(column for column in (GOODPUT, WITHIN) if any(row.figures.get(column.figure) for row in ran))
    if ran and not any(map(_served, ran)):
        return (THROUGHPUT, *_worth(analysis, ran), TPOT, USER, REQUESTS)
    tail = next((c for c in (TTFT_P99, TTFT_P90) if any(row.figures.get(c.figure) for row in ran)), None)
    due = {TTFT_P99: DUE_P99, TTFT_P90: DUE_P90, None: DUE_P50}[tail]
    columns = (
        THROUGHPUT,
        *_worth(analysis, ran),
        *goals,
        TTFT,
        tail,
        due if any(_differ(row, tail or TTFT, due) for row in ran) else None,
        ANSWER if any(_differ(row, TTFT, ANSWER) for row in ran) else None,
        TPOT,
        ITL_P99 if itl_is_exact(analysis) else EVENT_P99,
        USER,
        REQUESTS,
        WAIT if any((found := row.figures.get(WAIT.figure)) and found.value >= _WAITS for row in ran) else None,
    )
    return tuple(column for column in columns if column is not None)


def _worth(analysis: Analysis, ran: Sequence[Row]) -> tuple[Column, ...]:
    """Share of the ceiling, costs and energy that any row has. Energy that was measured goes before energy at a stated power."""
    has = {name for row in ran for name, found in row.figures.items() if found}
    energy = ENERGY if ENERGY.figure in has else STATED_ENERGY
    costs = cost_columns(analysis.prices.currency) if analysis.prices else ()
    return tuple(column for column in (CEILING, *costs, energy) if column.figure in has)


_WAITS = 0.01
"""Below this share of the reading time nobody notices that he waits."""


def _differ(row: Row, usual: Column, other: Column) -> bool:
    """Whether two latencies of a row differ by more than a hundredth and a millisecond: else a second column says nothing."""
    a, b = row.figures.get(usual.figure), row.figures.get(other.figure)
    return a is not None and b is not None and abs(b.value - a.value) > max(1e-3, 0.01 * a.value)


def itl_is_exact(analysis: Analysis) -> bool:
    """Whether the gaps of every served row are intervals between tokens; else they are called event intervals."""
    return all(cell.itl_exact for row in analysis.rows if _served(row) for cell in row.cells if cell.ran)


def _served(row: Row) -> bool:
    return row.deployment.runtime != "in-process"


def intervals_text(analysis: Analysis) -> str:
    """What the intervals of this run are, for the numbers of repeats that occur; empty when nothing ran."""
    ns = sorted({found.n for row in analysis.rows for found in row.figures.values() if found})
    small = ", ".join(f"{100 * range_coverage(n):g} % for n={n}" for n in ns if 2 <= n < BOOTSTRAP_FROM)
    said = [f"range over n restarts; probability that it holds the true median: {small}"] if small else []
    said += [f"95 % bootstrap interval over n restarts from n={BOOTSTRAP_FROM}"] if ns and ns[-1] >= BOOTSTRAP_FROM else []
    said += ["none for n=1: repeat before you rely on an order"] if 1 in ns else []
    return "; ".join(said)


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
    name = metric_name(column.figure)
    hidden = next((cell.withheld[name] for cell in row.cells if name in cell.withheld), None)
    if hidden:
        return f"{column.label}: {hidden}"
    if name in COST_AND_CEILING_METRICS:
        return f"{column.label}: {_NOT_WORTH[name in COST_METRICS]}"
    fewest = min((cell.requests for cell in row.cells if cell.requests), default=0)
    metric, _, q = column.figure.rpartition("_p")
    if metric and q.isdigit():
        needed = samples_needed(float(q))
        if metric == "itl":
            return f"{column.label} needs {needed} intervals"
        if row.figures.get(f"{metric}_p50") or 0 < fewest < needed:
            return f"{column.label} needs {needed} requests"
    needed = samples_needed(50)
    if column is USER and 0 < fewest < needed:
        return f"{column.label} needs {needed} requests"
    if metric == "tpot" or column is USER:
        return f"{column.label} needs 2 streamed events and 2 counted tokens per request"
    if column is ANSWER:
        return f"{column.label}: no answer came, or none that could be told from reasoning"
    return f"{column.label} is unknown: the server did not say enough"


def repeats_text(row: Row) -> str:
    """'3': repeats behind the figures, or '2/3' when some repeats failed or were invalid and therefore left out."""
    used = max((found.n for found in row.figures.values() if found), default=0)
    return str(used) if used == len(row.cells) else f"{used}/{len(row.cells)}"
