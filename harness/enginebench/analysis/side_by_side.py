"""Any number of runs side by side: which rows mean the same, what differs around them, and by how much figures differ. Renders nothing.

Rows are lined up by the rule that pairs two runs (`enginebench.analysis.comparison`): the same deployment under the same load; of the
remaining rows those that are the only ones of their engine, model and load in their run. A line has a row of some runs, or of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.comparison import NOT_RECORDED, Pair, keys_of, moved, once, pair_of, row_facts, run_facts
from enginebench.analysis.labels import load_text

_PACKAGES = "packages."


@dataclass(frozen=True)
class Line:
    """A deployment under a load."""

    rows: tuple[Row | None, ...]
    """One per run; None: the run has no such row."""
    pairs: tuple[Pair | None, ...]
    """The row of each run compared with that of the reference; None for the reference itself, and without a row."""

    @property
    def reference(self) -> int:
        """The first run that has the row; the others are compared with it."""
        return next(i for i, row in enumerate(self.rows) if row is not None)

    @property
    def first(self) -> Row:
        row = self.rows[self.reference]
        assert row is not None  # noqa: S101  # by definition of the reference
        return row

    @property
    def everywhere(self) -> bool:
        return None not in self.rows

    @property
    def name(self) -> str:
        """'olmoe · vllm fp8 · 4 streams x 128 + 64 tokens, 16 requests'."""
        return f"{self.first.deployment.model} · {self.first.name} · {load_text(self.first.load)}"


@dataclass(frozen=True)
class Difference:
    """A recorded fact that is not the same in all runs."""

    of: str
    """'machine', 'run', or the deployment's name."""
    what: str
    """The dotted key of the fact."""
    values: tuple[str | None, ...]
    """One per run; None: the run has no such deployment."""

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """Value -> the runs that have it."""
        found: dict[str, tuple[int, ...]] = {}
        for i, value in enumerate(self.values):
            if value is not None:
                found[value] = (*found.get(value, ()), i)
        return found


@dataclass(frozen=True)
class SideBySide:
    runs: tuple[Analysis, ...]
    lines: tuple[Line, ...]
    """In the order of the first run, then what only later ones have."""
    differences: tuple[Difference, ...]
    """Of the machines first, then of the runs, then of deployments; versions of Python packages, which are many, last."""
    moved: bool
    """Whether the runs were made on machines with different CPUs, limits or accelerators."""

    @property
    def letters(self) -> tuple[str, ...]:
        """A name for each run: 'A', 'B', ..., 'Z', 'AA'."""
        count = len(ascii_uppercase)
        return tuple((ascii_uppercase[i // count - 1] if i >= count else "") + ascii_uppercase[i % count] for i in range(len(self.runs)))


def side_by_side(runs: Sequence[Analysis]) -> SideBySide:
    lines = tuple(_line(rows, runs) for rows in line_up([run.rows for run in runs]))
    found = dict.fromkeys((*_around(runs), *_of_deployments(lines, runs)))
    differences = tuple(sorted(found, key=lambda each: each.what.startswith(_PACKAGES)))
    return SideBySide(tuple(runs), lines, differences, any(moved(runs[0], run) for run in runs[1:]))


def line_up(runs: Sequence[Sequence[Row]]) -> list[list[Row | None]]:
    """Rows that mean the same, one list per line with a row or None for each run."""
    lines: list[list[Row | None]] = []
    left = [list(rows) for rows in runs]
    for key in keys_of([row for rows in runs for row in rows]):
        unique = [once(rows, key) for rows in left]
        for its in dict.fromkeys(its for rows in unique for its in rows):
            members = {i: rows[its] for i, rows in enumerate(unique) if its in rows}
            if (line := _place_for(members, its, key, lines, len(runs))) is not None:
                for i, row in members.items():
                    line[i] = row
                    left[i] = [each for each in left[i] if each is not row]
    lines += [[row if i == j else None for j in range(len(runs))] for i, rows in enumerate(left) for row in rows]
    order = {id(row): (i, n) for i, rows in enumerate(runs) for n, row in enumerate(rows)}
    return sorted(lines, key=lambda line: min((i, order[id(row)][1]) for i, row in enumerate(line) if row is not None))


def _place_for(
    members: Mapping[int, Row], its: str, key: Callable[[Row], str], lines: list[list[Row | None]], runs: int
) -> list[Row | None] | None:
    """The line that rows of one key join: the only one of that key that lacks them, else a new one for several; None for a single row."""
    fitting = [line for line in lines if all(line[i] is None for i in members) and key(next(filter(None, line))) == its]
    if len(fitting) == 1:
        return fitting[0]
    if len(members) < 2:
        return None
    lines.append([None] * runs)
    return lines[-1]


def _line(rows: Sequence[Row | None], runs: Sequence[Analysis]) -> Line:
    reference = next(i for i, row in enumerate(rows) if row is not None)
    base = rows[reference]
    pairs = [
        pair_of(base, row, runs[reference], runs[i]) if base is not None and row is not None and i != reference else None
        for i, row in enumerate(rows)
    ]
    return Line(tuple(rows), tuple(pairs))


# -- what differs ----------------------------------------------------------------------------------------------------------------


def _around(runs: Sequence[Analysis]) -> Iterator[Difference]:
    facts = [run_facts(run) for run in runs]
    for of in ("machine", "run"):
        yield from _differing(of, [each[of] for each in facts])


def _of_deployments(lines: Sequence[Line], runs: Sequence[Analysis]) -> Iterator[Difference]:
    for line in lines:
        yield from _differing(
            line.first.name, [None if row is None else row_facts(row, run) for row, run in zip(line.rows, runs, strict=True)]
        )


def _differing(of: str, facts: Sequence[Mapping[str, str] | None]) -> Iterator[Difference]:
    for what in dict.fromkeys(key for each in facts if each is not None for key in each):
        values = tuple(None if each is None else each.get(what, NOT_RECORDED) for each in facts)
        if len({value for value in values if value is not None}) > 1:
            yield Difference(of, what, values)
