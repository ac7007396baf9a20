"""The plots of a page: which questions are asked, and how rows are spread over small multiples so that each stays readable.

One panel per model and request shape, one trace per deployment. Draws nothing itself, imports no plotting library and knows no page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from enginebench.analysis.analysis import LOAD_COLUMNS, Analysis, Row
from enginebench.domain import JSON, KINDS, Load, field_names
from enginebench.report.columns import GOODPUT, THROUGHPUT, TPOT, TTFT, USER, WITHIN, Column, heading, intervals_text, itl_is_exact
from enginebench.report.plotly_traces import Trace, axis, frontier_line, frontier_points, invalid, level_axis, line, steps, value
from enginebench.report.sample_summary import Reading


@dataclass(frozen=True)
class Panel:
    """One plot. load: the level it belongs to when the section lets the reader choose one."""

    title: str
    traces: tuple[Trace, ...]
    layout: Mapping[str, JSON]
    load: Load | None = None

    @property
    def choice(self) -> str:
        """What the reader chooses it by: '16 streams', '2.5 req/s'."""
        return "" if self.load is None else self.load.level_text


@dataclass(frozen=True)
class PlotSection:
    """A question and its panels. key: its anchor in the page; short: its name in the contents."""

    key: str
    short: str
    title: str
    caption: str
    panels: tuple[Panel, ...]

    @property
    def choices(self) -> tuple[str, ...]:
        """What there is to choose from, ascending; empty when there is nothing to choose."""
        loads = sorted((panel.load for panel in self.panels if panel.load), key=lambda load: (load.open_loop, load.level))
        found = tuple(dict.fromkeys(load.level_text for load in loads))
        return found if len(found) > 1 else ()


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
        _by_level("throughput", "Throughput", "Output throughput", THROUGHPUT, f"All requests together. {bars}", analysis, slots),
        _by_level(
            "goodput", "Goodput", "Goodput", GOODPUT, f"Requests per second that met every limit of the SLO. {bars}", analysis, slots
        ),
        _by_level("within", "Within SLO", "Share of requests within the SLO", WITHIN, bars, analysis, slots),
        _by_level("ttft", "TTFT", "Time to first token", TTFT, f"Median request. {bars}", analysis, slots),
        _by_level("tpot", "TPOT", "Time per output token", TPOT, f"Median request, after the first token. {bars}", analysis, slots),
        _frontier(analysis, slots),
        _distribution("ttft", "Distribution of the time to first token", analysis, reading, slots),
        _distribution("tpot", "Distribution of the time per output token", analysis, reading, slots),
        _distribution("itl", f"Distribution of the {itl_name}", analysis, reading, slots),
    )
    return tuple(section for section in made if section.panels)


# -- figures over the level --------------------------------------------------------------------------------------------------


def _by_level(key: str, short: str, title: str, column: Column, caption: str, analysis: Analysis, slots: Mapping[str, int]) -> PlotSection:
    panels: list[Panel] = []
    for title_of_panel, rows in panel_groups(analysis):
        usable = [row for row in rows if row.figures.get(column.figure)]
        if not usable:
            continue
        traces = [line(its, column, slots[name]) for name, its in _by_deployment(rows).items()]
        traces.append(invalid([row for row in usable if not row.sound], lambda row: row.load.level, column))
        layout: dict[str, JSON] = {"xaxis": level_axis(usable), "yaxis": axis(f"{column.label}, {column.unit}", rangemode="tozero")}
        panels.append(Panel(title_of_panel, tuple(traces), layout))
    return PlotSection(key, short, title, caption, tuple(panels))


# -- latency against throughput ------------------------------------------------------------------------------------------


def _frontier(analysis: Analysis, slots: Mapping[str, int]) -> PlotSection:
    panels: list[Panel] = []
    for title_of_panel, rows in panel_groups(analysis):
        usable = [row for row in rows if row.figures.get(USER.figure) and row.figures.get(THROUGHPUT.figure)]
        sound = [row for row in usable if row.sound]
        if not sound:
            continue
        best = pareto((value(row, USER), value(row, THROUGHPUT)) for row in sound if row.ranked)
        traces = [frontier_points(its, slots[name], frozenset(best)) for name, its in _by_deployment(sound).items()]
        traces.append(invalid([row for row in usable if not row.sound], lambda row: value(row, USER), THROUGHPUT))
        layout: dict[str, JSON] = {
            "xaxis": axis("output tok/s per user", rangemode="tozero"),
            "yaxis": axis("output tok/s, all requests", rangemode="tozero"),
        }
        panels.append(Panel(title_of_panel, (frontier_line(best), *traces), layout))
    caption = (
        "Each point is one level of the load. Right is faster for one user, up is more for all. "
        "Ringed, with the streams or the requests/s: no other point is better in both."
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
    for title_of_panel, rows in panel_groups(analysis):
        for load in sorted({row.load for row in rows}, key=lambda load: load.level):
            here = [row for row in rows if row.sound and row.load == load]
            curves = [(row, curve) for row in here if (curve := reading.curves.get(index[id(row)], {}).get(latency))]
            if curves:
                traces = tuple(steps(row, curve, slots[row.name]) for row, curve in curves)
                share = "share of intervals" if latency == "itl" else "share of requests"
                layout: dict[str, JSON] = {"xaxis": axis("ms"), "yaxis": axis(share, range=[0, 1.02], tickformat=".0%")}
                panels.append(Panel(f"{title_of_panel} · {load.level_text}", traces, layout, load))
    caption = "Share of values at or below a time (empirical distribution). Repeats pooled, invalid rows left out."
    return PlotSection(f"distribution-{latency}", latency.upper(), title, caption, tuple(panels))


# -- shared --------------------------------------------------------------------------------------------------------------


_TITLED = field_names("level", "lengths", "extent")
"""Fields that a panel's title says already, or that say only how long was measured."""


def panel_groups(analysis: Analysis) -> list[tuple[str, list[Row]]]:
    """Rows that belong in one plot: the same model, and loads that differ in their level only. Closed loops come first."""
    names: dict[tuple[str, Load], str] = {}
    rows: dict[tuple[str, Load], list[Row]] = {}
    models, kinds = {row.deployment.model for row in analysis.rows}, {row.load.kind for row in analysis.rows}
    for row in sorted(analysis.rows, key=lambda row: KINDS.index(type(row.load))):
        key = (row.deployment.model, row.load.without_level(*field_names("extent")))
        rows.setdefault(key, []).append(row)
        facts = [row.deployment.model] if len(models) > 1 else []
        facts += [row.load.kind] if len(kinds) > 1 else []
        facts += [f"at most {row.load.limit} in flight"] if row.load.limit else []
        other = [c for c in row.labels if c in LOAD_COLUMNS and c not in _TITLED and row.labels[c]]
        names[key] = " · ".join([*facts, row.load.shape_text, *(f"{heading(c)} {row.labels[c]}" for c in other)])
    return [(names[key], its) for key, its in rows.items()]


def _by_deployment(rows: Iterable[Row]) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.load.level):
        out.setdefault(row.name, []).append(row)
    return out
