"""What changed over many nights: for each deployment, load and figure its steps and drifts, with what was changed around them.

The statistics are in `enginebench.metrics.level_changes`, the series in `enginebench.analysis.nights`. It renders nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from enginebench.analysis.comparison import Changed
from enginebench.analysis.labels import load_text
from enginebench.analysis.night_run import NightRun
from enginebench.analysis.nights import Point, Series, read_lanes, read_series
from enginebench.domain.formatting import counted
from enginebench.metrics.change_points import FEWEST
from enginebench.metrics.level_changes import Drift, LevelChanges, Step, find_changes
from enginebench.metrics.registry import metric_of

Direction: TypeAlias = Literal["worse", "better", "changed"]
"""changed: neither direction of the figure is good."""

FIGURES = ("output_throughput", "ttft_p50", "tpot_p50")
"""Those that are judged if none is asked for; the same as without thresholds in `bench compare`."""
_EQUAL_WITHIN = 0.03


@dataclass(frozen=True)
class Change:
    """One change of a figure, in SI units and shares."""

    kind: Literal["step", "drift"]
    direction: Direction
    before: float
    """The level before, which is an estimate over all nights of the level."""
    after: float
    relative: float
    low: float | None
    high: float | None
    """95 % interval of the relative change; None for a drift."""
    p: float
    at: Point
    """The night with the new level; of a drift, the one in which it began."""
    earliest: Point
    latest: Point
    """The night of a step lies between them with a probability of 95 %. Of a drift: its first and last night."""
    causes: tuple[Changed, ...]
    """What is recorded to have changed in this night, since the one before."""


@dataclass(frozen=True)
class Trend:
    """One figure of a deployment under a load over all nights."""

    series: Series
    changes: tuple[Change, ...] = ()
    outliers: tuple[Point, ...] = ()
    """Single nights that are far from those around them."""
    noise: float = 0.0
    """Standard deviation of a night around its level, as a share."""
    not_judged: str = ""
    """Why no change can be found; empty if one could."""

    @property
    def name(self) -> str:
        """'olmoe · vllm fp8 · 4 streams x 128 + 64 tokens, 16 requests'."""
        return f"{self.series.row.deployment.model} · {self.series.row.name} · {load_text(self.series.row.load)}"


@dataclass(frozen=True)
class History:
    """Trends in the order of the newest run."""

    runs: tuple[NightRun, ...]
    """Oldest first."""
    trends: tuple[Trend, ...]
    figures: tuple[str, ...]

    @cached_property
    def nights(self) -> tuple[str, ...]:
        """When each run started, in the order of time."""
        return tuple(run.created_at for run in self.runs)

    @property
    def changes(self) -> Iterator[tuple[Trend, Change]]:
        return ((trend, change) for trend in self.trends for change in trend.changes)

    @property
    def judged(self) -> int:
        return sum(not trend.not_judged for trend in self.trends)


def read_history(runs: Sequence[NightRun], figures: Sequence[str] = (), *, equal_within: float | None = None) -> History:
    """figures: by default FIGURES. equal_within: the share below which a change is not worth saying; None: that of
    each metric."""
    ordered = sorted(runs, key=lambda its: its.created_at)
    wanted = tuple(dict.fromkeys(figures or FIGURES))
    lanes = read_lanes(ordered)
    every = [series for lane in lanes for figure in wanted if (series := read_series(lane, figure)).used]
    reasons = [_not_judged(series) for series in every]
    judged = [series for series, reason in zip(every, reasons, strict=True) if not reason]
    values = [np.log([point.found.value for point in series.used if point.found is not None]) for series in judged]
    least = [_least(series.figure) if equal_within is None else equal_within for series in judged]
    found = iter(find_changes(values, [list(series.known) for series in judged], least))
    trends = [Trend(series, not_judged=why) if why else _trend(series, next(found)) for series, why in zip(every, reasons, strict=True)]
    return History(tuple(ordered), tuple(trends), wanted)


def _not_judged(series: Series) -> str:
    if any(point.found is not None and point.found.value <= 0 for point in series.used):
        return "a value of 0 has no relative change"
    few = len(series.used) < FEWEST
    return f"{counted(len(series.used), 'night')} with a usable value, {FEWEST} are needed" if few else ""


def _least(figure: str) -> float:
    metric = metric_of(figure)
    return metric.equal_within if metric is not None else _EQUAL_WITHIN


def _trend(series: Series, found: LevelChanges) -> Trend:
    changes = tuple(_change(series, each) for each in found.changes)
    return Trend(series, changes, tuple(series.used[at] for at in found.outliers), found.noise)


def _change(series: Series, found: Step | Drift) -> Change:
    metric, rises = metric_of(series.figure), found.after > found.before
    better = metric.better if metric is not None else None
    direction: Direction = "changed" if better is None else "better" if (better == "higher") == rises else "worse"
    before, after = float(np.exp(found.before)), float(np.exp(found.after))
    if isinstance(found, Drift):
        start, end = series.used[found.start], series.used[found.end]
        return Change("drift", direction, before, after, found.relative, None, None, found.p, start, start, end, ())
    place, causes = found.location, series.known.get(found.location.at, ())
    at, earliest, latest = (series.used[i] for i in (place.at, place.low, place.high))
    return Change("step", direction, before, after, found.relative, *found.interval, found.p, at, earliest, latest, causes)
