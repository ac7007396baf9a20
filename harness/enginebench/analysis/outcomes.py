"""What became of each deployment and load from one run to another: worse, better, unchanged, or not to be told. Renders nothing.

A figure has moved when the rank test is sure and the difference is not equal in practice, or when too few restarts allow a test but the
change is so large that chance is no explanation (`thresholds.is_far`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.analysis.comparison import Comparison, Figure, Pair
from enginebench.analysis.thresholds import far_limit, is_far
from enginebench.metrics.registry import metric_of
from enginebench.metrics.statistics import CONFIDENCE

Word: TypeAlias = Literal["worse", "better", "unchanged", "cannot tell", "not comparable"]
WORDS: tuple[Word, ...] = ("worse", "better", "unchanged", "cannot tell", "not comparable")
MAIN = ("output_throughput", "ttft_p50", "tpot_p50")
"""The figures whose direction decides whether a load is worse, where no threshold says otherwise."""


@dataclass(frozen=True)
class Moved:
    """A figure that is surely worse or better."""

    figure: Figure
    tested: bool
    """Whether a test over the restarts says so; else there are too few, and the size of the change does."""

    @property
    def agreeing(self) -> int:
        """Restarts of the candidate that lie beyond every restart of the base."""
        base, values = self.figure.base.values, self.figure.candidate.values
        return sum(value < min(base) if self.figure.change.falls else value > max(base) for value in values)


@dataclass(frozen=True)
class Outcome:
    pair: Pair
    word: Word
    moved: tuple[Moved, ...] = ()
    """Of the figures asked for: throughput first, then the largest change."""
    doubtful: Figure | None = None
    """The largest change that cannot be told."""


def outcomes(found: Comparison, figures: Collection[str], limit: float) -> tuple[Outcome, ...]:
    """One for each pair. figures: those that count. limit: the share from which a change matters, for changes that cannot be tested."""
    return tuple(_outcome(pair, figures, limit, found.base.equal_within) for pair in found.pairs)


def _outcome(pair: Pair, figures: Collection[str], limit: float, margin: float | None) -> Outcome:
    known = [figure for name, figure in pair.figures.items() if name in figures and figure.direction != "changed"]
    if not known:
        return Outcome(pair, "not comparable")
    moved = sorted(_moved(known, limit, margin), key=lambda each: (each.figure.name != MAIN[0], -_size(each.figure)))
    ways = {each.figure.direction for each in moved}
    if ways:
        return Outcome(pair, "worse" if "worse" in ways else "better", tuple(moved))
    doubtful = [each for each in known if each.name in MAIN and each.verdict in ("unsure", "unknown") and _matters(each, margin)]
    return Outcome(pair, "cannot tell", doubtful=max(doubtful, key=_size)) if doubtful else Outcome(pair, "unchanged")


def _moved(figures: Collection[Figure], limit: float, margin: float | None) -> Iterator[Moved]:
    for figure in figures:
        if figure.verdict in ("better", "worse") and _matters(figure, margin):
            yield Moved(figure, tested=True)
        elif figure.name in MAIN and figure.change.coverage < CONFIDENCE:
            falls = figure.change.falls
            if is_far(figure, far_limit(-limit if falls else limit, above=not falls)):
                yield Moved(figure, tested=False)


def _matters(figure: Figure, margin: float | None) -> bool:
    """Whether the change is larger than what is equal in practice."""
    metric, relative = metric_of(figure.name), figure.change.relative
    return metric is None or relative is None or abs(relative) >= (metric.equal_within if margin is None else margin)


def _size(figure: Figure) -> float:
    relative = figure.change.relative
    return math.inf if relative is None or relative <= -1 else abs(math.log1p(relative))
