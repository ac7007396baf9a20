"""Figures of a scenario over its runs, as static charts: one for each load, one line for each deployment of the newest run."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from enginebench.domain import JSON
from enginebench.metrics.registry import metric_of
from enginebench.report.blocks import Panel
from enginebench.report.html import NARROW, WIDE
from enginebench.report.plotly_traces import Trace, axis
from enginebench.report.site.entry import Entry, Point
from enginebench.report.static_chart import static_chart
from enginebench.report.styles import Style

_MOST_POINTS = 1_000
_MARKED = 16
"""With more runs a line has no markers."""
_FORMS = ((WIDE, "wide", 5), (NARROW, "narrow", 3))
"""Width, class, and most days on the axis."""


@dataclass(frozen=True)
class Chart:
    title: str
    svg: str
    """Escaped markup: a wide and a narrow form, of which CSS shows one."""


def charts(runs: Sequence[Entry], styles: Mapping[str, Style]) -> list[Chart]:
    """runs: of one scenario, oldest first. styles: of the deployments of the newest run."""
    loads: dict[str, dict[str, Point]] = {}
    for point in runs[-1].points if len(runs) > 1 else ():
        loads.setdefault(point.load, {})[point.pair] = point
    drawn = [(load, newest, _traces(runs, newest, styles)) for load, newest in loads.items()]
    return [_chart(load, next(iter(newest.values())), runs, traces) for load, newest, traces in drawn if traces]


def _traces(runs: Sequence[Entry], newest: Mapping[str, Point], styles: Mapping[str, Style]) -> tuple[Trace, ...]:
    found: dict[str, list[tuple[int, Point]]] = {}
    for i, run in enumerate(runs):
        for point in run.points:
            if point.pair in newest and point.figure == newest[point.pair].figure:
                found.setdefault(point.pair, []).append((i, point))
    lines = ((newest[pair].deployment, points) for pair, points in found.items() if len(points) > 1)
    return tuple(_line(name, points, styles[name]) for name, points in lines)


def _line(name: str, points: Sequence[tuple[int, Point]], style: Style) -> Trace:
    symbols: list[JSON] = [f"{style.symbol}-open" if point.suspect else style.symbol for _, point in points]
    return {
        "name": html.escape(name), "meta": {"slot": style.slot}, "line": {"dash": style.dash},
        "mode": "lines+markers" if len(points) <= _MARKED else "lines", "marker": {"symbol": symbols},
        "x": [i for i, _ in points], "y": [point.value for _, point in points],
    }  # fmt: skip


def _chart(load: str, point: Point, runs: Sequence[Entry], traces: tuple[Trace, ...]) -> Chart:
    metric = metric_of(point.figure)
    title = f"{metric.header if metric is not None else point.figure}, {point.unit}"
    drawn = ""
    for width, css, ticks in _FORMS:
        panel = Panel(load, traces, {"xaxis": axis("run of", **_days(runs, ticks)), "yaxis": axis(title)})
        drawn += static_chart(panel, f"{title}, {load}", width, css=css, points=_MOST_POINTS)
    return Chart(load, drawn)


def _days(runs: Sequence[Entry], ticks: int) -> dict[str, JSON]:
    """Ticks with the days of some runs, evenly apart."""
    last = len(runs) - 1
    at = list(dict.fromkeys(round(i * last / (ticks - 1)) for i in range(ticks)))
    days = list(_changed(runs[i].date[5:10] for i in at))
    ends: list[JSON] = [-0.03 * last, 1.03 * last]
    return {"range": ends, "tickvals": list(at), "ticktext": list(days)}


def _changed(texts: Iterator[str]) -> Iterator[str]:
    """Each text, or '' where it is the one before again."""
    before = ""
    for text in texts:
        yield "" if text == before else text
        before = text
