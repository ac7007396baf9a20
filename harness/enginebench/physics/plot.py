"""The ceilings as a page that opens offline: throughput over batch, each limit by itself, and where memory ends. Computes nothing new."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enginebench.physics.limits import knees
from enginebench.physics.roofline import Step
from enginebench.physics.setting import Setting
from enginebench.store import write_atomically

_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#666666")
_LIMITS = (("memory", "dot"), ("compute", "dash"), ("link", "dashdot"))


def write_page(path: Path, title: str, setting: Setting, curves: Mapping[int, Sequence[Step]], room: Mapping[int, int]) -> None:
    """Write one page. curves: steps by context; room: by context, the largest batch that there is memory for."""
    import plotly.io

    figure = {"data": _traces(curves), "layout": _layout(title, setting, curves, room)}
    page = plotly.io.to_html(
        figure, include_plotlyjs=True, full_html=True, default_height="95vh", config={"responsive": True}, validate=False
    )
    write_atomically(path, page.replace("<head>", f"<head><title>{html.escape(title)}</title>", 1))


def _traces(curves: Mapping[int, Sequence[Step]]) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    for i, (context, steps) in enumerate(curves.items()):
        batches = [step.batch for step in steps]
        line = {"color": _COLOURS[i % len(_COLOURS)], "width": 3}
        name = f"{context:,} tokens"
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": batches, "y": [step.tokens_per_s for step in steps],
                "line": line, "customdata": [[step.rules, 1e3 * step.time_s, step.tokens_per_s_user] for step in steps],
                "hovertemplate": "batch %{x}: %{y:,.0f} tok/s<br>%{customdata[2]:,.1f} per user, step %{customdata[1]:.3f} ms"
                "<br>%{customdata[0]} rules<extra>" + name + "</extra>",
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


def _layout(title: str, setting: Setting, curves: Mapping[int, Sequence[Step]], room: Mapping[int, int]) -> dict[str, Any]:
    last = max((steps[-1].batch for steps in curves.values()), default=1)
    marks = [
        _mark(knee.batch, f"{knee.after} rules at {context:,} tokens", "dot")
        for context in list(curves)[:1]
        for knee in knees(setting, context, max(2, last))
    ]
    marks += [
        _mark(batch, f"no room beyond {batch:,} x {context:,} tokens", "solid") for context, batch in room.items() if 0 < batch < last
    ]
    return {
        "title": {"text": html.escape(title), "font": {"size": 14}},
        "xaxis": {"title": {"text": "sequences in a step"}, "type": "log", "gridcolor": "#dddddd"},
        "yaxis": {"title": {"text": "output tokens/s, at most"}, "type": "log", "gridcolor": "#dddddd"},
        "shapes": [shape for shape, _ in marks],
        "annotations": [note for _, note in marks],
        "hovermode": "closest",
        "autosize": True,
        "plot_bgcolor": "#ffffff",
    }


def _mark(batch: int, text: str, dash: str) -> tuple[dict[str, Any], dict[str, Any]]:
    line = {"color": "#999999", "width": 1, "dash": dash}
    shape = {"type": "line", "x0": batch, "x1": batch, "yref": "paper", "y0": 0, "y1": 1, "line": line}
    note = {
        "x": math.log10(batch),
        "yref": "paper",
        "y": 1,
        "text": text,
        "textangle": -90,
        "showarrow": False,
        "xanchor": "right",
        "yanchor": "top",
    }
    return shape, note
