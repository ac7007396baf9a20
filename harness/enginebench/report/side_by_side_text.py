"""Runs side by side in a terminal: the runs by letter, what differs around them, then a table for each figure with a column per run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from enginebench.analysis.labels import load_names
from enginebench.analysis.side_by_side import Difference, Line
from enginebench.domain.formatting import counted, number, printable
from enginebench.report.columns import MISSING, Column
from enginebench.report.layout import WIDTH, columns_of, joined, labelled
from enginebench.report.run_list import cells_of, when
from enginebench.report.side_by_side_contents import UNLIKE, Contents, Extent, change_text, doubt, withheld

_MOST_LINES = 20
"""Of a table in the summary."""
_MOST_DIFFERENCES = 12
_LABEL = 34
"""Columns of a load, as far as runs are given room beside it."""


def render_text(its: Contents, extent: Extent, *, width: int | None = None) -> str:
    width = columns_of(width)
    whole = extent == "text"
    found = its.found
    blocks = [[_head(its), *_runs(its, width)], list(_differences(its, width, whole=whole))]
    lines = found.lines if whole else found.lines[:_MOST_LINES]
    for column in its.columns(extent):
        blocks += [list(block) for block in _tables(its, column, lines, width)]
    left = len(found.lines) - len(lines)
    more = [f"and {counted(left, 'line')} more: --table"] if left else []
    return joined([*blocks, [*more, *(line for note in _notes(its, whole=whole) for line in wrap(note, width, subsequent_indent="   "))]])


def _head(its: Contents) -> str:
    """'3 runs side by side · 12 lines: 8 in all runs, 4 in some'"""
    lines = its.found.lines
    everywhere = sum(line.everywhere for line in lines)
    parts = [f"{everywhere} in all runs", *([f"{len(lines) - everywhere} in some"] if everywhere < len(lines) else [])]
    return f"{len(its.runs)} runs side by side · {counted(len(lines), 'deployment and load', 'deployments and loads')}: {', '.join(parts)}"


def _runs(its: Contents, width: int) -> Iterator[str]:
    for letter, name, run in zip(its.found.letters, its.names, its.found.runs, strict=True):
        counts = {status: count for status, count in run.counts.items() if count or status == "ok"}
        facts = f"{when(run.run.created_at)}  {cells_of(counts)}  {run.conclusion.trust.level}"
        room = width - len(facts) - len(letter) - 4
        yield f"{letter}  {_cut(name, room):<{room}}  {facts}"[:width]


def _differences(its: Contents, width: int, *, whole: bool) -> Iterator[str]:
    found = its.found.differences
    if its.found.moved:
        yield "the machines differ: a difference may come from the machine"
    if not found:
        yield "nothing that is recorded differs"
        return
    merged: dict[tuple[str, tuple[str | None, ...]], list[str]] = {}
    for each in found:  # what several deployments have in common once
        merged.setdefault((each.what, each.values), []).append(each.of)
    shown = list(merged.items()) if whole else list(merged.items())[:_MOST_DIFFERENCES]
    for i, ((what, values), of) in enumerate(shown):
        text = f"{', '.join(of)}: {what} {_groups(Difference(of[0], what, values), its.found.letters)}"
        yield from labelled("" if i else "DIFFERS", text if whole or len(text) <= 2 * width else f"{text[: 2 * width - 13]}...", width)
    if len(shown) < len(merged):
        yield f"        and {len(merged) - len(shown)} more: --table"


def _groups(difference: Difference, letters: Sequence[str]) -> str:
    """'A, B 0.11 · C 0.12'"""
    return " · ".join(f"{', '.join(letters[i] for i in runs)} {value}" for value, runs in difference.groups.items())


# -- tables ----------------------------------------------------------------------------------------------------------------------


def _tables(its: Contents, column: Column, lines: Sequence[Line], width: int) -> Iterator[Iterator[str]]:
    """A table of as many runs as fit, then one of the next."""
    labels = _labels(its, lines)
    cells = [[_cell(line, i, column) for i in range(len(its.runs))] for line in lines]
    sizes = [2 + max([len(letter), *(len(row[i]) for row in cells)]) for i, letter in enumerate(its.found.letters)]
    longest = max([len(column.heading), *(len(load) for _, load in labels)])
    start = 0
    while start < len(sizes):
        end = start + 1
        while end < len(sizes) and sum(sizes[start : end + 1]) <= width - min(_LABEL, longest):
            end += 1
        side = min(longest, width - sum(sizes[start:end]))
        yield _table(its, column, labels, cells, sizes[start:end], range(start, end), side)
        start = end


def _table(
    its: Contents, column: Column, labels: Sequence[tuple[str, str]], cells: Sequence[Sequence[str]], sizes: Sequence[int], runs: range,
    side: int,
) -> Iterator[str]:  # fmt: skip
    """A line per deployment, with its loads below it."""
    yield f"{column.heading:<{side}}" + "".join(f"{its.found.letters[i]:>{size}}" for i, size in zip(runs, sizes, strict=True))
    last = ""
    for (deployment, load), row in zip(labels, cells, strict=True):
        if deployment != last:
            yield deployment
        last = deployment
        yield f"{_cut(load, side):<{side}}" + "".join(f"{row[i]:>{size}}" for i, size in zip(runs, sizes, strict=True))


def _labels(its: Contents, lines: Sequence[Line]) -> list[tuple[str, str]]:
    """'vllm tp=2', with the model before it where there are several, and '  4 streams 128 + 64 tokens'."""
    models = {line.first.deployment.model for line in its.found.lines}
    names = load_names(line.first.load for line in its.found.lines)
    heads = [f"{line.first.deployment.model} {line.first.name}" if len(models) > 1 else line.first.name for line in lines]
    return [(_cut(head, WIDTH), f"  {printable(names[line.first.load])}") for head, line in zip(heads, lines, strict=True)]


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _cell(line: Line, place: int, column: Column) -> str:
    """'541 -14 %', '640 ~', '12.3*': a star marks a row with a reason for doubt."""
    row = line.rows[place]
    if row is None:
        return ""
    found = row.figures.get(column.figure)
    if not found:
        return MISSING if row.status == "ok" else row.status
    mark = "*" if doubt(line, place) else ""
    return " ".join(filter(None, (f"{number(found.value * column.factor)}{mark}", change_text(line, place, column.figure))))


def _notes(its: Contents, *, whole: bool) -> Iterator[str]:
    yield f"%: change from the first run that has it; ~: no detectable difference; ?: too few restarts; {UNLIKE}: not comparable"
    doubts = [(letter, line, doubt(line, i)) for line in its.found.lines for i, letter in enumerate(its.found.letters) if doubt(line, i)]
    if doubts:
        yield f"*: doubtful or not comparable, {counted(len(doubts), 'row')}" + ("" if whole else "; the reasons: --table")
    if whole:
        yield from (f"{letter} {line.name}: {why}" for letter, line, why in doubts)
        yield from withheld(its)
