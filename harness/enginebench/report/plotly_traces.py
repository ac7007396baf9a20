"""Traces and axes of plots as plain Plotly JSON, and how rows are divided over small multiples: one panel per model and request shape.

A trace has the number of its deployment (`meta.slot`, its position in the run) and no colour. Its style decides marker and dash here, and
the page its colour, which is lighter on a dark page, and what all traces share (type, no legend, `text` on hover); slot -1 is the neutral
colour. Text from outside is escaped, because Plotly interprets a subset of HTML.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from enginebench.analysis.analysis import LOAD_COLUMNS, Analysis, Row
from enginebench.domain import JSON, KINDS, Load, field_names
from enginebench.report.columns import THROUGHPUT, USER, Column, full_text, heading
from enginebench.report.sample_summary import Curve
from enginebench.report.styles import NEUTRAL, Style

Trace: TypeAlias = dict[str, JSON]


def line(rows: Sequence[Row], column: Column, style: Style, x: Callable[[Row], float] = lambda row: row.load.level) -> Trace:
    """One deployment over the levels of a load, with intervals. Rows that must not be compared, or lack the figure, interrupt the line."""
    found = [row.figures.get(column.figure) if row.sound else None for row in rows]
    above = [(f.high - f.value) * column.factor if f and f.high is not None else 0.0 for f in found]
    below = [(f.value - f.low) * column.factor if f and f.low is not None else 0.0 for f in found]
    bars: Trace = {
        "type": "data",
        "symmetric": False,
        "thickness": 1.2,
        "width": 3,
        "array": _rounded(above),
        "arrayminus": _rounded(below),
    }
    y = _rounded(f.value * column.factor if f else None for f in found)
    text: list[JSON] = [_hover(row, column) for row in rows]
    base = {**_style(rows, style), "mode": "lines+markers", **({"error_y": bars} if any(above + below) else {})}
    return {**base, "x": [x(row) for row in rows], "y": y, "text": text}


def invalid(rows: Sequence[Row], x: Callable[[Row], float | None], column: Column) -> Trace:
    """Rows that must not be compared: a grey cross each, without a line."""
    return {
        "mode": "markers", "meta": {"slot": NEUTRAL.slot}, "marker": {"symbol": "x-thin", "size": 9, "line": {"width": 2}},
        "x": [x(row) for row in rows], "y": _rounded([f.value * column.factor for row in rows if (f := row.figures[column.figure])]),
        "text": [f"{_hover(row, column)}<br>invalid" for row in rows],
    }  # fmt: skip


def frontier_points(rows: Sequence[Row], at: Sequence[tuple[float, float]], style: Style, ringed: frozenset[tuple[float, float]]) -> Trace:
    """One deployment's points in the frontier plot, at the given places; those in `ringed` show their level."""
    texts = [f"{_hover(row, THROUGHPUT)}<br>{full_text(row.figures[USER.figure], USER)} tok/s per user" for row in rows]
    return {
        **_style(rows, style), "mode": "lines+markers+text", "x": _rounded(x for x, _ in at), "y": _rounded(y for _, y in at),
        "text": [f"{row.load.level:g}" if point in ringed else "" for row, point in zip(rows, at, strict=True)],
        "textposition": "top right", "cliponaxis": False, "customdata": list(texts), "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip


def frontier_line(points: Sequence[tuple[float, float]]) -> Trace:
    """The Pareto frontier, with a ring around each of its points."""
    return {
        "mode": "lines+markers", "meta": {"slot": NEUTRAL.slot}, "line": {"width": 1, "dash": "dot", "shape": "vh"},
        "marker": {"symbol": "circle-open", "size": 17, "line": {"width": 1.5}}, "x": _rounded(x for x, _ in points),
        "y": _rounded(y for _, y in points), "hoverinfo": "skip",
    }  # fmt: skip


def steps(row: Row, curve: Curve, style: Style) -> Trace:
    line: dict[str, JSON] = {"dash": style.dash, "width": 2, "shape": "hv"}
    text = f"<b>{html.escape(row.name)}</b> (n={curve.n:,})"
    hover = {"text": text, "hovertemplate": "%{text}<br>%{y:.1%} within %{x} ms<extra></extra>"}
    return {**_style([row], style), "mode": "lines", "line": line, "x": list(curve.value_ms), "y": list(curve.share), **hover}


def over_time(row: Row, at_s: Sequence[float], values: Sequence[float | None], style: Style, dash: str = "") -> Trace:
    hover = {"text": f"<b>{html.escape(row.name)}</b>", "hovertemplate": "%{text}<br>%{y} at %{x} s<extra></extra>"}
    meta: Trace = {"meta": {"slot": style.slot, "dashed": True}} if dash else {}
    base: Trace = {**_style([row], style), **meta, "mode": "lines", "line": {"dash": dash or style.dash, "width": 2}}
    return {**base, "x": _rounded(at_s), "y": _rounded(values), **hover}


def _style(rows: Sequence[Row], style: Style) -> Trace:
    symbols = [f"{style.symbol}-open" if row.verdict == "suspect" else style.symbol for row in rows]
    return {
        "name": html.escape(rows[0].name), "meta": {"slot": style.slot}, "line": {"dash": style.dash, "width": 2},
        "marker": {"size": 8, "symbol": list(symbols) if len(set(symbols)) > 1 else symbols[0]},
    }  # fmt: skip


def _hover(row: Row, column: Column) -> str:
    figure = full_text(row.figures.get(column.figure), column)
    suspect = "<br>suspect" if row.verdict == "suspect" else ""
    return f"<b>{html.escape(row.name)}</b><br>{row.load.level_text}: {figure} {column.unit}{suspect}"


def value(row: Row, column: Column) -> float:
    """The figure in its display unit; NaN if there is none."""
    found = row.figures[column.figure]
    return found.value * column.factor if found else math.nan


def axis(title: str, **more: JSON) -> dict[str, JSON]:
    return {"title": {"text": title, "standoff": 8}, **more}


def level_axis(rows: Sequence[Row]) -> dict[str, JSON]:
    """A log axis for the level of loads of one kind, with a tick at each measured value that has room."""
    return _measured_axis(sorted({row.load.level for row in rows}), rows[0].load.axis)


def length_axis(lengths: Sequence[float]) -> dict[str, JSON]:
    """The same for the lengths of prompts, in rising order."""
    return _measured_axis(lengths, "prompt tokens")


def _measured_axis(at: Sequence[float], title: str) -> dict[str, JSON]:
    labelled = [at[0]]
    for level in at:
        if level >= labelled[-1] * 1.3:
            labelled.append(level)
    ends: list[JSON] = [round(math.log10(at[0]) - 0.12, 3), round(math.log10(at[-1]) + 0.12, 3)]
    return axis(title, type="log", tickvals=list(labelled), ticktext=[f"{v:,.6g}" for v in labelled], range=ends)


def limit_line(at: float, text: str) -> JSON:
    """A horizontal line for a limit of an SLO."""
    line_: JSON = {"dash": "longdashdot", "width": 1.2}
    label: JSON = {"text": html.escape(text), "textposition": "start", "font": {"size": 11}}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at, "line": line_, "label": label}


def _rounded(values: Iterable[float | None]) -> list[JSON]:
    return [None if v is None else float(f"{v:.5g}") for v in values]


_TITLED = field_names("level", "lengths", "extent")
"""Fields that a panel's title does not repeat: they are in its shape or level, or only say how long was measured."""


def panel_groups(analysis: Analysis) -> list[tuple[str, list[Row]]]:
    """(title, rows) of each plot: the same model, and loads that differ only in level. Closed loops come first."""
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


def by_deployment(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Name -> its rows by rising level."""
    out: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.load.level):
        out.setdefault(row.name, []).append(row)
    return out
