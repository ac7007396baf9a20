"""The section on what a deployment costs: memory, energy, money per million tokens, and its share of the bound and of the expectation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.analysis.analysis import Analysis, Row
from enginebench.domain import Load
from enginebench.domain.formatting import percent
from enginebench.metrics.registry import find
from enginebench.metrics.statistics import Estimate
from enginebench.report.blocks import Block, Cell, Paragraph, Table
from enginebench.report.columns import MISSING, Column, column, value_text
from enginebench.report.findings import leader_finding
from enginebench.report.section import Context, Section, measurements

_FIGURES = ("gpu_memory", "cost_per_token", "energy_per_token", "joules_per_token", "share_of_ceiling", "share_of_expected")
_SHARES = ("share_of_ceiling", "share_of_expected")


def _blocks(context: Context) -> Iterator[Block]:
    for model in context.models:
        sound = [row for row in context.analysis.rows if row.deployment.model == model and row.sound]
        for load in _loads(sound):
            if (table := _table(context.analysis, [row for row in sound if row.load == load], model)) is not None:
                yield table
    if context.analysis.prices is None:
        yield Paragraph("Costs need prices: bench report --prices FILE.")


def _loads(rows: Sequence[Row]) -> list[Load]:
    """The lowest and the highest load that most deployments have with the context that most have."""
    counts: dict[Load, int] = {}
    for row in rows:
        counts[row.load] = counts.get(row.load, 0) + 1
    shared = sorted((load for load, count in counts.items() if count == max(counts.values())), key=lambda load: load.level)
    alike = [load for load in shared if load.shape_text == shared[0].shape_text]
    return list(dict.fromkeys([alike[0], alike[-1]])) if alike else []


def _table(analysis: Analysis, rows: Sequence[Row], model: str) -> Table | None:
    known = [name for name in _FIGURES if any(row.figures.get(name) for row in rows)]
    if not known:
        return None
    columns = [column(name, analysis) for name in known]
    several = len({row.deployment.model for row in analysis.rows}) > 1
    headings = [Cell(its.label, its.unit, "num", hint=found[0].definition if (found := find(its.figure)) else "") for its in columns]
    lines: list[tuple[str | Cell, ...]] = [(row.name, *(_cell(row.figures.get(its.figure), its) for its in columns)) for row in rows]
    load = rows[0].load
    caption = f"At {load.level_text} of {load.shape_text}" + (f", {model}" if several else "")
    return Table(("deployment", *headings), tuple(lines), css="cost", caption=caption)


def _cell(value: Estimate | None, its: Column) -> Cell:
    if value is None:
        return Cell(MISSING, css="num")
    return Cell(value_text(value, its), css="num", bar=min(value.value, 1.0) if its.figure in _SHARES else None)


def _finding(context: Context) -> str:
    """Who is cheapest, or takes the least energy; else the largest share of the bound."""
    analysis = context.analysis
    for figure in ("cost_per_token", "energy_per_token", "joules_per_token"):
        if any(row.figures.get(figure) for row in analysis.rows if row.sound):
            return leader_finding(figure, analysis)
    shares = [(found.value, row) for row in analysis.rows if row.sound and (found := row.figures.get("share_of_ceiling"))]
    if not shares:
        return ""
    share, row = max(shares, key=lambda each: each[0])
    model = f", {row.deployment.model}" if len(context.models) > 1 else ""
    where = f"by {row.name} at {row.load.level_text} of {row.load.shape_text}{model}"
    if share > 1:
        return f"{percent(share, 2)} of the bound, {where}: the figure is wrong, or an assumption of the bound is"
    return f"At most {percent(share, 2)} of the bound is reached, {where}"


SECTION = Section(
    "cost", "What it costs, and its share of the bound and of the expectation", _blocks, label="Cost", needs=(measurements,),
    finding=_finding,
)  # fmt: skip
