"""The report for a terminal. If space is short, intervals go on a second line and the least important columns are left out.

Figures are never cut. Returns text and prints nothing. Does not know metrics or files.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginebench.analysis.analysis import Analysis
from enginebench.domain.formatting import printable
from enginebench.report.columns import Column, interval_text, repeats_text, value_text
from enginebench.report.sections import all_sections
from enginebench.report.sections.comparison_table import ComparisonTable, Line, ModelRows, comparison_table

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_WARNING = {"scoped": "", "suspect": "yellow", "invalid": "red", "failed": "red", "skipped": ""}
_LABEL_WIDTHS = (28, 16, 12)
_GAP = 2


@dataclass(frozen=True)
class _Fit:
    width: int
    figures: tuple[Column, ...]
    stacked: bool
    """Intervals are below their values, and the status is below the name."""
    labels: int
    """Width beyond which a name wraps."""


def render_table(analysis: Analysis, *, width: int | None = None, color: bool | None = None) -> str:
    """The table, results of sections, footnotes and the verdict.

    width: columns; None: those of the terminal, 120 if piped. color: ANSI codes; None: only on a terminal without NO_COLOR.
    """
    from rich.console import Console
    from rich.text import Text

    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") if color is None else color
    table = comparison_table(analysis)
    fit = _fit(table, width or shutil.get_terminal_size((120, 40)).columns)
    widths = _widths(table, fit)
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(fit.width, _total(widths)),  # if no arrangement fits, the terminal may wrap
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    console.print(Text(printable(table.caption), style="bold"))
    for model in table.models:
        console.print()
        if len(table.models) > 1:
            console.print(Text(printable(model.model), style="bold underline"))
        console.print(_table(table, model, fit, widths))
    sections = [section for section in all_sections() if section.applies(analysis)]
    for summary in (summary for section in sections for summary in section.summaries(analysis)):
        console.print(Text(f"\n{printable(summary.heading)}", style="bold"))
        for line in summary.lines:
            console.print(Text(f"  {printable(line)}"))
    console.print()
    notes = [f"{mark} {text}" for mark, text in _footnotes(table, fit)]
    notes += [note for section in sections for note in section.notes(analysis)]
    for note in (*notes, *(f"note: {caveat}" for caveat in analysis.caveats)):
        console.print(Text(printable(note), style="dim"))
    console.print(Text(f"\n{printable(analysis.sentence)}", style="bold"))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _fit(table: ComparisonTable, width: int) -> _Fit:
    """The first arrangement that fits; only the most important column if none does."""
    by_rank = sorted(table.figures, key=lambda column: column.rank)
    fits = [_Fit(width, table.figures, stacked=False, labels=_LABEL_WIDTHS[0])]
    for keep in range(len(by_rank), 0, -1):
        kept = tuple(column for column in table.figures if column in by_rank[:keep])
        fits += [_Fit(width, kept, stacked=True, labels=label) for label in _LABEL_WIDTHS]
    return next((fit for fit in fits if _total(_widths(table, fit)) <= width), fits[-1])


def _widths(table: ComparisonTable, fit: _Fit) -> list[int]:
    """Width of each column: labels, figures, repeats and, unless stacked, status. They are the same for all models."""
    lines = table.lines
    labels = [[heading, *(printable(line.labels[i]) for line in lines)] for i, heading in enumerate(table.headings)]
    figures = [
        [column.label, column.unit, *(text for line in lines for text in _texts(line, column, fit.stacked))] for column in fit.figures
    ]
    repeats, status = ["n", *(repeats_text(line.row) for line in lines)], [_status(line) for line in lines]
    ends = [repeats] if fit.stacked else [repeats, status]
    widths = [min(fit.labels, _widest(texts)) for texts in labels] + [_widest(texts) for texts in (*figures, *ends)]
    return [max(widths[0], _widest(status)), *widths[1:]] if fit.stacked else widths


def _total(widths: list[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _widest(texts: list[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _texts(line: Line, column: Column, stacked: bool) -> list[str]:
    found = line.row.figures.get(column.figure)
    value, interval = value_text(found, column), interval_text(found, column)
    return [value, interval] if stacked and interval else [f"{value} {interval}".rstrip()]


def _status(line: Line) -> str:
    marks = ",".join(map(str, line.notes))
    words = ", ".join(line.tags)
    return f"{words} [{marks}]".strip() if marks else words


def _table(comparison: ComparisonTable, model: ModelRows, fit: _Fit, widths: list[int]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    labels, figures = comparison.headings, fit.figures
    for i, (name, width) in enumerate(zip(labels, widths, strict=False)):
        table.add_column(Text(printable(name)), width=width, overflow="fold", justify="right" if i else "left")
    for column, width in zip(figures, widths[len(labels) :], strict=False):
        table.add_column(Text(f"{column.label}\n{column.unit}"), width=width, justify="right", no_wrap=True)
    table.add_column("n", width=widths[len(labels) + len(figures)], justify="right", no_wrap=True)
    if not fit.stacked:
        table.add_column("", width=widths[-1], no_wrap=True)
    for i, group in enumerate(model.groups):
        if i:
            table.add_row()
        for line in group:
            table.add_row(*_entries(line, fit), style="" if line.row.sound else "dim")
    return table


def _entries(line: Line, fit: _Fit) -> Iterator[Text]:
    from rich.text import Text

    name, *loads = map(printable, line.labels)
    status = Text(_status(line), style=_WARNING.get(line.state, ""))
    yield Text.assemble(name, "\n", status) if fit.stacked and status else Text(name)
    yield from map(Text, loads)
    for column in fit.figures:
        emphasis = "bold green" if line.best == column.figure else ""
        yield Text("\n".join(_texts(line, column, fit.stacked)), style=emphasis)
    yield Text(repeats_text(line.row))
    if not fit.stacked:
        yield status


def _footnotes(table: ComparisonTable, fit: _Fit) -> Iterator[tuple[str, str]]:
    for name, facts in table.legend.items():
        yield f"{name}:", facts
    for i, note in enumerate(table.notes, start=1):
        yield f"[{i}]", note
    if table.missing:
        yield "-", "; ".join(table.missing)
    if table.intervals:
        yield "[low-high]:", table.intervals
    dropped = [column.heading for column in table.figures if column not in fit.figures]
    if dropped:
        yield "not shown at this width:", ", ".join(dropped)
