"""The comparison table for a terminal: figures are never cut; when space is short, intervals stack and the least important columns go.

Returns text and prints nothing; the caller knows whether it goes to a terminal. Knows no metric and no file.
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
from enginebench.domain.text import printable
from enginebench.report.columns import Column, interval_text, repeats_text, value_text
from enginebench.report.sections.comparison_table import Layout, Line, Section, lay_out
from enginebench.report.sections.fairness import fairness
from enginebench.report.sections.highest_load import findings

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_WARNING = {"unranked": "", "suspect": "yellow", "invalid": "red", "failed": "red", "skipped": ""}
_LABEL_WIDTHS = (28, 16, 12)
_GAP = 2


@dataclass(frozen=True)
class _Fit:
    """What fits a terminal of this width. stacked: intervals go under their values and the status under its name.

    labels: width beyond which a name wraps.
    """

    width: int
    figures: tuple[Column, ...]
    stacked: bool
    labels: int


def render_table(analysis: Analysis, *, width: int | None = None, color: bool | None = None) -> str:
    """The table, its footnotes and the verdict sentence.

    width: columns of the terminal; None: this one's, 120 when piped. color: ANSI codes; None: only on a terminal without NO_COLOR.
    """
    from rich.console import Console
    from rich.text import Text

    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") if color is None else color
    layout = lay_out(analysis)
    fit = _fit(layout, width or shutil.get_terminal_size((120, 40)).columns)
    widths = _widths(layout, fit)
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(fit.width, _total(widths)),  # too narrow for anything: the terminal may wrap, a figure is never cut
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    console.print(Text(printable(layout.caption), style="bold"))
    for section in layout.sections:
        console.print()
        if len(layout.sections) > 1:
            console.print(Text(printable(section.model), style="bold underline"))
        console.print(_table(layout, section, fit, widths))
    for heading, lines in _found(analysis):
        console.print(Text(f"\n{printable(heading)}", style="bold"))
        for line in lines:
            console.print(Text(f"  {printable(line)}"))
    console.print()
    for mark, text in _footnotes(layout, fit):
        console.print(Text(f"{mark} {printable(text)}", style="dim"))
    for asymmetry in fairness(analysis).asymmetries:
        console.print(Text(f"fairness: {printable(asymmetry)}", style="dim"))
    for remark in analysis.caveats:
        console.print(Text(f"note: {printable(remark)}", style="dim"))
    console.print(Text(f"\n{printable(analysis.sentence)}", style="bold"))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _fit(layout: Layout, width: int) -> _Fit:
    """The first arrangement that fits; throughput alone if none does."""
    by_rank = sorted(layout.figures, key=lambda column: column.rank)
    fits = [_Fit(width, layout.figures, stacked=False, labels=_LABEL_WIDTHS[0])]
    for keep in range(len(by_rank), 0, -1):
        kept = tuple(column for column in layout.figures if column in by_rank[:keep])
        fits += [_Fit(width, kept, stacked=True, labels=label) for label in _LABEL_WIDTHS]
    return next((fit for fit in fits if _total(_widths(layout, fit)) <= width), fits[-1])


def _widths(layout: Layout, fit: _Fit) -> list[int]:
    """Width of each column: labels, figures, repeats and, unless stacked, status. Tables of different models share them."""
    lines = layout.lines
    labels = [[heading, *(printable(line.labels[i]) for line in lines)] for i, heading in enumerate(layout.headings)]
    figures = [[*column.heading_lines, *(text for line in lines for text in _texts(line, column, fit.stacked))] for column in fit.figures]
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
    word = "" if line.state == "valid" else line.state
    return f"{word} [{marks}]".strip() if marks else word


def _table(layout: Layout, section: Section, fit: _Fit, widths: list[int]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    labels, figures = layout.headings, fit.figures
    for i, (name, width) in enumerate(zip(labels, widths, strict=False)):
        table.add_column(Text(printable(name)), width=width, overflow="fold", justify="right" if i else "left")
    for column, width in zip(figures, widths[len(labels) :], strict=False):
        table.add_column(Text("\n".join(column.heading_lines)), width=width, justify="right", no_wrap=True)
    table.add_column("n", width=widths[len(labels) + len(figures)], justify="right", no_wrap=True)
    if not fit.stacked:
        table.add_column("", width=widths[-1], no_wrap=True)
    for i, group in enumerate(section.groups):
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


def _found(analysis: Analysis) -> Iterator[tuple[str, list[str]]]:
    """What the searches found, a heading and a line for each deployment."""
    for group in findings(analysis):
        yield f"{group.model}: highest load within the SLO ({group.slo}), {group.title}", [finding.sentence for finding in group.found]


def _footnotes(layout: Layout, fit: _Fit) -> Iterator[tuple[str, str]]:
    for name, facts in layout.legend.items():
        yield f"{name}:", facts
    for i, note in enumerate(layout.notes, start=1):
        yield f"[{i}]", note
    if layout.missing:
        yield "-", "; ".join(layout.missing)
    if layout.intervals:
        yield "[low-high]:", layout.intervals
    dropped = [column.heading for column in layout.figures if column not in fit.figures]
    if dropped:
        yield "not shown at this width:", ", ".join(dropped)
