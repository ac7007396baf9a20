"""Distributions as GuideLLM 0.8 defines them (guidellm/schemas/base/statistics.py): of values, of rates, of requests in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from enginebench.report.measured import Floats

Pairs: TypeAlias = Sequence[tuple[float, float]]
"""(time, weight)."""
_PERCENTILES = {
    "p001": 0.001, "p01": 0.01, "p05": 0.05, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99,
    "p999": 0.999,
}  # fmt: skip
_MERGED_S = 1e-4
"""Events nearer to each other than this are one."""
_LEAST = 1e-6


def by_status(values: Floats, ok: npt.NDArray[np.bool_], weights: Floats | None = None) -> dict[str, Any]:
    """The distribution of the successful, incomplete and failed requests, and of all."""
    weights = np.ones(len(values)) if weights is None else weights
    groups = {"successful": ok, "incomplete": np.zeros_like(ok), "errored": ~ok, "total": np.ones_like(ok)}
    return {name: spread(values[some], weights[some]) for name, some in groups.items()}


def spread(values: Floats, weights: Floats | None = None, count: int | None = None) -> dict[str, Any]:
    """Statistics of weighted values; all 0 without any. A percentile is the lowest value whose cumulative share reaches it."""
    weights = np.ones(len(values)) if weights is None else weights
    if not len(values):
        zero = dict.fromkeys(("mean", "median", "mode", "variance", "std_dev", "min", "max", "total_sum"), 0.0)
        return {**zero, "count": count or 0, "percentiles": dict.fromkeys(_PERCENTILES, 0.0)}
    found, inverse = np.unique(values, return_inverse=True)
    shares: Floats = np.bincount(inverse, weights).astype(np.float64)
    total = float(weights.sum())
    found, shares = found[shares > 0], shares[shares > 0]
    if shares.sum() <= _LEAST:
        found = np.unique(values)
        shares = np.ones(len(found))
    shares = shares / shares.sum()
    mean = float(found @ shares)
    variance = float(((found - mean) ** 2) @ shares)
    cumulative = np.cumsum(shares)
    places = {name: min(int(np.searchsorted(cumulative, q)), len(found) - 1) for name, q in _PERCENTILES.items()}
    percentiles = {name: float(found[place]) for name, place in places.items()}
    n = round(total) if count is None else count
    return {
        "mean": mean, "median": percentiles["p50"], "mode": float(found[np.argmax(shares)]), "variance": variance, "std_dev": variance**0.5,
        "min": float(found[0]), "max": float(found[-1]), "count": n, "total_sum": mean * n, "percentiles": percentiles,
    }  # fmt: skip


def rate(events: Pairs, start: float | None = None, end: float | None = None) -> dict[str, Any]:
    """The distribution of events/s: the weight of an event over half the time between its neighbours, weighted by that time."""
    at = np.array(sorted(each for each in events if (start is None or each[0] >= start) and (end is None or each[0] <= end))).reshape(-1, 2)
    at = np.vstack([*([[[start, 0.0]]] if start is not None else []), at, *([[[end, 0.0]]] if end is not None else [])])
    at = _merged(at[np.argsort(at[:, 0], kind="stable")])
    if len(at) <= 1:
        return spread(np.empty(0), count=len(at))
    times, weights = at[:, 0], at[:, 1]
    middles = (times[1:] + times[:-1]) / 2
    lengths = np.concatenate(([middles[0] - times[0]], np.diff(middles), [max(times[-1] - middles[-1], _LEAST)]))
    return spread(weights / np.where(lengths > 0, lengths, _LEAST), lengths, round(float(weights.sum())))


def concurrency(spans: Sequence[tuple[float, float, float]], start: float | None = None, end: float | None = None) -> dict[str, Any]:
    """The distribution of the weight in flight, weighted by time. spans: (start, end, weight)."""
    kept = [each for each in spans if (start is None or each[1] >= start) and (end is None or each[0] <= end)]
    changes = np.array([(a, w) for a, _, w in kept] + [(b, -w) for _, b, w in kept]).reshape(-1, 2)
    changes = _merged(changes[np.argsort(changes[:, 0], kind="stable")])
    if start is not None and len(changes):
        before = int(np.searchsorted(changes[:, 0], start))
        changes = np.vstack(([[start, changes[:before, 1].sum()]], changes[before:]))
    if end is not None and len(changes):
        changes = np.vstack((changes[: int(np.searchsorted(changes[:, 0], end, side="right"))], [[end, 0.0]]))
    levels = np.clip(np.cumsum(changes[:, 1]), 0, None)
    if len(levels) <= 1:
        return spread(levels if len(kept) else np.empty(0))
    lengths = np.clip(np.diff(changes[:, 0]), 0, None)
    return spread(levels[:-1], lengths, len(kept)) if lengths.any() else spread(np.empty(0), count=len(kept))


def _merged(at: Floats) -> Floats:
    """Events within a tenth of a millisecond of the first of them become one at its time, with the sum of their weights."""
    if not len(at):
        return at
    out = [list(at[0])]
    for time, weight in at[1:]:
        if time - out[-1][0] <= _MERGED_S:
            out[-1][1] += weight
        else:
            out.append([time, weight])
    return np.array(out)
