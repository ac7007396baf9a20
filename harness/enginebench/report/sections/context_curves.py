"""The section that plots figures over the length of the prompt, each at the load where it matters most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.analysis.analysis import Row
from enginebench.domain import JSON
from enginebench.report.blocks import Block, Panel, Plots
from enginebench.report.columns import THROUGHPUT, TPOT, TTFT, Column
from enginebench.report.findings import joined, ratios, times
from enginebench.report.plotly_traces import axis, by_deployment, length_axis, line
from enginebench.report.section import Context, Section, measurements

_MOST_PARTS = 3
_FEWEST = 2
"""Lengths that make a curve."""
_CAPTION = "One measure a panel: the latencies at the lowest load, the throughput at the highest one that was tried with every length."


def _blocks(context: Context) -> Iterator[Block]:
    if panels := tuple(_panels(context)):
        yield Plots(_CAPTION, panels, tuple(context.slots))


def _panels(context: Context) -> Iterator[Panel]:
    for column, found in _shown(context):
        model = found[0].deployment.model
        title = " · ".join(filter(None, (model if len(context.models) > 1 else "", column.label, found[0].load.level_text)))
        yield Panel(title, _traces(found, column, context), _layout(found, column))


def _shown(context: Context) -> Iterator[tuple[Column, list[Row]]]:
    """The figure of each panel with its rows."""
    for model in context.models:
        rows = [row for row in context.analysis.rows if row.deployment.model == model and isinstance(row.load.token_lengths[0], int)]
        for kind in dict.fromkeys(row.load.kind for row in rows):
            levels = _levels([row for row in rows if row.load.kind == kind])
            for column, at in ((TTFT, 0), (TPOT, 0), (THROUGHPUT, -1)):
                found = [row for row in levels[at] if row.sound and row.figures.get(column.figure)] if levels else []
                if len({row.load.token_lengths[0] for row in found}) >= _FEWEST:
                    yield column, found


def _length(row: Row) -> float:
    return float(str(row.load.token_lengths[0]))


def _finding(context: Context) -> str:
    """'From 1,024 to 16,384 prompt tokens, TTFT p50 rises 12-15 times (at 1 stream), output falls to 40-45 % (at 64 streams)'."""
    parts: dict[tuple[str, str], list[str]] = {}
    for column, rows in _shown(context):
        low, high = min(map(_length, rows)), max(map(_length, rows))
        whole = [its for its in by_deployment(sorted(rows, key=_length)).values() if {low, high} <= set(map(_length, its))]
        if grown := ratios(column.figure, [sorted(its, key=_length) for its in whole]):
            about = f"{rows[0].deployment.model}: from" if len(context.models) > 1 else "From"
            text = f"{column.label} {times(grown)} (at {rows[0].load.level_text})"
            parts.setdefault((about, f"{low:,.0f} to {high:,.0f} prompt tokens"), []).append(text)
    return joined([f"{about} {ends}, {', '.join(texts[:_MOST_PARTS])}" for (about, ends), texts in parts.items()])


def _levels(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each level that has the most lengths, by rising level; of loads that differ only in the length of the prompt."""
    levels: dict[float, list[Row]] = {}
    for row in rows:
        levels.setdefault(row.load.level, []).append(row)
    lengths = {level: len({row.load.token_lengths[0] for row in its}) for level, its in levels.items()}
    alike = {level: len({row.load for row in its}) == lengths[level] for level, its in levels.items()}
    most = max((count for level, count in lengths.items() if alike[level]), default=0)
    return [levels[level] for level in sorted(levels) if lengths[level] == most and alike[level]]


def _traces(rows: Sequence[Row], column: Column, context: Context) -> tuple[dict[str, JSON], ...]:
    return tuple(line(sorted(its, key=_length), column, context.slots[name], _length) for name, its in by_deployment(rows).items())


def _layout(rows: Sequence[Row], column: Column) -> dict[str, JSON]:
    lengths = sorted(set(map(_length, rows)))
    return {"xaxis": length_axis(lengths), "yaxis": axis(f"{column.label}, {column.unit}", type="log")}


SECTION = Section("context", "Context: what longer prompts cost", _blocks, label="Context", needs=(measurements,), finding=_finding)
