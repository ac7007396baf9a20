"""The section that plots throughput against speed per user, with the Pareto frontier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from enginebench.domain import JSON
from enginebench.report.blocks import Block, Panel, Plots
from enginebench.report.columns import THROUGHPUT, USER
from enginebench.report.plotly_traces import axis, by_deployment, frontier_line, frontier_points, invalid, panel_groups, value
from enginebench.report.section import Context, Section, measurements

_CAPTION = (
    "Each point is one level of the load. Further right: faster for one user. Further up: more for all users. "
    "Rings, with the streams or requests/s: no other point is better in both."
)


def _blocks(context: Context) -> Iterator[Block]:
    if panels := tuple(_panels(context)):
        yield Plots(_CAPTION, panels, tuple(context.slots))


def _panels(context: Context) -> Iterator[Panel]:
    layout: dict[str, JSON] = {
        "xaxis": axis("output tok/s per user", rangemode="tozero"),
        "yaxis": axis("output tok/s, all requests", rangemode="tozero"),
    }
    for title, rows in panel_groups(context.analysis):
        usable = [row for row in rows if row.figures.get(USER.figure) and row.figures.get(THROUGHPUT.figure)]
        sound = [row for row in usable if row.sound]
        if sound:
            best = pareto((value(row, USER), value(row, THROUGHPUT)) for row in sound if row.ranked)
            traces = [frontier_points(its, context.slots[name], frozenset(best)) for name, its in by_deployment(sound).items()]
            traces.append(invalid([row for row in usable if not row.sound], lambda row: value(row, USER), THROUGHPUT))
            yield Panel(title, (frontier_line(best), *traces), layout)


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto frontier where more is better in both coordinates, by rising x."""
    best: list[tuple[float, float]] = []
    for point in sorted(set(points), reverse=True):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best[::-1]


SECTION = Section("frontier", "Speed per user against throughput", _blocks, label="Frontier", needs=(measurements,))
