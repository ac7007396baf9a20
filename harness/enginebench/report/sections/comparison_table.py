"""The section with the comparison table, and its content for the terminal and Markdown: order, headings, marks and footnotes.

Rows of one model and load are next to each other, because they are compared; those that did not run for one reason are one line. Columns
with the same value in every row become a caption.
Does not know markup: texts are raw, and every renderer escapes them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from enginebench.analysis.analysis import LOAD_COLUMNS, Analysis, CellResult, Row
from enginebench.analysis.ranking import contenders, ranked_by
from enginebench.domain import field_names
from enginebench.domain.formatting import counted
from enginebench.metrics.registry import find
from enginebench.report.blocks import Block, Custom, fit_class
from enginebench.report.columns import Column, heading, intervals_text, shown, why_missing
from enginebench.report.section import Context, Section
from enginebench.validity import Reason, merged

State: TypeAlias = Literal["valid", "scoped", "suspect", "invalid", "failed", "skipped"]


@dataclass(frozen=True)
class Line:
    row: Row
    labels: tuple[str, ...]
    """Deployment, then the columns of the load."""
    state: State
    notes: tuple[int, ...]
    """Numbers of its footnotes."""
    ended: str
    """Why there are no figures, or that another row has the reason; empty for a row that ran."""
    best: str
    """The figure that ranks its group if the row has the highest value, or one that cannot be told apart from it; else empty."""

    @property
    def tags(self) -> tuple[str, ...]:
        """The words that mark the row: its state unless that is valid, an attached server, and whether its quality bars it."""
        state = () if self.state == "valid" else (self.state,)
        return (*state, *(("attached",) if self.row.attached else ()), *(("quality",) if self.row.excluded else ()))


@dataclass(frozen=True)
class ModelRows:
    model: str
    groups: tuple[tuple[Line, ...], ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(line for group in self.groups for line in group)


@dataclass(frozen=True)
class ComparisonTable:
    caption: str
    headings: tuple[str, ...]
    figures: tuple[Column, ...]
    models: tuple[ModelRows, ...]
    notes: tuple[str, ...]
    """notes[i] is footnote i + 1."""
    missing: tuple[str, ...]
    legend: Mapping[str, str]
    """Deployment -> the settings that its name stands for."""
    intervals: str
    ranked: str
    """The figure in which the marked rows of a group are best."""

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(line for model in self.models for line in model.lines)


def comparison_table(analysis: Analysis) -> ComparisonTable:
    """Order the rows, choose the columns and number the reasons."""
    labels = [_labels(row, analysis) for row in analysis.rows]
    columns = tuple(dict.fromkeys(name for its in labels for name in its))
    varying = {c for c in columns if len({its.get(c, "") for its in labels}) > 1}
    loads = tuple(c for c in columns if c in varying and (c in LOAD_COLUMNS or c in _TOGETHER))
    constant = {c: labels[0].get(c, "") for c in columns if c not in varying} if labels else {}
    figures = shown(analysis)
    notes = _Footnotes()
    missing = dict.fromkeys(why for row in analysis.rows for column in figures if (why := why_missing(row, column)))
    texts = {id(row): tuple(its.get(c, "") for c in loads) for row, its in zip(analysis.rows, labels, strict=True)}
    return ComparisonTable(
        caption=_caption(analysis, constant), headings=("deployment", *(heading(c) for c in loads)), figures=figures,
        models=tuple(_models(analysis.rows, texts, notes)), notes=notes.texts(), missing=tuple(missing),
        legend=_legend(analysis.rows, varying), intervals=intervals_text(analysis),
        ranked="goodput" if ranked_by(analysis.rows) == "goodput" else "throughput",
    )  # fmt: skip


_TOGETHER = ("load", "tokens", "most in flight")


def _labels(row: Row, analysis: Analysis) -> dict[str, str]:
    """The label columns of a row: one for the level unless all loads are closed loops, one for the lengths unless all are numbers."""
    out: dict[str, str] = {}
    loads = [each.load for each in analysis.rows]
    limits = {load.limit for load in loads} - {None}
    together: dict[str, tuple[str, str]] = {}
    if limits:
        together |= dict.fromkeys(field_names("level"), ("load", row.load.level_text))
    if any("input_tokens" not in load.main_fields for load in loads):
        together |= dict.fromkeys(field_names("lengths"), ("tokens", row.load.shape_text.removesuffix(" tokens")))
    for column, text in row.labels.items():
        name, shown_text = together.get(column, (column, text))
        out[name] = shown_text
    if len(limits) > 1:
        out["most in flight"] = "" if row.load.limit is None else str(row.load.limit or "no limit")
    return out


def state_of(row: Row) -> State:
    """One word for a row: the verdict if it ran, else the status."""
    if row.verdict != "not run":
        return row.verdict
    return "skipped" if row.status == "skipped" else "failed"


def _caption(analysis: Analysis, constant: Mapping[str, str]) -> str:
    facts = [f"{heading(name)} {value}" for name, value in constant.items() if value]
    counts = ", ".join(f"{n} {status}" for status, n in analysis.counts.items() if n)
    return " · ".join([analysis.run.name, *facts, f"cells: {counts or 'none'}"])


def _legend(rows: tuple[Row, ...], varying: set[str]) -> dict[str, str]:
    """The settings behind each name. If a name has different settings under different models, only the common ones are kept."""
    facts: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        for column, value in row.labels.items():
            if column in varying and column not in (*LOAD_COLUMNS, "engine", "model", "label"):
                facts.setdefault(row.name, {}).setdefault(column, set()).add(value)
    shared = {name: {c: next(iter(v)) for c, v in its.items() if len(v) == 1} for name, its in facts.items()}
    texts = {name: ", ".join(f"{c} {value}" for c, value in its.items() if value) for name, its in shared.items()}
    return {name: text for name, text in texts.items() if text}


def _models(rows: tuple[Row, ...], loads: Mapping[int, tuple[str, ...]], notes: _Footnotes) -> Iterator[ModelRows]:
    for model, its_rows in _grouped(rows, lambda row: row.deployment.model):
        groups = (_with_best(group) for _, group in _grouped(its_rows, lambda row: repr(row.load)))
        lines = [[Line(row, (row.name, *loads[id(row)]), state_of(row), *notes.of(row), best) for row, best in group] for group in groups]
        yield ModelRows(model, tuple(_folded(lines)))


def _folded(groups: Sequence[Sequence[Line]]) -> Iterator[tuple[Line, ...]]:
    """The groups of lines; rows that did not run, all for the same reason, are one line at the end."""
    ended: dict[tuple[int, ...], list[Line]] = {}
    for line in (line for group in groups for line in group if line.row.status != "ok" and line.notes):
        ended.setdefault(line.notes, []).append(line)
    alike = [lines for lines in ended.values() if len(lines) > 1]
    hidden = {id(line) for lines in alike for line in lines}
    kept = (tuple(line for line in group if id(line) not in hidden) for group in groups)
    yield from (group for group in kept if group)
    if alike:
        yield tuple(_one_line(lines) for lines in alike)


def _one_line(lines: Sequence[Line]) -> Line:
    """'vllm: 12 loads' in place of its rows, '3 deployments: 36 rows' of several."""
    names = list(dict.fromkeys(line.labels[0] for line in lines))
    name = f"{names[0]}: {len(lines)} loads" if len(names) == 1 else f"{len(names)} deployments: {len(lines)} rows"
    return replace(lines[0], labels=(name, *("" for _ in lines[0].labels[1:])))


def _grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> list[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.items())


def _with_best(group: list[Row]) -> Iterator[tuple[Row, str]]:
    """Each row with the figure in which it is best: it leads its group, or cannot be told apart from the row that leads."""
    field = contenders(group)
    best = {id(c.row) for c in field if c.behind is None or c.behind.order == "tied"}
    for row in group:
        yield row, ranked_by(group) if len(field) > 1 and id(row) in best else ""  # a single row is not best


class _Footnotes:
    """Numbers reasons in order of appearance. All findings of one check share a footnote."""

    def __init__(self) -> None:
        self._found: dict[str, list[Reason]] = {}
        self._ended: dict[str, list[CellResult]] = {}

    def of(self, row: Row) -> tuple[tuple[int, ...], str]:
        """The numbers of a row's footnotes, and why it has no figures."""
        known = set(self._found)
        numbers = [self._number(reason.check.id, reason) for cell in row.cells for reason in cell.reasons]
        for cell in (cell for cell in row.cells if cell.record.status != "ok"):
            self._ended.setdefault(_cause(cell), []).append(cell)
            numbers.append(self._number(_cause(cell)))
        order = sorted(set(numbers))
        ended = {_cause(cell): cell.record.reason for cell in reversed(row.cells) if row.status != "ok" and _cause(cell) not in known}
        text = "; ".join(reason or "no reason was recorded" for reason in ended.values())
        return tuple(order), text if ended or row.status == "ok" else f"see note {', '.join(map(str, order))}"

    def texts(self) -> tuple[str, ...]:
        return tuple(merged(reasons) if reasons else _alike(self._ended[cause]) for cause, reasons in self._found.items())

    def _number(self, text: str, reason: Reason | None = None) -> int:
        self._found.setdefault(text, []).extend([reason] if reason else [])
        return list(self._found).index(text) + 1


