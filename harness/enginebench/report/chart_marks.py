"""Small parts of static charts and of the legend: dashes, markers, places of labels. Knows no chart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from enginebench.report.styles import DASH_ARRAYS

_SHAPES: Mapping[str, str] = {
    "circle": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "square": "m-3.6-3.6h7.2v7.2h-7.2z",
    "triangle-up": "m0-4.6l4.6 8.2h-9.2z",
    "diamond": "m0-4.8l4.8 4.8-4.8 4.8-4.8-4.8z",
    "cross": "m-1.6-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "star": "m0-5l1.4 3.4 3.6.2-2.8 2.3.9 3.6-3.1-2-3.1 2 .9-3.6-2.8-2.3 3.6-.2z",
    "hexagon": "m0-4.6l4 2.3v4.6l-4 2.3-4-2.3v-4.6z",
    "ring": "m-8 0a8 8 0 1 0 16 0a8 8 0 1 0-16 0z",
    "x-thin": "m-3.5-3.5l7 7m0-7l-7 7",
}
"""Relative to the point."""


def dash_style(dash: str) -> str:
    """The attribute of a path whose dash is not that of its deployment, with a space before it."""
    return f' style="stroke-dasharray:{DASH_ARRAYS.get(dash, "none")}"'


def strokes(points: Sequence[tuple[float, float]]) -> str:
    """A line through the points as a path, from each to the next: half as long as with absolute places, and a flat curve is one stroke."""
    steps: list[tuple[str, float, float]] = []
    for (x0, y0), (x, y) in itertools.pairwise(points):
        right, down = x - x0, y - y0
        way = "l" if right and down else "h" if right else "v"
        if steps and way != "l" and steps[-1][0] == way and (steps[-1][1] + steps[-1][2]) * (right + down) > 0:
            _, before_right, before_down = steps.pop()  # it goes on in the same direction
            right, down = right + before_right, down + before_down
        if right or down:
            steps.append((way, right, down))
    out, before = [f"M{points[0][0]:g} {points[0][1]:g}" if points else ""], ""
    for way, right, down in steps:
        text = f"{right:g}" if way == "h" else f"{down:g}" if way == "v" else f"{right:g}{'' if down < 0 else ' '}{down:g}"
        out.append(f"{way}{text}" if way != before else text if text.startswith("-") else f" {text}")
        before = way
    return "".join(out)


def markers(points: Sequence[tuple[str, tuple[float, float]]]) -> Iterator[str]:
    """One path for the markers of a line that look alike. 'square-open' is a square that is not filled, as in Plotly.

    Filled circles and squares are the caps of lines without length: most markers of a page in a fifth of the text.
    """
    found: dict[str, str] = {}
    for symbol, (x, y) in points:
        shape = symbol.removesuffix("-open")
        css = _CAPS.get(symbol) or ("mx" if shape in ("x-thin", "ring") else "mo" if symbol.endswith("-open") else "m")
        found[css] = found.get(css, "") + f"M{x:g} {y:g}{'h0' if symbol in _CAPS else _SHAPES.get(shape, _SHAPES['circle'])}"
    yield from (f'<path class="{css}" d="{path}"/>' for css, path in found.items())


_CAPS: Mapping[str, str] = {"circle": "mc", "square": "ms"}


def swatch(slot: int, symbol: str) -> str:
    """The sign of a deployment before its name."""
    drawing = f'<path class="l" d="M0 6H30"/>{"".join(markers([(symbol, (15, 6))]))}'
    return f'<svg class="sw s{slot}" width="30" height="12" viewBox="0 0 30 12" aria-hidden="true">{drawing}</svg>'


def shortened(text: str, most: int) -> str:
    """At most so many characters, cut at a word where there is one."""
    if len(text) <= most:
        return text
    cut = text[: max(most - 1, 1)]
    return (cut.rpartition(" ")[0] if " " in cut[most // 2 :] else cut) + "…"


def label_rows(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """The places nearest to the wanted ones that are `apart` from each other, within low and high as far as there is room."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    rows = dict.fromkeys(order, 0.0)
    at = low - apart
    for i in order:
        at = rows[i] = max(wanted[i], at + apart)
    at = max(high, low + apart * (len(order) - 1)) + apart
    for i in reversed(order):
        at = rows[i] = min(rows[i], at - apart)
    return [round(rows[i], 1) for i in range(len(wanted))]
