"""A panel as a static SVG: readable and printable without scripts. Draws the same traces and axes that Plotly gets.

Lines are labelled at their end; labels are pushed apart. Colours and dashes are CSS: a trace has the class of its deployment (`s3`) and
draws in `--c`, with that deployment's dash unless `meta.dashed` says that it has one of its own. Knows no
section and no run. All texts are escaped.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from enginebench.domain import JSON
from enginebench.report.axes import Axis, make_axis
from enginebench.report.blocks import Panel
from enginebench.report.chart_marks import dash_style, label_rows, markers, shortened, strokes
from enginebench.report.plotly_traces import Trace

_ABOVE, _BELOW = 26, 40
_CHARACTER = 6.9
MOST_LABELS = 12
"""With more lines in a panel, only the legend names them."""
_LINE = 15.0
_MOST_POINTS, _FEW = 16, 5
"""Points of a curve, and the curves of a panel above which they have half of them."""
_RING = 12
"""A marker larger than this goes around others."""


@dataclass(frozen=True)
class _Frame:
    """The drawing of one panel at one width."""

    panel: Panel
    width: int
    height: int
    points: int = _MOST_POINTS
    most_labels: int = MOST_LABELS

    @cached_property
    def x(self) -> Axis:
        values = [x for trace in self.panel.traces for x in _numbers(trace, "x")]
        return make_axis(_axis(self.panel, "xaxis"), values, most=6 if self.width > 450 else 4)

    @cached_property
    def y(self) -> Axis:
        values = [value for trace in self.panel.traces for value in _extent(trace)]
        values += [float(str(shape["y0"])) for shape in _shapes(self.panel) if "y0" in shape]
        return make_axis(_axis(self.panel, "yaxis"), values)

    @cached_property
    def named(self) -> list[Trace]:
        """The traces with a label at their end."""
        lines = [trace for trace in self.panel.traces if _slot(trace) >= 0 and trace.get("name") and any(_points(trace, self))]
        names = list({_slot(trace): trace for trace in lines}.values())
        return names if len(names) <= self.most_labels else []

    @cached_property
    def labels(self) -> list[str]:
        most = int(0.34 * self.width / _CHARACTER)
        return [shortened(html.unescape(str(trace.get("name", ""))), most) for trace in self.named]

    @cached_property
    def left(self) -> float:
        return 14 + 6.6 * max((len(text) for _, text in self.y.ticks), default=1)

    @cached_property
    def right(self) -> float:
        return 14 + (18 + _CHARACTER * max(map(len, self.labels)) if self.labels else 0)

    def px(self, x: float) -> float:
        return round(self.left + self.x.at(x) * (self.width - self.left - self.right))

    def py(self, y: float) -> float:
        return round(self.height - _BELOW - self.y.at(y) * (self.height - _ABOVE - _BELOW))


def static_chart(
    panel: Panel, title: str, width: int, height: int = 300, css: str = "", *, points: int = _MOST_POINTS, most_labels: int = MOST_LABELS
) -> str:
    """The SVG element of a panel. points: of a curve; of one with more, every n-th is drawn. most_labels: lines that are named at their
    end; with more none is.
    """
    frame = _Frame(panel, width, height, points, most_labels)
    parts = [*_axes(frame), *_limits(frame), *(_trace(trace, frame) for trace in panel.traces), *_labels(frame)]
    name = html.escape(title, quote=True)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="ch {css}" {size} role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _axes(frame: _Frame) -> Iterator[str]:
    bottom, end = frame.height - _BELOW, round(frame.width - frame.right)
    rows = [(frame.py(v), text) for v, text in frame.y.ticks if frame.y.holds(v) and -0.01 <= frame.y.at(v) <= 1.01]
    columns = [(frame.px(v), text) for v, text in frame.x.ticks if frame.x.holds(v) and -0.01 <= frame.x.at(v) <= 1.01]
    left = round(frame.left)
    yield f'<path class="g" d="{"".join(f"M{left} {y:g}H{end}" for y, _ in rows)}"/>'
    yield f'<path class="g0" d="M{left} {bottom}H{end}{"".join(f"M{x:g} {bottom}v4" for x, _ in columns)}"/><g class="ty">'
    yield from (f'<text x="{left - 6}" y="{y + 4:g}">{html.escape(text)}</text>' for y, text in rows)
    yield '</g><g class="tx">'
    yield from (f'<text x="{x:g}" y="{bottom + 17}">{html.escape(text)}</text>' for x, text in columns)
    yield f'</g><text class="ax" x="{left}" y="12">{html.escape(frame.y.title)}{", log scale" if frame.y.log else ""}</text>'
    yield f'<text class="ax e" x="{end}" y="{frame.height - 4}">{html.escape(frame.x.title)}</text>'


def _limits(frame: _Frame) -> Iterator[str]:
    """Horizontal lines of the layout: the limits of an SLO."""
    for shape in _shapes(frame.panel):
        if frame.y.holds(value := float(str(shape["y0"]))):
            y, label = frame.py(value), shape.get("label")
            text = str(label.get("text", "")) if isinstance(label, dict) else ""
            yield f'<path class="slo" d="M{frame.left:g} {y:g}H{frame.width - frame.right:g}"/>'
            yield f'<text class="slot" x="{frame.left + 4:g}" y="{y - 5:g}">{html.escape(text)}</text>'


def _trace(trace: Trace, frame: _Frame) -> str:
    """A line, its error bars and markers, in a group with the class of its deployment; a line alone has the class itself."""
    css = f"s{slot if (slot := _slot(trace)) >= 0 else 'n'}"
    parts = list(_drawn(trace, frame))
    if len(parts) == 1 and parts[0].startswith(_LINE_TAG):
        return parts[0].replace(_LINE_TAG, f'<path class="l {css}"', 1)
    return f'<g class="{css}">{"".join(parts)}</g>'


_LINE_TAG = '<path class="l"'


def _drawn(trace: Trace, frame: _Frame) -> Iterator[str]:
    mode, points = str(trace.get("mode", "lines")), _places(trace, frame)
    line = trace.get("line")
    style = line if isinstance(line, dict) else {}
    if "lines" in mode and (path := _path(points, str(style.get("shape", "linear")))):
        yield f'{_LINE_TAG} d="{path}"{dash_style(str(style.get("dash", "solid"))) if _meta(trace).get("dashed") else ""}/>'
    yield from _bars(trace, points, frame)
    if "markers" in mode:
        marks = trace.get("marker")
        symbols = marks.get("symbol", "circle") if isinstance(marks, dict) else "circle"
        if isinstance(marks, dict) and float(str(marks.get("size", 8))) > _RING:
            symbols = "ring"
        each = symbols if isinstance(symbols, list) else [symbols] * len(points)
        yield from markers([(str(symbol), at) for symbol, at in zip(each, points, strict=False) if at is not None])
    if "text" in mode:
        texts = trace.get("text")
        for at, text in zip(points, texts if isinstance(texts, list) else [], strict=False):
            if at is not None and text:
                yield f'<text class="nt" x="{at[0] + 7:g}" y="{at[1] - 7:g}">{html.escape(html.unescape(str(text)))}</text>'


def _points(trace: Trace, frame: _Frame) -> list[tuple[float, float] | None]:
    """The points that can be drawn; None interrupts the line."""
    xs, ys = trace.get("x"), trace.get("y")
    pairs = zip(xs, ys, strict=False) if isinstance(xs, list) and isinstance(ys, list) else ()
    known = ((_value(a), _value(b)) for a, b in pairs)
    return [(x, y) if x is not None and y is not None and frame.x.holds(x) and frame.y.holds(y) else None for x, y in known]


def _places(trace: Trace, frame: _Frame) -> list[tuple[float, float] | None]:
    """Where the points are in the drawing: every n-th of them where they are closer than can be seen."""
    points = _points(trace, frame)
    step = max(1, len(points) // (frame.points if len(frame.panel.traces) <= _FEW else frame.points // 2))
    kept = [point for i, point in enumerate(points) if i % step == 0 or i == len(points) - 1 or point is None]
    return [(frame.px(point[0]), frame.py(point[1])) if point is not None else None for point in kept]


def _path(points: Sequence[tuple[float, float] | None], shape: str) -> str:
    """The line through the points; None interrupts it. shape: 'linear', or steps as Plotly has them, 'hv' or 'vh'."""
    lines: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            lines.append([])
        elif shape in ("hv", "vh") and lines[-1]:
            (x0, y0), (x, y) = lines[-1][-1], point
            lines[-1] += [(x, y0) if shape == "hv" else (x0, y), point]
        else:
            lines[-1].append(point)
    return "".join(map(strokes, lines))


def _bars(trace: Trace, points: Sequence[tuple[float, float] | None], frame: _Frame) -> Iterator[str]:
    """Error bars of the points that have one."""
    bars, ys = trace.get("error_y"), trace.get("y")
    if not isinstance(bars, dict) or not isinstance(ys, list):
        return
    above, below = bars.get("array"), bars.get("arrayminus")
    ups, downs = (ends if isinstance(ends, list) else [] for ends in (above, below))
    path = ""
    for point, y, up, down in zip(points, ys, ups, downs, strict=False):
        high, low = (_value(y) or 0.0) + (_value(up) or 0.0), (_value(y) or 0.0) - (_value(down) or 0.0)
        if point is not None and high > low and frame.y.holds(low) and (bottom := frame.py(low)) - (top := frame.py(high)) >= 1:
            path += f"M{point[0]:g} {top:g}V{bottom:g}"
    if path:
        yield f'<path class="eb" d="{path}"/>'


def _labels(frame: _Frame) -> Iterator[str]:
    """The name of each line at its end, pushed apart, with a leader to it."""
    ends = [end for trace in frame.named if (end := _last(trace, frame)) is not None]
    rows = label_rows([y for _, y in ends], _LINE, _ABOVE, frame.height - _BELOW)
    if not frame.named:
        return
    x = round(frame.width - frame.right) + 16
    leaders = "".join(f"M{at_x + 5:g} {at_y:g}L{x - 3} {row:.0f}" for (at_x, at_y), row in zip(ends, rows, strict=True))
    yield f'<path class="ld" d="{leaders}"/>'
    for trace, row, text in zip(frame.named, rows, frame.labels, strict=True):
        yield f'<text class="lb s{_slot(trace)}" x="{x}" y="{row + 4:.0f}">{html.escape(text)}</text>'


# -- reading traces --------------------------------------------------------------------------------------------------------


def _last(trace: Trace, frame: _Frame) -> tuple[float, float] | None:
    """The drawn point furthest to the right."""
    points = [point for point in _places(trace, frame) if point is not None]
    return max(points, key=lambda point: point[0]) if points else None


def _slot(trace: Trace) -> int:
    return int(str(_meta(trace).get("slot", -1)))


def _meta(trace: Trace) -> dict[str, JSON]:
    meta = trace.get("meta")
    return meta if isinstance(meta, dict) else {}


def _value(value: JSON) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(trace: Trace, name: str) -> Iterator[float]:
    values = trace.get(name)
    yield from (found for value in (values if isinstance(values, list) else ()) if (found := _value(value)) is not None)


def _extent(trace: Trace) -> Iterator[float]:
    """The values of a trace, and the ends of its error bars."""
    yield from _numbers(trace, "y")
    bars, ys = trace.get("error_y"), trace.get("y")
    if isinstance(bars, dict) and isinstance(ys, list):
        for name, sign in (("array", 1), ("arrayminus", -1)):
            ends = bars.get(name)
            for y, length in zip(ys, ends if isinstance(ends, list) else (), strict=False):
                if (value := _value(y)) is not None and (by := _value(length)):
                    yield value + sign * by


def _axis(panel: Panel, name: str) -> dict[str, JSON]:
    found = panel.layout.get(name)
    return found if isinstance(found, dict) else {}


def _shapes(panel: Panel) -> list[dict[str, JSON]]:
    found = panel.layout.get("shapes")
    return [shape for shape in itertools.chain(found) if isinstance(shape, dict)] if isinstance(found, list) else []
