"""The section with the figures of each class of a mixed load, and of all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from enginebench.analysis.analysis import Analysis, Row
from enginebench.domain import JSON
from enginebench.domain.formatting import number
from enginebench.metrics.registry import metric_of
from enginebench.report.blocks import Block, Paragraph, Table
from enginebench.report.layout import aligned, columns_of
from enginebench.report.section import Context, Section, Summary

_SHOWN = ("ttft_p50", "ttft_p99", "tpot_p50", "e2e_p50", "output_throughput", "goodput", "slo_attainment")
_TOGETHER = "together"


def _mixed(analysis: Analysis) -> bool:
    """At least one load has classes of requests."""
    return any(cell.classes for row in analysis.rows for cell in row.cells)


def figures_by_class(row: Row) -> dict[str, dict[str, float]]:
    """Class -> figure -> median over the repeats that are not invalid, or over all of them if every one is."""
    usable = [cell for cell in row.cells if cell.classes and cell.verdict != "invalid"] or [cell for cell in row.cells if cell.classes]
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(name for cell in usable for name in cell.classes):
        parts = [cell.classes[name] for cell in usable if name in cell.classes]
        values = {figure: [its for part in parts if (its := part.get(figure)) is not None] for figure in dict.fromkeys(parts[0])}
        found[name] = {figure: median(given) for figure, given in values.items() if given}
    return found


def _lines(analysis: Analysis) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and a row for each class of each row of the run."""
    known = [(row, figures_by_class(row)) for row in analysis.rows]
    whole = {id(row): {name: its.value for name, its in row.figures.items() if its is not None} for row, _ in known}
    everything = [part for row, classes in known for part in (*classes.values(), whole[id(row)]) if classes]
    shown = [name for name in _SHOWN if any(part.get(name) is not None for part in everything)]
    headings = ("deployment", "load", "class", "requests", *map(_heading, shown))
    lines = []
    for row, classes in known:
        if classes:
            total = {**whole[id(row)], "requests": sum(part["requests"] for part in classes.values())}
            for name, part in (*classes.items(), (_TOGETHER, total)):
                lines.append((row.name, row.load.level_text, name, f"{part['requests']:,.0f}", *(_value(part, figure) for figure in shown)))
    return headings, lines


def _heading(figure: str) -> str:
    metric = metric_of(figure)
    assert metric is not None  # noqa: S101 -- of _SHOWN
    percentile = figure.rpartition("_p")[2] if metric.spread else ""
    return f"{metric.header}{f' p{percentile}' if percentile else ''} {metric.display()[0]}".strip()


def _value(part: Mapping[str, float | None], figure: str) -> str:
    metric, value = metric_of(figure), part.get(figure)
    return "-" if value is None or metric is None else number(value * metric.display()[1])


def _blocks(context: Context) -> Iterator[Block]:
    headings, lines = _lines(context.analysis)
    yield Paragraph("Classes share the server: the figures of one depend on the shares of the others. Medians over restarts.")
    yield Table(headings, tuple(lines))


def _summaries(analysis: Analysis) -> Sequence[Summary]:
    if not _mixed(analysis):
        return ()
    headings, lines = _lines(analysis)
    return (Summary("By class of request", tuple(aligned([headings, *lines], columns_of(None), left=3))),)


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    found: list[JSON] = [
        {"deployment": row.name, "load": row.load.level_text, "classes": {name: dict(part) for name, part in classes.items()}}
        for row in analysis.rows
        if (classes := figures_by_class(row))
    ]
    return {"classes": found}


SECTION = Section("classes", "By class of request", _blocks, needs=(_mixed,), summaries=_summaries, data=_data)
