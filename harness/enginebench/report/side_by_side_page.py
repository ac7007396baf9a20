"""Runs side by side as a page: one file, static, with the style and the blocks of the page of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enginebench.analysis.labels import load_names
from enginebench.analysis.side_by_side import Line
from enginebench.domain.formatting import counted, number
from enginebench.report.blocks import Block, Bullets, Cell, Folded, Paragraph, Table
from enginebench.report.columns import MISSING, Column
from enginebench.report.page import page_environment, page_style
from enginebench.report.run_list import cells_of, when
from enginebench.report.side_by_side_contents import Contents, change_text, doubt, withheld

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_SHOWN = 20
"""Differences that are not folded."""


@dataclass(frozen=True)
class Part:
    """A part of the page, as the templates of blocks know it."""

    id: str
    title: str
    blocks: tuple[Block, ...]


def render_page(its: Contents) -> str:
    from markupsafe import Markup

    return page_environment().get_template("side_by_side.html.j2").render(
        title=" · ".join(dict.fromkeys(run.run.name for run in its.found.runs)), parts=list(_parts(its)),
        moved=its.found.moved, policy=_POLICY, css=Markup(page_style()),  # noqa: S704  # our own files
        count=counted(len(its.runs), "run"), anchor=lambda _: "", chart=lambda _panel, _section: "",
    )  # fmt: skip


def _parts(its: Contents) -> Iterator[Part]:
    yield Part("runs", "The runs", (_runs(its),))
    yield Part("differs", "What differs around them", tuple(_differences(its)))
    main = its.columns("summary")
    for column in main:
        yield Part(column.figure, column.heading, (_table(its, column),))
    further = tuple(column for column in its.columns("text") if column not in main)
    if further:
        yield Part("more", "Every other figure", tuple(Folded(column.heading, (_table(its, column),)) for column in further))
    doubts = tuple(
        f"{letter}, {line.name}: {why}" for line in its.found.lines for i, letter in enumerate(its.found.letters) if (why := doubt(line, i))
    )
    if doubts or withheld(its):
        yield Part("doubts", "Why figures are doubtful (*) or not compared", (Bullets((*doubts, *withheld(its))),))


def _runs(its: Contents) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for letter, name, its_run in zip(its.found.letters, its.names, its.found.runs, strict=True):
        about = f"{when(its_run.run.created_at)} UTC, {cells_of(its_run.counts)}, enginebench {its_run.run.enginebench}"
        rows.append((letter, Cell(name, about), Cell(its_run.sentence, f"trust: {its_run.conclusion.trust.text}".replace("`", ""))))
    return Table(("", "run", "answer"), tuple(rows))


def _differences(its: Contents) -> Iterator[Block]:
    rows = [(f"{each.of}: {each.what}", *("" if value is None else value for value in each.values)) for each in its.found.differences]
    if not rows:
        yield Paragraph("Nothing that is recorded differs.")
        return
    headings: tuple[str | Cell, ...] = ("fact", *its.found.letters)
    yield Table(headings, tuple(rows[:_SHOWN]))
    if rows[_SHOWN:]:
        yield Folded(f"{len(rows) - _SHOWN} more", (Table(headings, tuple(rows[_SHOWN:])),))


def _table(its: Contents, column: Column) -> Table:
    models = {line.first.deployment.model for line in its.found.lines}
    names = load_names(line.first.load for line in its.found.lines)
    runs = [Cell(letter, name, "num") for letter, name in zip(its.found.letters, its.names, strict=True)]
    headings: tuple[str | Cell, ...] = ("deployment", "load", *runs)
    rows: list[tuple[str | Cell, ...]] = []
    for line in its.found.lines:
        deployment = f"{line.first.deployment.model} {line.first.name}" if len(models) > 1 else line.first.name
        rows.append((deployment, names[line.first.load], *(_cell(line, i, column) for i in range(len(its.runs)))))
    return Table(headings, tuple(rows))


def _cell(line: Line, place: int, column: Column) -> Cell:
    row = line.rows[place]
    if row is None:
        return Cell("", css="num")
    why, found = doubt(line, place), row.figures.get(column.figure)
    if not found:
        return Cell(MISSING if row.status == "ok" else row.status, css="num quiet", hint=why)
    return Cell(f"{number(found.value * column.factor)}{'*' if why else ''}", change_text(line, place, column.figure), "num", why)
