"""Figures of a row by restart, and a restart that is far from the others: something happened to it that did not happen to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enginebench.analysis.rows import Row
from enginebench.domain.formatting import percent
from enginebench.metrics.statistics import repeats_needed

_FEWEST = 3
_TIMES = 4.0
"""An outlier is so many times farther from the others than they are from each other,"""
_LEAST = 0.05
"""and by at least this share."""


@dataclass(frozen=True)
class Outlier:
    row: Row
    restart: int
    """Index of the repeat, from 0."""
    off: float
    """-0.3: 30 % below the median of the others."""

    @property
    def text(self) -> str:
        """'restart 3 of vllm is 31 % below its others'."""
        which = f"restart {self.restart + 1} of {self.row.name}"
        return f"{which} is {percent(abs(self.off), 2)} {'below' if self.off < 0 else 'above'} its others"


def too_few(n: int) -> str:
    """'2 restarts each are too few to be sure (4 would do)'."""
    return f"{'one restart each is' if n == 1 else f'{n} restarts each are'} too few to be sure ({repeats_needed()} would do)"


def by_restart(row: Row, figure: str) -> dict[int, float]:
    """Restart -> figure, of the cells that the row's estimate is over; numbered from 0 where a row has no cells."""
    found = row.figures.get(figure)
    ran = [cell for cell in row.cells if cell.ran]
    usable = [cell for cell in ran if cell.verdict != "invalid"] or ran
    known = {cell.record.repeat: value for cell in usable if (value := cell.figures.get(figure)) is not None}
    return known or dict(enumerate(found.values if found else ()))


def outlier(row: Row, figure: str) -> Outlier | None:
    """The one restart of a row that is far from all others; None if there is none, or several."""
    known = by_restart(row, figure)
    found = [(r, off) for r, value in known.items() if (off := _off(value, [v for s, v in known.items() if s != r])) is not None]
    return Outlier(row, *found[0]) if len(found) == 1 else None


def outliers(rows: Sequence[Row], figure: str) -> Iterator[Outlier]:
    yield from (found for row in rows if row.sound and (found := outlier(row, figure)) is not None)


def _off(value: float, others: Sequence[float]) -> float | None:
    if len(others) + 1 < _FEWEST or min(value, *others) <= 0:
        return None
    middle, spread = sorted(others)[len(others) // 2], math.log(max(others) / min(others))
    away = min(abs(math.log(value / each)) for each in others)
    return value / middle - 1 if away > max(_TIMES * spread, _LEAST) else None
