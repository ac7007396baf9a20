"""The section with the best figure of each kind, per model, and the deployment and load that reached it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.analysis.analysis import Row
from enginebench.analysis.rows import holds
from enginebench.report.blocks import Block, Custom
from enginebench.report.columns import GOODPUT, THROUGHPUT, TPOT, TTFT, Column, value_text
from enginebench.report.section import Context, Section, measurements

_KEYS = (
    ("Highest output throughput", THROUGHPUT),
    ("Highest goodput", GOODPUT),
    ("Lowest time to first token (p50)", TTFT),
    ("Lowest time per output token (p50)", TPOT),
)


def _blocks(context: Context) -> Iterator[Block]:
    """Only sound rows count, and for goodput only loads at which the SLO is met."""
    found: dict[str, list[dict[str, str]]] = {}
    for model in context.models:
        sound = [row for row in context.analysis.rows if row.deployment.model == model and row.sound]
        good = [row for row in sound if holds(row, context.analysis.slo) is not False]
        sides = [(title, column, good if column is GOODPUT else sound) for title, column in _KEYS]
        if numbers := [number for title, column, rows in sides if (number := _key_number(title, column, rows))]:
            found[model] = numbers
    if found:
        yield Custom("key_numbers.html.j2", {"numbers": found, "several_models": len(context.models) > 1})


def _key_number(title: str, column: Column, rows: Sequence[Row]) -> dict[str, str] | None:
    values = {i: found.value for i, row in enumerate(rows) if (found := row.figures.get(column.figure))}
    if not values:
        return None
    row = rows[(max if column in (THROUGHPUT, GOODPUT) else min)(values, key=values.__getitem__)]
    where = f"{row.name} · {row.load.level_text} · {row.load.shape_text}"
    return {"title": title, "value": value_text(row.figures[column.figure], column), "unit": column.unit, "where": where}


SECTION = Section("key-numbers", "Key numbers", _blocks, needs=(measurements,))
