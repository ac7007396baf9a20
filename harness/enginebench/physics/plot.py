"""What the plots of ceilings have in common: a self-contained HTML page, axes, vertical marks."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#666666")


def page(title: str, figure: Mapping[str, Any]) -> str:
    import plotly.io

    page: str = plotly.io.to_html(
        figure, include_plotlyjs=True, full_html=True, default_height="95vh", config={"responsive": True}, validate=False
    )
    return page.replace("<head>", f"<head><title>{html.escape(title)}</title>", 1)


def frame(title: str, across: str, marks: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    return {
        "title": {"text": html.escape(title), "font": {"size": 14}},
        "xaxis": {"title": {"text": across}, "gridcolor": "#dddddd"},
        "yaxis": {"title": {"text": "output tokens/s, at most"}, "gridcolor": "#dddddd", "rangemode": "tozero"},
        "shapes": [shape for shape, _ in marks], "annotations": [note for _, note in marks], "hovermode": "closest", "autosize": True,
        "plot_bgcolor": "#ffffff",
    }  # fmt: skip


def mark(at: int, text: str, dash: str, *, log: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """A vertical line with a label. On a logarithmic axis Plotly takes a shape's position unchanged, and a label's as its logarithm."""
    line = {"color": "#999999", "width": 1, "dash": dash}
    shape = {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}
    note = {
        "x": math.log10(at) if log else at, "yref": "paper", "y": 1, "text": text, "textangle": -90, "showarrow": False, "xanchor": "right",
        "yanchor": "top",
    }  # fmt: skip
    return shape, note
