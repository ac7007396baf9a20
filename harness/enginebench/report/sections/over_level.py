"""Sections that plot a figure over the level of the load: throughput, goodput, SLO attainment, TTFT and TPOT."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.domain import JSON
from enginebench.report import columns
from enginebench.report.blocks import Block, Panel, Plots
from enginebench.report.columns import Column, intervals_text
from enginebench.report.plotly_traces import axis, by_deployment, invalid, level_axis, line, panel_groups
from enginebench.report.section import Context, Section, measurements


def _over_level(id_: str, label: str, title: str, column: Column, caption: str = "") -> Section:
    def blocks(context: Context) -> Iterator[Block]:
        panels = tuple(_panels(context, column))
        intervals = intervals_text(context.analysis)
        bars = f"Medians over n restarts. Bars: {intervals}." if intervals else ""
        if panels:
            yield Plots(f"{caption} {bars}".strip(), panels, tuple(context.slots))

    return Section(id_, title, blocks, label, (measurements,))


def _panels(context: Context, column: Column) -> Iterator[Panel]:
    for title, rows in panel_groups(context.analysis):
        usable = [row for row in rows if row.figures.get(column.figure)]
        if usable:
            traces = [line(its, column, context.slots[name]) for name, its in by_deployment(rows).items()]
            traces.append(invalid([row for row in usable if not row.sound], lambda row: row.load.level, column))
            layout: dict[str, JSON] = {"xaxis": level_axis(usable), "yaxis": axis(f"{column.label}, {column.unit}", rangemode="tozero")}
            yield Panel(title, tuple(traces), layout)


THROUGHPUT = _over_level("throughput", "Throughput", "Output throughput", columns.THROUGHPUT, "All requests together.")
GOODPUT = _over_level("goodput", "Goodput", "Goodput", columns.GOODPUT, "Requests per second that met every limit of the SLO.")
WITHIN = _over_level("within", "Within SLO", "Share of requests within the SLO", columns.WITHIN)
TTFT = _over_level("ttft", "TTFT", "Time to first token", columns.TTFT, "Median request.")
TPOT = _over_level("tpot", "TPOT", "Time per output token", columns.TPOT, "Median request, after the first token.")
