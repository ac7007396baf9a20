"""Sections that plot a figure over the level of the load: throughput, goodput, SLO attainment, TTFT and TPOT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.rows import holds
from enginebench.domain import JSON, field_names
from enginebench.domain.formatting import counted
from enginebench.report.blocks import Block, Panel, Paragraph, Plots
from enginebench.report.columns import Column, column, intervals_text
from enginebench.report.findings import leader_finding, listed, ratios, times
from enginebench.report.plotly_traces import axis, by_deployment, invalid, level_axis, limit_line, line, panel_groups
from enginebench.report.section import Context, Section, measurements

_ALL = 1 - 1e-9


def _over_level(id_: str, label: str, title: str, figures: Sequence[str], caption: str = "", *, latency: bool = False) -> Section:
    """latency: the panels of a context are in one tab, with a log scale and the limit of the SLO."""

    def blocks(context: Context) -> Iterator[Block]:
        panels = tuple(_panels(context, [column(name, context.analysis) for name in figures], latency=latency))
        intervals = intervals_text(context.analysis)
        bars = f"Medians over n restarts. Bars: {intervals}." if intervals else ""
        values = [found.value for row in context.analysis.rows for name in figures if row.sound and (found := row.figures.get(name))]
        if id_ == "within" and values and min(values) >= _ALL:
            yield Paragraph("Every request of every deployment met the SLO at every load.")
        elif panels:
            yield Plots(f"{caption} {bars}".strip(), panels, tuple(context.slots))

    def finding(context: Context) -> str:
        return (_FINDINGS.get(id_) or (lambda its: leader_finding(figures[0], its)))(context.analysis)

    return Section(id_, title, blocks, label, needs=(measurements,), finding=finding)


def _growth(analysis: Analysis) -> str:
    """'From 1 to 64 streams, output rises 4.1-5.2 times', over all deployments and contexts; who leads where there is one level."""
    rows = [row for row in analysis.rows if row.sound and row.figures.get("output_throughput")]
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.load.level):
        groups.setdefault((row.deployment.model, row.name, row.load.without_level(*field_names("extent"))), []).append(row)
    lengths = {(its[0].load.level_text, its[-1].load.level_text) for its in groups.values()}
    if len(lengths) != 1 or len({text for ends in lengths for text in ends}) != 2:
        return leader_finding("output_throughput", analysis)
    (low, high), grown = next(iter(lengths)), ratios("output_throughput", list(groups.values()))
    return f"From {low} to {high}, output {times(grown)}" if grown else ""


def _held(analysis: Analysis) -> str:
    """'Within the SLO: a at 6 of 6 loads, b at 4 of 6'."""
    known: dict[str, list[bool]] = {}
    several = len({row.deployment.model for row in analysis.rows}) > 1
    for row in analysis.rows:
        if (answer := holds(row, analysis.slo)) is not None:
            known.setdefault(f"{row.name} on {row.deployment.model}" if several else row.name, []).append(answer)
    if known and all(map(all, known.values())):
        return "Every deployment meets the SLO at every load that was tried"
    order = sorted(known.items(), key=lambda item: -sum(item[1]) / len(item[1]))
    counts = [f"{name} at {sum(its)} of {counted(len(its), 'load')}" for name, its in order]
    return f"The SLO is met by {listed(counts)}" if counts else ""


_FINDINGS = {"throughput": _growth, "within": _held}


def _panels(context: Context, columns: Sequence[Column], *, latency: bool) -> Iterator[Panel]:
    for title, rows in panel_groups(context.analysis):
        found = [(its, usable) for its in columns if (usable := [row for row in rows if row.figures.get(its.figure)])]
        shown = [found[0], found[-1]] if len(found) > 1 else found  # the median, and the highest percentile that is known
        for its, usable in shown:
            layout = _layout(usable, its, context, latency=latency)
            name, tab = (f"{title} · {its.label}", title) if latency else (title, "")
            yield Panel(name, _traces(rows, usable, its, context), layout, tab=tab)


def _traces(rows: Sequence[Row], usable: Sequence[Row], its: Column, context: Context) -> tuple[dict[str, JSON], ...]:
    lines = [line(each, its, context.slots[name]) for name, each in by_deployment(rows).items()]
    return *lines, invalid([row for row in usable if not row.sound], lambda row: row.load.level, its)


def _layout(usable: Sequence[Row], its: Column, context: Context, *, latency: bool) -> dict[str, JSON]:
    title, slo = f"{its.label}, {its.unit}", context.analysis.slo
    y = axis(title, type="log") if latency else axis(title, rangemode="tozero")
    limit = slo.limits.get(its.figure.partition("_")[0]) if slo is not None and latency else None
    shapes: list[JSON] = [limit_line(1e3 * limit, f"SLO {1e3 * limit:,.6g} ms")] if limit is not None else []
    return {"xaxis": level_axis(usable), "yaxis": y, "shapes": shapes}


_LATENCY = "Half of the requests (p50), and the highest percentile that the number of requests allows, against the load; log scale."
THROUGHPUT = _over_level("throughput", "Throughput", "Output throughput", ("output_throughput",), "All requests together.")
GOODPUT = _over_level("goodput", "Goodput", "Goodput", ("goodput",), "Requests per second that met every limit of the SLO.")
WITHIN = _over_level("within", "Within SLO", "Share of requests within the SLO", ("slo_attainment",))
TTFT = _over_level("ttft", "TTFT", "Time to first token", ("ttft_p50", "ttft_p90", "ttft_p99"), _LATENCY, latency=True)
TPOT = _over_level("tpot", "TPOT", "Time per output token", ("tpot_p50", "tpot_p90", "tpot_p99"), _LATENCY, latency=True)
