"""Plots ceilings as self-contained HTML pages: throughput over batch with each limit and the memory capacity, or over the offload split."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from enginebench.physics.ceilings import Ceilings, knees
from enginebench.physics.offload_curve import OffloadCurve, Split
from enginebench.physics.roofline import Step

_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#666666")
_LIMITS = (("memory", "dot"), ("compute", "dash"), ("link", "dashdot"))


def page_of_batches(found: Ceilings) -> str:
    """One page: throughput over batch, for each context."""
    return _page(found.model.title, {"data": _traces(found.curves), "layout": _layout(found)})


def page_of_splits(curve: OffloadCurve) -> str:
    """One page: the ceiling over the number of layers with experts on the host. Splits that do not fit are grey."""
    best, title, mixture = curve.best, curve.title, curve.whole.weights.model.experts is not None
    traces = [_placed([each for each in curve.splits if each.fit.fits == fits], fits=fits) for fits in (True, False)]
    marks = [_mark(best.layers, f"the fastest that fits: {best.flags}", "solid", log=False)] if best else []
    layout = _frame(title, "layers with their experts on the host" if mixture else "layers on the host", marks)
    return _page(title, {"data": traces, "layout": layout})


def _placed(curve: Sequence[Split], *, fits: bool) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": "fits" if fits else "does not fit", "x": [each.layers for each in curve],
        "y": [each.step.tokens_per_s for each in curve], "line": {"color": _COLOURS[0] if fits else "#bbbbbb", "width": 3},
        "customdata": [[each.device_bytes / 1e9, each.fit.budget.host / 1e9, each.step.bottleneck, each.flags] for each in curve],
        "hovertemplate": "N = %{x}: at most %{y:,.1f} tok/s<br>%{customdata[0]:.1f} GB on the device, %{customdata[1]:.1f} on the host"
        "<br>bottleneck: %{customdata[2]}<br>%{customdata[3]}<extra></extra>",
    }  # fmt: skip


def _page(title: str, figure: Mapping[str, Any]) -> str:
    import plotly.io

    page: str = plotly.io.to_html(
        figure, include_plotlyjs=True, full_html=True, default_height="95vh", config={"responsive": True}, validate=False
    )
    return page.replace("<head>", f"<head><title>{html.escape(title)}</title>", 1)


def _traces(curves: Mapping[int, Sequence[Step]]) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    for i, (context, steps) in enumerate(curves.items()):
        batches = [step.batch for step in steps]
        line = {"color": _COLOURS[i % len(_COLOURS)], "width": 3}
        name = f"{context:,} tokens"
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": batches, "y": [step.tokens_per_s for step in steps],
                "line": line, "customdata": [[step.bottleneck, 1e3 * step.time_s, step.tokens_per_s_user] for step in steps],
                "hovertemplate": "batch %{x}: %{y:,.0f} tok/s<br>%{customdata[2]:,.1f} per user, step %{customdata[1]:.3f} ms"
                "<br>bottleneck: %{customdata[0]}<extra>" + name + "</extra>",
            }
        )  # fmt: skip
        for limit, dash in _LIMITS:
            alone = [step.tokens / step.seconds[limit] if step.seconds[limit] else None for step in steps]
            if any(alone):
                traces.append(
                    {
                        "type": "scatter", "mode": "lines", "name": f"{limit} alone", "x": batches, "y": alone, "legendgroup": name,
                        "line": {"color": line["color"], "width": 1, "dash": dash}, "hoverinfo": "skip",
                    }
                )  # fmt: skip
    return traces


def _layout(found: Ceilings) -> dict[str, Any]:
    last = max((steps[-1].batch for steps in found.curves.values()), default=1)
    marks = [
        _mark(knee.batch, f"bottleneck from here at {context:,} tokens: {knee.after}", "dot")
        for context in list(found.curves)[:1]
        for knee in knees(found.setting, context, max(2, last))
    ]
    full = {context: batch for context, batch in found.rooms.items() if 0 < batch < last}
    marks += [_mark(batch, f"memory full at {batch:,} x {context:,} tokens", "solid") for context, batch in full.items()]
    frame = _frame(found.model.title, "sequences in a step", marks)
    return {**frame, "xaxis": {**frame["xaxis"], "type": "log"}, "yaxis": {**frame["yaxis"], "type": "log"}}


def _frame(title: str, across: str, marks: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    return {
        "title": {"text": html.escape(title), "font": {"size": 14}},
        "xaxis": {"title": {"text": across}, "gridcolor": "#dddddd"},
        "yaxis": {"title": {"text": "output tokens/s, at most"}, "gridcolor": "#dddddd", "rangemode": "tozero"},
        "shapes": [shape for shape, _ in marks], "annotations": [note for _, note in marks], "hovermode": "closest", "autosize": True,
        "plot_bgcolor": "#ffffff",
    }  # fmt: skip


def _mark(at: int, text: str, dash: str, *, log: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """A vertical line with a label. On a logarithmic axis Plotly takes a shape's position unchanged, and a label's as its logarithm."""
    line = {"color": "#999999", "width": 1, "dash": dash}
    shape = {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}
    note = {
        "x": math.log10(at) if log else at, "yref": "paper", "y": 1, "text": text, "textangle": -90, "showarrow": False, "xanchor": "right",
        "yanchor": "top",
    }  # fmt: skip
    return shape, note
