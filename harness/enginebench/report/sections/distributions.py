"""Sections that plot the distribution of a latency over all requests: TTFT, TPOT and the gaps between output events."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.domain import JSON
from enginebench.report.blocks import Block, Panel, Plots
from enginebench.report.columns import column, itl_is_exact
from enginebench.report.findings import span
from enginebench.report.plotly_traces import axis, panel_groups, steps
from enginebench.report.section import Context, Section, raw_samples

_CAPTION = (
    "Share of values at or below a time (empirical distribution), up to the highest p99 of the panel. Repeats are pooled; invalid rows are "
    "left out."
)
_CLIP = 0.99


def _distribution(latency: str, title: str) -> Section:
    def blocks(context: Context) -> Iterator[Block]:
        if panels := tuple(_panels(context, latency)):
            name = "inter-token latency (ITL)" if itl_is_exact(context.analysis) else "event interval: an event may hold several tokens"
            caption = f"Here a gap is an {name}. {_CAPTION}" if latency == "itl" else _CAPTION
            yield Plots(caption, panels, tuple(context.slots))

    def finding(context: Context) -> str:
        return _spread(latency, context)

    return Section(
        f"distribution-{latency}", f"Distribution of the {title}", blocks, "Distributions", (raw_samples,), folded=True, finding=finding
    )


def _spread(latency: str, context: Context) -> str:
    """'TTFT: the p99 is 1.2-8.4 times the median'; with the highest percentile that every sound row has."""
    rows = [row for row in context.analysis.rows if row.sound and row.figures.get(f"{latency}_p50")]
    for q in (99, 90):
        found = [(row.figures[f"{latency}_p50"], row.figures.get(f"{latency}_p{q}")) for row in rows]
        ratios = [high.value / middle.value for middle, high in found if middle and high and middle.value > 0]
        if ratios and len(ratios) == len(rows):
            label = column(f"{latency}_p{q}", context.analysis).label
            return f"{label} is {span(ratios)} times the median"
    return ""


def _panels(context: Context, latency: str) -> Iterator[Panel]:
    index = {id(row): i for i, row in enumerate(context.analysis.rows)}
    share = "share of intervals" if latency == "itl" else "share of requests"
    layout: dict[str, JSON] = {"xaxis": axis("ms"), "yaxis": axis(share, range=[0, 1.02], tickformat=".0%")}
    for title, rows in panel_groups(context.analysis):
        for load in sorted({row.load for row in rows}, key=lambda load: load.level):
            here = [row for row in rows if row.sound and row.load == load]
            curves = [(row, curve) for row in here if (curve := context.samples.curves.get(index[id(row)], {}).get(latency))]
            if curves:
                end = max(curve.quantile(_CLIP) for _, curve in curves)
                traces = tuple(steps(row, curve.until(end), context.slots[row.name]) for row, curve in curves)
                yield Panel(f"{title} · {load.level_text}", traces, layout, load)


TTFT = _distribution("ttft", "time to first token")
TPOT = _distribution("tpot", "time per output token")
ITL = _distribution("itl", "gaps between output events")
