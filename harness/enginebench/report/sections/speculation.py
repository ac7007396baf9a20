"""The section on speculation: what its steps yielded, and how often the token at each position was accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enginebench.analysis.analysis import Analysis, Row
from enginebench.domain import JSON
from enginebench.domain.formatting import percent
from enginebench.metrics.figures.speculation import BY_POSITION
from enginebench.report.blocks import Block, Cell, Paragraph, Table
from enginebench.report.section import Context, Section

_OVERALL = ("acceptance_length", "acceptance_rate")
_NAMES = (*_OVERALL, *(its.name for its in BY_POSITION))


def _speculated(analysis: Analysis) -> bool:
    return any(_counted(row) for row in analysis.rows)


def _counted(row: Row) -> bool:
    return any(row.figures.get(name) is not None for name in _NAMES)


def _blocks(context: Context) -> Iterator[Block]:
    rows = [row for row in context.analysis.rows if _counted(row)]
    positions = [its for its in BY_POSITION if any(row.figures.get(its.name) is not None for row in rows)]
    headings = ("deployment", "load", Cell("tokens per step", css="num"), Cell("accepted", "%", "num"))
    lines: tuple[tuple[str | Cell, ...], ...] = tuple(
        (row.name, row.load.level_text, *(Cell(_text(row, name), css="num") for name in (*_OVERALL, *(its.name for its in positions))))
        for row in rows
    )
    yield Table((*headings, *(Cell(its.title.removeprefix("acceptance "), "%", "num", hint=its.definition) for its in positions)), lines)
    means = "A step with proposed tokens yields the accepted ones and one of the model's own; `at 2` is the share that accepted the second."
    yield Paragraph(means)


def _text(row: Row, name: str) -> str:
    found = row.figures.get(name)
    if found is None:
        return "-"
    return f"{found.value:.3g}" if name == "acceptance_length" else percent(found.value).removesuffix(" %")


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    found: list[JSON] = [
        {
            "deployment": row.name,
            "load": row.load.level_text,
            **{name: its.value for name in _NAMES if (its := row.figures.get(name)) is not None},
        }
        for row in analysis.rows
        if _counted(row)
    ]
    return {"speculation": found}


SECTION = Section("speculation", "Speculation: what was accepted", _blocks, label="Speculation", needs=(_speculated,), data=_data)
