"""What the raw samples add to an analysis: latency distributions, thinned to a bounded number of points, and outcome counts.

Reads every cell's samples once and keeps only curves. Knows no plot and no page; times leave here in ms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from enginebench.analysis.analysis import Analysis, Row
from enginebench.errors import UserError
from enginebench.metrics.registry import metrics
from enginebench.metrics.tokens import Floats, output_tokens, per_event
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples

LATENCIES = ("ttft", "tpot", "itl")
"""The metrics with a plot of their distribution."""
MAX_POINTS = 40_000
"""Points of all curves of a page together: about 0.5 MB of JSON."""

_MOST, _FEWEST = 101, 12
_BINS = 200
"""Of a throughput over time, at most."""


@dataclass(frozen=True)
class Curve:
    """An empirical distribution: share[i] of the n values are at most value_ms[i]."""

    value_ms: tuple[float, ...]
    share: tuple[float, ...]
    n: int


@dataclass(frozen=True)
class Pace:
    """Output tokens per second over a load: tokens_per_s[i] arrived around at_s[i], counted from the first request sent."""

    at_s: tuple[float, ...]
    tokens_per_s: tuple[float, ...]


@dataclass(frozen=True)
class Reading:
    """curves[row index][latency]; outcomes[cell id][how a request ended] is the number that did; paces[cell id]: where a series is."""

    curves: Mapping[int, Mapping[str, Curve]]
    outcomes: Mapping[str, Mapping[str, int]]
    paces: Mapping[str, Pace] = field(default_factory=dict)


def read_samples(run: Run, analysis: Analysis) -> Reading:
    """Samples of every cell that could be read, once. Repeats of a row are pooled; invalid repeats only when all of them are.

    A cell has no part in the curve of a latency that is withheld there.
    """
    points = points_per_curve(sum(row.status == "ok" for row in analysis.rows) * len(LATENCIES))
    curves: dict[int, dict[str, Curve]] = {}
    outcomes: dict[str, Mapping[str, int]] = {}
    paces: dict[str, Pace] = {}
    for i, row in enumerate(analysis.rows):
        kept: list[tuple[Samples, Mapping[str, str]]] = []
        counted = _counted(row)
        for cell in row.cells:
            samples = _samples(run, cell.record.id)
            if samples is None:
                continue
            outcomes[cell.record.id] = dict(Counter(samples.outcome))
            if cell.record.counters.series.at_ns and (pace := pace_of(samples)):
                paces[cell.record.id] = pace
            if cell.record.id in counted:
                kept.append((samples.within(cell.window), cell.withheld))
        curves[i] = {
            name: made for name in LATENCIES if (made := _curve((metrics()[name](s) for s, hidden in kept if name not in hidden), points))
        }
    return Reading(curves, outcomes, paces)


def pace_of(samples: Samples) -> Pace | None:
    """Throughput over the load, in bins of a second, or more where it lasted long; None where the tokens of no answer are known."""
    tokens = output_tokens(samples)
    sent = samples.sent_ns > 0
    known = samples.ok & sent & ~np.isnan(tokens) & (samples.events > 0)
    if not known.any():
        return None
    since = (samples.event_ns - samples.sent_ns[sent].min()) / 1e9
    inside = np.repeat(known, samples.events)
    width = max(1.0, float(since[inside].max()) / _BINS)
    bins = np.bincount((since[inside] // width).astype(np.int64), weights=per_event(samples, np.nan_to_num(tokens))[inside])
    bins = bins[: max(1, len(bins) - 1)]  # the last one is not full
    at = (np.arange(len(bins)) + 0.5) * width
    return Pace(tuple(at.tolist()), tuple((bins / width).tolist()))


def points_per_curve(curves: int) -> int:
    """Points that each of so many curves may have."""
    return max(_FEWEST, min(_MOST, MAX_POINTS // max(curves, 1)))


def _samples(run: Run, cell_id: str) -> Samples | None:
    try:
        return run.samples(cell_id)
    except UserError:
        return None  # the analysis says so already: such a cell has failed


def _counted(row: Row) -> set[str]:
    ran = [cell for cell in row.cells if cell.ran]
    return {cell.record.id for cell in [c for c in ran if c.verdict != "invalid"] or ran}


def _curve(parts: Iterable[Floats], points: int) -> Curve | None:
    values = np.concatenate([np.empty(0), *parts]) * 1e3
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    share = np.linspace(0, 1, points) if len(values) > points else np.arange(1, len(values) + 1) / len(values)
    at = np.quantile(values, share, method="inverted_cdf")  # always a value that occurred
    return Curve(tuple(float(f"{v:.4g}") for v in at), tuple(round(float(s), 4) for s in share), len(values))
