"""What raw samples add to an analysis: latency distributions with a bounded number of points, outcome counts, throughput over time.

Reads the samples of every cell once and keeps only the summary. Does not know plots or pages. Times are in ms, as plots show them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from enginebench.analysis.analysis import Analysis
from enginebench.errors import UserError
from enginebench.metrics.registry import metrics
from enginebench.metrics.statistics import Floats
from enginebench.metrics.tokens import output_tokens, per_event
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples

LATENCIES = ("ttft", "tpot", "itl")
MAX_POINTS = 6_000
"""Points of all curves of a page together: about 80 kB of JSON."""

_MOST, _FEWEST = 101, 6
"""Points of one curve."""
_BINS = 200
"""The most bins of a throughput over time."""


@dataclass(frozen=True)
class Curve:
    """An empirical distribution: share[i] of the n values are at most value_ms[i]."""

    value_ms: tuple[float, ...]
    share: tuple[float, ...]
    n: int

    def quantile(self, share: float) -> float:
        """The first of the values that have at least this share at or below them."""
        return next((value for value, at in zip(self.value_ms, self.share, strict=True) if at >= share), self.value_ms[-1])

    def until(self, value_ms: float) -> Curve:
        """The curve up to a value: single requests beyond it would squeeze all others."""
        kept = sum(value <= value_ms for value in self.value_ms)
        return Curve(self.value_ms[:kept], self.share[:kept], self.n)


@dataclass(frozen=True)
class Pace:
    at_s: tuple[float, ...]
    """Middle of each bin, from the first request sent."""
    tokens_per_s: tuple[float, ...]


@dataclass(frozen=True)
class SampleSummary:
    curves: Mapping[int, Mapping[str, Curve]]
    """Index of the row -> latency -> distribution."""
    outcomes: Mapping[str, Mapping[str, int]]
    """Cell id -> outcome -> number of requests."""
    paces: Mapping[str, Pace] = field(default_factory=dict)
    """Cell id -> throughput over time, for cells with a time series of engine counters."""


def summarise(run: Run, analysis: Analysis) -> SampleSummary:
    """The samples of every readable cell, each read once. The repeats of a row are pooled; invalid ones only if all are invalid.

    A cell does not contribute to the curve of a latency that is withheld there.
    """
    points = points_per_curve(sum(row.status == "ok" for row in analysis.rows) * len(LATENCIES))
    curves: dict[int, dict[str, Curve]] = {}
    outcomes: dict[str, Mapping[str, int]] = {}
    paces: dict[str, Pace] = {}
    for i, row in enumerate(analysis.rows):
        kept: list[tuple[Samples, Mapping[str, str]]] = []
        ran = [cell for cell in row.cells if cell.ran]
        pooled = {cell.record.id for cell in [cell for cell in ran if cell.verdict != "invalid"] or ran}
        for cell in row.cells:
            samples = _samples(run, cell.record.id)
            if samples is None:
                continue
            outcomes[cell.record.id] = dict(Counter(samples.outcome))
            if cell.record.counters.series.at_ns and (pace := pace_of(samples)):
                paces[cell.record.id] = pace
            if cell.record.id in pooled:
                kept.append((samples.within(cell.window), cell.withheld))
        curves[i] = {
            name: made for name in LATENCIES if (made := _curve((metrics()[name](s) for s, hidden in kept if name not in hidden), points))
        }
    return SampleSummary(curves, outcomes, paces)


def pace_of(samples: Samples) -> Pace | None:
    """Throughput over the load, in bins of 1 s, or longer ones for a long load; None if no reply's tokens were counted."""
    tokens = output_tokens(samples)
    sent = samples.sent_ns > 0
    known = samples.ok & sent & ~np.isnan(tokens) & (samples.events > 0)
    if not known.any():
        return None
    since = (samples.event_ns - samples.sent_ns[sent].min()) / 1e9
    inside = np.repeat(known, samples.events)
    width = max(1.0, float(since[inside].max()) / _BINS)
    bins = np.bincount((since[inside] // width).astype(np.int64), weights=per_event(samples, np.nan_to_num(tokens))[inside])
    bins = bins[: max(1, len(bins) - 1)]  # the last bin is not full
    at = (np.arange(len(bins)) + 0.5) * width
    return Pace(tuple(at.tolist()), tuple((bins / width).tolist()))


def points_per_curve(curves: int) -> int:
    return max(_FEWEST, min(_MOST, MAX_POINTS // max(curves, 1)))


def _shares(points: int) -> Floats:
    """Where a long distribution is read: evenly, closer together at its upper end, and at p99 and the highest value."""
    tail = points // 4
    return np.array([*np.linspace(0, 0.9, points - tail - 1, endpoint=False), *np.linspace(0.9, 0.99, tail), 1.0])


def _samples(run: Run, cell_id: str) -> Samples | None:
    try:
        return run.samples(cell_id)
    except UserError:
        return None  # the analysis reports it: such a cell has failed


def _curve(parts: Iterable[Floats], points: int) -> Curve | None:
    values = np.concatenate([np.empty(0), *parts]) * 1e3
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    share = _shares(points) if len(values) > points else np.arange(1, len(values) + 1) / len(values)
    at = np.quantile(values, share, method="inverted_cdf")  # always a value that occurred
    return Curve(tuple(float(f"{v:.4g}") for v in at), tuple(round(float(s), 4) for s in share), len(values))
