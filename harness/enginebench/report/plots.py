"""The plots of a page: which questions are asked, and how rows are spread over small multiples so that each stays readable.

One panel per model and request shape, one trace per deployment. Draws nothing itself, imports no plotting library and knows no page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from enginebench.analysis import LOAD_COLUMNS, Analysis, Row
from enginebench.nouns import JSON, Load
from enginebench.report.distributions import Reading
from enginebench.report.figures import THROUGHPUT, TPOT, TTFT, USER, Column, intervals_text, itl_is_exact, streams_text
from enginebench.report.layout import heading
from enginebench.report.traces import Trace, axis, frontier_line, frontier_points, invalid, line, steps, streams_axis, value


@dataclass(frozen=True)
class Panel:
    """One plot. streams: the concurrency it belongs to when the section lets the reader choose one."""

    title: str
    traces: tuple[Trace, ...]
    layout: Mapping[str, JSON]
    streams: int | None = None


@dataclass(frozen=True)
class PlotSection:
    """A question and its panels. key: its anchor in the page; short: its name in the contents."""

    key: str
    short: str
    title: str
    caption: str
    panels: tuple[Panel, ...]

    @property
    def choices(self) -> tuple[int, ...]:
        """The concurrencies to choose from, ascending; empty when there is nothing to choose."""
        found = sorted({panel.streams for panel in self.panels if panel.streams is not None})
        return tuple(found) if len(found) > 1 else ()


def deployments(analysis: Analysis) -> tuple[str, ...]:
    """The deployments' names; the position of a name is its colour, marker and dash everywhere."""
    return tuple(dict.fromkeys(row.name for row in analysis.rows))


def sections(analysis: Analysis, reading: Reading) -> tuple[PlotSection, ...]:
    """All plots of a page; sections without data are left out."""
    slots = {name: i for i, name in enumerate(deployments(analysis))}
    itl_name = "inter-token latency" if itl_is_exact(analysis) else "event interval"
    intervals = intervals_text(analysis)
    bars = f"Medians over n restarts. Bars: {intervals}." if intervals else ""
    made = (
        _by_streams("throughput", "Throughput", "Output throughput", THROUGHPUT, f"All streams together. {bars}", analysis, slots),
        _by_streams("ttft", "TTFT", "Time to first token", TTFT, f"Median request. {bars}", analysis, slots),
        _by_streams("tpot", "TPOT", "Time per output token", TPOT, f"Median request, after the first token. {bars}", analysis, slots),
        _frontier(analysis, slots),
        _distribution("ttft", "Distribution of the time to first token", analysis, reading, slots),
        _distribution("tpot", "Distribution of the time per output token", analysis, reading, slots),
        _distribution("itl", f"Distribution of the {itl_name}", analysis, reading, slots),
    )
    return tuple(section for section in made if section.panels)


# -- figures over concurrency --------------------------------------------------------------------------------------------


def _by_streams(
    key: str, short: str, title: str, column: Column, caption: str, analysis: Analysis, slots: Mapping[str, int]
) -> PlotSection:
    panels: list[Panel] = []
    for title_of_panel, rows in _panels(analysis):
        usable = [row for row in rows if row.figures.get(column.figure)]
        if not usable:
            continue
        traces = [line(its, column, slots[name]) for name, its in _by_deployment(rows).items()]
        traces.append(invalid([row for row in usable if not row.ranked], lambda row: row.load.concurrency, column))
        layout: dict[str, JSON] = {"xaxis": streams_axis(usable), "yaxis": axis(f"{column.label}, {column.unit}", rangemode="tozero")}
        panels.append(Panel(title_of_panel, tuple(traces), layout))
    return PlotSection(key, short, title, caption, tuple(panels))


# -- latency against throughput ------------------------------------------------------------------------------------------


def _frontier(analysis: Analysis, slots: Mapping[str, int]) -> PlotSection:
    panels: list[Panel] = []
    for title_of_panel, rows in _panels(analysis):
        usable = [row for row in rows if row.figures.get(USER.figure) and row.figures.get(THROUGHPUT.figure)]
        ranked = [row for row in usable if row.ranked]
        best = pareto((value(row, USER), value(row, THROUGHPUT)) for row in ranked)
        if not best:
            continue
        traces = [frontier_points(its, slots[name], frozenset(best)) for name, its in _by_deployment(ranked).items()]
        traces.append(invalid([row for row in usable if not row.ranked], lambda row: value(row, USER), THROUGHPUT))
        layout: dict[str, JSON] = {
            "xaxis": axis("output tok/s per user", rangemode="tozero"),
            "yaxis": axis("output tok/s, all streams", rangemode="tozero"),
        }
        panels.append(Panel(title_of_panel, (frontier_line(best), *traces), layout))
    caption = (
        "Each point is one concurrency. Right is faster for one user, up is more for all. "
        "Ringed, with the number of streams: no other point is better in both."
    )
    return PlotSection("frontier", "Frontier", "Speed for one user against throughput for all", caption, tuple(panels))


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in one coordinate without losing in the other (more is better), by rising x."""
    best: list[tuple[float, float]] = []
    for point in sorted(set(points), reverse=True):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best[::-1]


# -- distributions -------------------------------------------------------------------------------------------------------


def _distribution(latency: str, title: str, analysis: Analysis, reading: Reading, slots: Mapping[str, int]) -> PlotSection:
    index = {id(row): i for i, row in enumerate(analysis.rows)}
    panels: list[Panel] = []
    for title_of_panel, rows in _panels(analysis):
        for streams in sorted({row.load.concurrency for row in rows}):
            here = [row for row in rows if row.ranked and row.load.concurrency == streams]
            curves = [(row, curve) for row in here if (curve := reading.curves.get(index[id(row)], {}).get(latency))]
            if curves:
                traces = tuple(steps(row, curve, slots[row.name]) for row, curve in curves)
                share = "share of intervals" if latency == "itl" else "share of requests"
                layout: dict[str, JSON] = {"xaxis": axis("ms"), "yaxis": axis(share, range=[0, 1.02], tickformat=".0%")}
                panels.append(Panel(f"{title_of_panel} · {streams_text(streams)}", traces, layout, streams))
    caption = "Share of values at or below a time (empirical distribution). Repeats pooled, invalid rows left out."
    return PlotSection(f"distribution-{latency}", latency.upper(), title, caption, tuple(panels))


# -- shared --------------------------------------------------------------------------------------------------------------


def _panels(analysis: Analysis) -> list[tuple[str, list[Row]]]:
    """Rows that belong in one plot: the same model, and loads that differ in their concurrency only."""
    names: dict[tuple[str, Load], str] = {}
    rows: dict[tuple[str, Load], list[Row]] = {}
    several = len({row.deployment.model for row in analysis.rows}) > 1
    for row in analysis.rows:
        shape = dataclasses.replace(row.load, concurrency=0, requests=0, warmup_requests=0)
        key = (row.deployment.model, shape)
        rows.setdefault(key, []).append(row)
        other = [c for c in row.labels if c in LOAD_COLUMNS and c not in ("concurrency", "requests", "input_tokens", "output_tokens")]
        facts = [f"{row.load.input_tokens} in + {row.load.output_tokens} out", *(f"{heading(c)} {row.labels[c]}" for c in other)]
        names[key] = " · ".join([row.deployment.model, *facts] if several else facts)
    return [(names[key], its) for key, its in rows.items()]


def _by_deployment(rows: Iterable[Row]) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.load.concurrency):
        out.setdefault(row.name, []).append(row)
    return out
