"""Which figures a report shows, under which heading and in which unit: one definition for every output.

Columns come from the metrics' declarations (`enginebench.metrics.registry`). This module scales stored values for display and gives the
reason for a missing figure. It does not know tables, Markdown or HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.analysis.analysis import LOAD_COLUMNS, Analysis, Row
from enginebench.domain import JSON, load_fields
from enginebench.domain.formatting import interval, number, printable
from enginebench.metrics.registry import PERCENTILES, Metric, Shown, Trait, find, metric_name, metrics
from enginebench.metrics.statistics import BOOTSTRAP_FROM, Estimate, range_coverage, samples_needed

MISSING = "-"


@dataclass(frozen=True)
class Column:
    figure: str
    label: str
    unit: str
    factor: float
    """Display value / stored value."""
    rank: int = 100
    """Importance, 0 first: when space is short the column with the highest rank is dropped."""

    @property
    def heading(self) -> str:
        """Label and unit: 'TTFT p50 ms'."""
        return f"{self.label} {self.unit}"


def column(figure: str, analysis: Analysis | None = None, rank: int = 100) -> Column:
    """How a figure is shown. analysis: decides the currency, and whether gaps between events are intervals between tokens."""
    found = find(figure)
    if found is None:
        return Column(figure, figure, "", 1, rank)
    metric, q = found
    bundled = metric.bundled_title if analysis is not None and not itl_is_exact(analysis) else ""
    label = (bundled or metric.header) + ("" if q is None else f" p{q:.0f}")
    unit, factor = metric.display(analysis.prices.currency if analysis is not None and analysis.prices is not None else "money")
    return Column(figure, label, printable(unit), factor, rank)


def heading(column: str) -> str:
    return load_fields()[column].heading if column in LOAD_COLUMNS else column


THROUGHPUT, GOODPUT, WITHIN, USER = map(column, ("output_throughput", "goodput", "slo_attainment", "user_throughput"))
TTFT, TPOT = column("ttft_p50"), column("tpot_p50")


def shown(analysis: Analysis) -> tuple[Column, ...]:
    """The columns of the default table, in reading order: those that the metrics declare and this run can use.

    A run of only in-process batches has no columns for the latencies of single requests.
    """
    ran = [row for row in analysis.rows if row.status == "ok"]
    batch = bool(ran) and not any(map(_served, ran))
    declared = [(its.place, metric, its) for metric in metrics().values() for its in metric.shown]
    wanted = [
        column(figure, analysis, its.rank)
        for _, metric, its in sorted(declared, key=lambda item: item[0])
        if not (batch and metric.traits & {Trait.LATENCY, Trait.ONLINE}) and (figure := _wanted(metric, its, ran))
    ]
    return tuple(each for i, each in enumerate(wanted) if each.figure not in {before.figure for before in wanted[:i]})


def _wanted(metric: Metric, its: Shown, ran: Sequence[Row]) -> str | None:
    """The figure of a declared column; None if this run cannot use it."""
    q = "" if not metric.spread else f"_p{_tail(metric.name, ran) if its.percentile == 'tail' else its.percentile}"
    figure = f"{metric.name}{q}"
    values = [found.value for row in ran if (found := row.figures.get(figure)) and found.value >= its.least]
    if not values and not its.always:
        return None
    if its.unlike and not any(_differ(row, f"{its.unlike}{q}", figure) for row in ran):
        return None
    return None if its.instead_of and any(row.figures.get(its.instead_of) for row in ran) else figure


def _tail(name: str, ran: Sequence[Row]) -> int:
    """The highest percentile that any row has; the median if none has any."""
    return next((round(q) for q in PERCENTILES[::-1] if any(row.figures.get(f"{name}_p{q:.0f}") for row in ran)), 50)


def _differ(row: Row, usual: str, other: str) -> bool:
    """Whether two latencies of a row differ by more than 1 % and 1 ms; otherwise a second column adds nothing."""
    a, b = row.figures.get(usual), row.figures.get(other)
    return a is not None and b is not None and abs(b.value - a.value) > max(1e-3, 0.01 * a.value)


def itl_is_exact(analysis: Analysis) -> bool:
    """Whether the gaps between events are intervals between tokens in every served row."""
    return all(cell.one_token_per_event for row in analysis.rows if _served(row) for cell in row.cells if cell.ran)


def _served(row: Row) -> bool:
    return row.deployment.runtime != "in-process"


def intervals_text(analysis: Analysis) -> str:
    """The meaning of the intervals in this run, for the numbers of repeats that occur; empty if nothing ran."""
    ns = sorted({found.n for row in analysis.rows for found in row.figures.values() if found})
    small = ", ".join(f"{100 * range_coverage(n):g} % for n={n}" for n in ns if 2 <= n < BOOTSTRAP_FROM)
    parts = [f"range over n restarts; probability that it holds the true median: {small}"] if small else []
    parts += [f"95 % bootstrap interval over n restarts from n={BOOTSTRAP_FROM}"] if ns and ns[-1] >= BOOTSTRAP_FROM else []
    parts += ["none for n=1: repeat before you rely on an order"] if 1 in ns else []
    return "; ".join(parts)


def value_text(found: Estimate | None, column: Column) -> str:
    """The estimate in the display unit, without its interval; '-' if there is none."""
    return number(found.value * column.factor) if found else MISSING


def interval_text(found: Estimate | None, column: Column, dash: str = "-") -> str:
    """'[1,701-1,790]' with the value's precision; empty without repeats."""
    if found is None or found.low is None or found.high is None:
        return ""
    return interval(found.value * column.factor, found.low * column.factor, found.high * column.factor, dash)


def full_text(found: Estimate | None, column: Column) -> str:
    """Value and interval: '1,742 [1,701-1,790]'."""
    return f"{value_text(found, column)} {interval_text(found, column)}".rstrip()


def estimate_data(found: Estimate) -> dict[str, JSON]:
    """An estimate in exports, in the stored unit."""
    return {"value": found.value, "low": found.low, "high": found.high, "interval": found.interval, "n": found.n}


def why_missing(row: Row, column: Column) -> str | None:
    """The reason why a row that ran lacks a figure; None if it has the figure or did not run."""
    if row.status != "ok" or row.figures.get(column.figure):
        return None
    name = metric_name(column.figure)
    hidden = next((cell.withheld[name] for cell in row.cells if name in cell.withheld), None)
    if hidden or (found := find(column.figure)) is None:
        return f"{column.label}: {hidden or 'not in this run'}"
    metric, q = found
    if (stated := row.cells[0].record.stated) is not None:
        return f"{column.label}: not stated by {stated.source}" + ("" if q in (None, 50) else ", or for too few requests")
    if q is not None:
        needed, fewest = samples_needed(q), min((cell.requests for cell in row.cells if cell.requests), default=0)
        if metric.scope == "event":
            return f"{column.label} needs {needed} intervals"
        if row.figures.get(f"{name}_p50") or 0 < fewest < needed:
            return f"{column.label} needs {needed} requests"
    return f"{column.label}: {metric.missing}"


def repeats_text(row: Row) -> str:
    """'3': repeats behind the figures; '2/3' if some failed or were invalid and are left out."""
    used = max((found.n for found in row.figures.values() if found), default=0)
    return str(used) if used == len(row.cells) else f"{used}/{len(row.cells)}"
