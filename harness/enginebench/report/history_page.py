"""Many nights as a page: the changes, then a static chart of every series. One file without scripts, which works offline."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

from enginebench.analysis.history import History, Trend
from enginebench.analysis.labels import load_text
from enginebench.analysis.nights import Point
from enginebench.domain import JSON
from enginebench.report.blocks import Panel
from enginebench.report.columns import column
from enginebench.report.history_changes import describe, groups, sentence, short
from enginebench.report.history_summary import head, notes, table
from enginebench.report.html import NARROW, WIDE
from enginebench.report.page import page_environment, page_style
from enginebench.report.plotly_traces import Trace, axis
from enginebench.report.static_chart import static_chart
from enginebench.report.styles import NEUTRAL, Style, hues, styles

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_FORMS = ((WIDE, "wide", 5), (NARROW, "narrow", 3))
"""Width, class, and days on the axis."""
_MOST_POINTS, _HEIGHT = 1_000, 220


def render_page(found: History) -> str:
    from markupsafe import Markup

    rows = [trend.series.row for trend in found.trends]
    looks = styles((row.name, row.deployment.engine) for row in rows)
    first, last = (dt.date.fromisoformat(at[:10]) for at in (found.nights[0], found.nights[-1]))
    drawn = [(trend, Markup(_chart(trend, looks[trend.series.row.name], first, last))) for trend in found.trends]  # noqa: S704  # static_chart escapes
    headings, *lines = table(found)
    return (
        page_environment()
        .get_template("history.html.j2")
        .render(
            sentence=sentence(found),
            head=head(found),
            groups=[(group.label, [text for _, text in describe(found, group)]) for group in groups(found)],
            notes=notes(found),
            changed=[each for each in drawn if each[0].changes],
            same=[each for each in drawn if not each[0].changes],
            title=_title,
            headings=headings,
            rows=lines,
            css=Markup(page_style() + hues(looks)),  # noqa: S704  # our own files
            policy=_POLICY,
        )
    )


def _title(trend: Trend) -> str:
    row = trend.series.row
    changes = ", ".join(short(change) for change in trend.changes)
    return f"{row.deployment.model} · {row.name} · {load_text(row.load)}{f': {changes}' if changes else ''}"


def _chart(trend: Trend, style: Style, first: dt.date, last: dt.date) -> str:
    """A wide and a narrow form, of which CSS shows one."""
    its = column(trend.series.figure)
    traces = tuple(_traces(trend, style, first))
    drawn = ""
    for width, css, ticks in _FORMS:
        layout: dict[str, JSON] = {"xaxis": axis("night of", **_days(first, last, ticks)), "yaxis": axis(f"{its.label} {its.unit}")}
        drawn += static_chart(Panel("", traces, layout), _title(trend), width, _HEIGHT, css=css, points=_MOST_POINTS)
    return drawn


def _traces(trend: Trend, style: Style, first: dt.date) -> Iterator[Trace]:
    """The nights, those that are not judged as grey crosses, and the levels between the changes."""
    factor, used = column(trend.series.figure).factor, set(map(id, trend.series.used))
    judged = [point for point in trend.series.points if id(point) in used]
    left = [point for point in trend.series.points if id(point) not in used and point.found is not None]
    odd = set(map(id, trend.outliers))
    symbols: list[JSON] = [f"{style.symbol}-open" if id(point) in odd else style.symbol for point in judged]
    marks: Trace = {"mode": "markers", "marker": {"symbol": symbols, "size": 6}}
    yield {"meta": {"slot": style.slot}, **marks, **_places(judged, first, factor)}
    if left:
        yield {"meta": {"slot": NEUTRAL.slot}, **marks, "marker": {"symbol": "x-thin", "size": 9}, **_places(left, first, factor)}
    xs: list[JSON] = []
    ys: list[JSON] = []
    for change in trend.changes:
        start, end = (_x(point, first) for point in (change.earliest, change.latest))
        if change.kind == "step":
            start = end = _x(change.at, first) - 0.5
        xs += [*([] if xs else [_x(judged[0], first)]), start, end]
        ys += [*([] if ys else [change.before * factor]), change.before * factor, change.after * factor]
    if xs:
        line: Trace = {"meta": {"slot": style.slot}, "mode": "lines", "line": {"dash": "solid"}}
        yield {**line, "x": [*xs, _x(judged[-1], first)], "y": [*ys, ys[-1]]}


def _x(point: Point, first: dt.date) -> float:
    return float((dt.date.fromisoformat(point.night.day) - first).days)


def _places(points: Sequence[Point], first: dt.date, factor: float) -> Trace:
    values: list[JSON] = [None if point.found is None else point.found.value * factor for point in points]
    return {"x": [_x(point, first) for point in points], "y": values}


def _days(first: dt.date, last: dt.date, ticks: int) -> Mapping[str, JSON]:
    """Ticks with some days, evenly apart."""
    days = max((last - first).days, 1)
    at: Sequence[int] = list(dict.fromkeys(round(i * days / (ticks - 1)) for i in range(ticks)))
    return {
        "range": [-0.03 * days, 1.03 * days],
        "tickvals": list(at),
        "ticktext": [(first + dt.timedelta(days=each)).isoformat()[5:] for each in at],
    }