def ending(cell: CellResult) -> str:
    """Why a cell was not measured: 'failed: exited with code 2 before it was ready: error: unrecognized arguments: --foo'."""
    return f"{cell.record.status}: {cell.record.reason or 'no reason was recorded'}"


def _cause(cell: CellResult) -> str:
    """The ending without what differs where the cause is the same: ports, process ids, times."""
    return re.sub(r"[\d.,]+", "", ending(cell))


def _alike(cells: Sequence[CellResult]) -> str:
    """One line for all cells that were not measured for the same reason, with the log of the first."""
    logs = list(dict.fromkeys(cell.log for cell in cells if cell.log))
    more = f" and {len(logs) - 1} more" if len(logs) > 1 else ""
    several = f" ({len(cells)} cells)" if len(cells) > 1 else ""
    return f"{ending(cells[0])}{several}" + (f" (log: {logs[0]}{more})" if logs else "")


def _blocks(context: Context) -> Iterator[Block]:
    table = comparison_table(context.analysis)
    definitions = {its.figure: found[0].definition for its in table.figures if (found := find(its.figure)) is not None}
    headings = [*table.headings[1:], *(its.label for its in table.figures), "n"]
    labels = [re.sub(r"[^\w .,%/()+-]", "", heading) for heading in headings]  # they become strings of CSS
    data = {"table": table, "definitions": definitions, "fit": _fit(table), "labels": labels, "styles": context.slots}
    yield Custom("comparison_table.html.j2", data)


def _fit(table: ComparisonTable) -> str:
    """Below which width of the page a row becomes a block. Names wrap, and headings break between words."""
    labels = zip(*(line.labels for line in table.lines), strict=True)
    widths = [min(max(map(len, column)), 20 if i == 0 else 14) for i, column in enumerate(labels)]
    figures = [max(7, *(len(word) for word in its.heading.split())) for its in table.figures]
    return fit_class([*widths, 12, 3, *(0.8 * count for count in figures)])


def _finding(context: Context) -> str:
    """'36 rows: 30 valid, 4 suspect, 2 failed'."""
    states = Counter(state_of(row) for row in context.analysis.rows)
    return f"{counted(states.total(), 'row')}: {', '.join(f'{count} {state}' for state, count in states.most_common())}" if states else ""


SECTION = Section("table", "Every cell", _blocks, label="Table", finding=_finding)
