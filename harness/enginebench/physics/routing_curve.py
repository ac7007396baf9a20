"""The share of tokens' choices that the n hottest experts of a layer cover: what a cache of n experts per layer would serve. Pure.

A share of the tokens that the experts were picked on is too high: even routing looks skewed in a small sample. So each curve has a second
one, of experts that were picked on other sequences.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginebench.physics.plot import COLOURS, page
from enginebench.physics.routing import Counts, Figures, Routing, counted, of_inputs

ALL = "all"
_MARKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)


@dataclass(frozen=True)
class Coverage:
    """Share of the choices that the 1, 2, ... hottest experts of each layer cover, for one kind of input."""

    input: str
    """'text', 'code', 'random' or a data set; 'all': everything that was counted."""
    choices: int
    mean: tuple[float, ...]
    """Over all layers; place n - 1 is that of n experts in each layer."""
    unseen: tuple[float, ...] | None
    """The same of experts that were picked on one half of the sequences and counted on the other; None: only counts are known."""
    layers: tuple[tuple[float, ...], ...]
    """`mean` of each layer."""
    elsewhere: Mapping[str, tuple[float, ...]]
    """Kind of input -> the share of its choices that the experts picked on this one cover."""

    def range(self, hottest: int) -> tuple[float, float]:
        """The share that `hottest` experts cover in the most even and in the most uneven layer."""
        shares = [layer[hottest - 1] for layer in self.layers]
        return min(shares), max(shares)


def cover(picked: Counts, counts: Counts) -> Figures:
    """[layers, experts]: the share of `counts` that the n experts with the highest `picked` cover, n from 1 on."""
    order = np.argsort(-picked, axis=1, kind="stable")
    running = np.cumsum(np.take_along_axis(counts, order, axis=1), axis=1).astype(np.float64)
    return running / np.maximum(running[:, -1:], 1)


def coverages(routing: Routing) -> tuple[Coverage, ...]:
    """A curve for each kind of input; before them one over everything, where there are several or none is known."""
    parts = {name: of_inputs(routing, [name]) for name in routing.inputs}
    whole = {ALL: routing} if len(parts) != 1 else {}
    return tuple(_coverage(name, part, {} if name == ALL else parts) for name, part in (whole | parts).items())


def _coverage(name: str, part: Routing, others: Mapping[str, Routing]) -> Coverage:
    layers = cover(part.counts, part.counts)
    elsewhere = {other: _mean(cover(part.counts, each.counts)) for other, each in others.items() if other != name}
    return Coverage(name, int(part.counts.sum()), _mean(layers), _unseen(part), tuple(map(tuple, layers.tolist())), elsewhere)


def _unseen(routing: Routing) -> tuple[float, ...] | None:
    choices = routing.choices
    if choices is None or len(np.unique(choices.sequence)) < 2:
        return None
    second = np.unique(choices.sequence, return_inverse=True)[1] % 2 == 1
    halves = [counted(choices.experts[half], routing.experts) for half in (~second, second)]
    return _mean((cover(halves[0], halves[1]) + cover(halves[1], halves[0])) / 2)


def _mean(layers: Figures) -> tuple[float, ...]:
    return tuple(layers.mean(axis=0).tolist())


def marks(experts: int) -> list[int]:
    """Numbers of experts worth a row of a table: small ones, and an eighth, a quarter and a half of all."""
    return sorted({n for n in (*_MARKS, experts // 8, experts // 4, experts // 2) if 0 < n < experts})


def curve_page(model: str, source: str, experts: int, curves: Sequence[Coverage]) -> str:
    """The curves as an HTML page that opens offline: a line per kind of input, a thin one per layer, and even routing."""
    title = f"{model}: share of choices that the n hottest of {experts} experts in each layer cover"
    layout = {
        "title": {"text": f"{html.escape(title)}<br><sub>{html.escape(source)}</sub>", "font": {"size": 14}},
        "plot_bgcolor": "#ffffff", "hovermode": "closest",
        "xaxis": {"title": {"text": "n, experts in each layer"}, "gridcolor": "#dddddd"},
        "yaxis": {"title": {"text": "share of the choices"}, "gridcolor": "#dddddd", "range": [0, 1], "tickformat": ".0%"},
    }  # fmt: skip
    even = [n / experts for n in range(1, experts + 1)]
    shown = [each for each in curves if each.input != ALL] or list(curves)
    traces = [_trace("even routing", even, "#999999", dash="dot"), *(line for i, each in enumerate(shown) for line in _lines(i, each))]
    return page(title, {"data": traces, "layout": layout})


def _lines(place: int, curve: Coverage) -> Iterator[dict[str, Any]]:
    colour = COLOURS[place % len(COLOURS)]
    for number, layer in enumerate(curve.layers):
        yield _trace(curve.input, layer, colour, width=0.5, label=f"{curve.input}, layer {number + 1} with experts", opacity=0.35)
    yield _trace(curve.input, curve.mean, colour)
    if curve.unseen is not None:
        yield _trace(f"{curve.input}, unseen half", curve.unseen, colour, dash="dash")


def _trace(
    name: str, shares: Sequence[float], colour: str, *, width: float = 3, dash: str = "solid", label: str = "", opacity: float = 1
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "name": name, "legendgroup": name, "showlegend": not label, "opacity": opacity,
        "x": list(range(len(shares) + 1)), "y": [0.0, *shares], "line": {"color": colour, "width": width, "dash": dash},
        "hovertemplate": f"{label or name}: top %{{x}} cover %{{y:.1%}}<extra></extra>",
    }  # fmt: skip
