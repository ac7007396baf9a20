"""What an engine counts of itself over a cell, as a time series, and the mean and maximum of its gauges in a window.

Plain data and arithmetic under the neutral names of `enginebench.adapter.TOTALS` and `GAUGES`. Fetches nothing
(`enginebench.runner.engine_counters` does), knows no engine and judges nothing (`enginebench.validity` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean


@dataclass(frozen=True)
class CounterSeries:
    """The engine's counters about once a second; empty where it has none, or nobody looked.

    at_ns[i]: when the i-th reading was complete, on the client's monotonic clock. values[name][i]: what the engine said then, None
    where it did not say. cpu_s: processor time that fetching took while the load ran.
    """

    at_ns: tuple[int, ...] = ()
    values: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    cpu_s: float = 0.0

    def within(self, window_ns: tuple[int, int]) -> CounterSeries:
        """The readings in a window, both ends included."""
        start, end = window_ns
        kept = [i for i, at in enumerate(self.at_ns) if start <= at <= end]
        values = {name: tuple(its[i] for i in kept) for name, its in self.values.items()}
        return CounterSeries(tuple(self.at_ns[i] for i in kept), values, self.cpu_s)

    def pairs(self, a: str, b: str) -> list[tuple[float, float]]:
        """Two counters at the readings that have both."""
        both = zip(self.values.get(a, ()), self.values.get(b, ()), strict=False)
        return [(x, y) for x, y in both if x is not None and y is not None]

    def known(self, name: str) -> list[float]:
        """One counter at the readings that have it."""
        return [value for value in self.values.get(name, ()) if value is not None]


@dataclass(frozen=True)
class Gauge:
    """A gauge over a window. readings: how many it is the mean and the maximum of."""

    mean: float
    max: float
    readings: int


def gauges(series: CounterSeries, names: tuple[str, ...]) -> dict[str, Gauge]:
    """Mean and maximum of these gauges; readings are evenly spaced, so the mean over readings is the mean over time."""
    found = {name: series.known(name) for name in names}
    return {name: Gauge(fmean(values), max(values), len(values)) for name, values in found.items() if values}


def acceptance(counters: Mapping[str, float]) -> float | None:
    """Share of the tokens proposed by speculation that the model accepted, 0 to 1; None without speculation."""
    proposed = counters.get("draft_tokens", 0.0)
    return counters.get("accepted_tokens", 0.0) / proposed if proposed > 0 else None
