"""The section that plots throughput against speed per user, with the Pareto frontier: per GPU where the run has GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from enginebench.analysis.analysis import Row
from enginebench.analysis.conclusion import Grid
from enginebench.analysis.figure_grids import figure_grids
from enginebench.domain import JSON
from enginebench.domain.formatting import number
from enginebench.report.blocks import Block, Cell, Panel, Plots, Table
from enginebench.report.columns import THROUGHPUT, USER
from enginebench.report.findings import joined, listed
from enginebench.report.plotly_traces import axis, by_deployment, frontier_line, frontier_points, invalid, panel_groups, value
from enginebench.report.section import Context, Section, measurements

_CAPTION = (
    "Each point is one level of the load. Further right: faster for one user. Further up: more for all users. "
    "Rings, with the streams or requests/s: no other point is better in both. Scales differ between contexts."
)
_STEPS = 5


def _blocks(context: Context) -> Iterator[Block]:
    if panels := tuple(_panels(context)):
        yield Plots(_CAPTION, panels, tuple(context.slots))


def _panels(context: Context) -> Iterator[Panel]:
    per_gpu = bool(context.analysis.run.machine.get("gpus"))
    unit = "tok/s per GPU" if per_gpu else "tok/s, all requests"
    layout: dict[str, JSON] = {
        "xaxis": axis("output tok/s per user", rangemode="tozero"),
        "yaxis": axis(f"output {unit}", rangemode="tozero"),
    }
    for title, rows in panel_groups(context.analysis):
        usable = [row for row in rows if row.figures.get(USER.figure) and row.figures.get(THROUGHPUT.figure)]
        sound = [row for row in usable if row.sound]
        if sound:
            at = {id(row): (value(row, USER), value(row, THROUGHPUT) / (_gpus(row) if per_gpu else 1)) for row in usable}
            best = pareto(at[id(row)] for row in sound if row.ranked)
            traces = [
                frontier_points(its, [at[id(row)] for row in its], context.slots[name], frozenset(best))
                for name, its in by_deployment(sound).items()
            ]
            if not per_gpu:
                traces.append(invalid([row for row in usable if not row.sound], lambda row: value(row, USER), THROUGHPUT))
            yield Panel(title, (frontier_line(best), *traces), layout, tab=title, aside=_aside(sound, [at[id(row)] for row in sound], unit))


def _gpus(row: Row) -> int:
    return row.cells[0].record.traits.gpus or 1


def _aside(rows: Sequence[Row], at: Sequence[tuple[float, float]], unit: str) -> Table:
    """What gives most if every user needs at least so much: of what was measured, without interpolation."""
    points = list(zip(at, rows, strict=True))
    best = pareto(at)
    shown = best[:: max(1, -(-len(best) // _STEPS))]
    lines = []
    for point in shown:
        row = next(row for its, row in points if its == point)
        lines.append((Cell(number(point[0]), css="num"), row.name, row.load.level_text, Cell(number(point[1]), css="num")))
    headings = (Cell("tok/s per user", css="num"), "most is given by", "at", Cell(unit.partition(",")[0], css="num"))
    return Table(headings, tuple(lines), css="small", caption="If every user needs at least")


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto frontier where more is better in both coordinates, by rising x."""
    best: list[tuple[float, float]] = []
    for point in sorted(set(points), reverse=True):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best[::-1]


def _finding(context: Context) -> str:
    """'Fastest for one user: a; most for all users: b, c, equal'; of the first kind of load of each model, over all contexts."""
    analysis = context.analysis
    fast, most = (figure_grids(analysis.rows, figure, analysis.equal_within) for figure in (USER.figure, THROUGHPUT.figure))
    texts = []
    for model in context.models:
        users, total = (next((its for its in grids if its.scale.model == model), None) for grids in (fast, most))
        if users is not None and total is not None:
            first, last = _first_of(users, users.scale.levels[0]), _first_of(total, total.scale.levels[-1])
            about = f"{model}: " if len(context.models) > 1 else ""
            if first == last and "," not in first and first not in ("", _DEPENDS):
                texts.append(f"{about}{first} is the fastest for one user and gives the most for all")
            elif first and last:
                texts.append(f"{about}{'f' if about else 'F'}astest for one user: {first}; most for all users: {last}")
    return joined(texts)


_DEPENDS = "it depends on the context"


def _first_of(grid: Grid, level: str) -> str:
    """The leader at a level, if it is the same in every context."""
    regimes = [each for each in grid.regimes if each.level == level and each.leaders]
    if len({(each.outcome, frozenset(each.leaders)) for each in regimes}) != 1:
        return _DEPENDS if regimes else ""
    names = listed(sorted(regimes[0].leaders))
    said = {"equal": f"{names}, equal", "cannot tell": f"{names}, not told apart", "probably leads": f"probably {names}"}
    return said.get(regimes[0].outcome, names)


SECTION = Section("frontier", "Speed per user against throughput", _blocks, label="Frontier", needs=(measurements,), finding=_finding)
