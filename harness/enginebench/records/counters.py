"""Readings of counters over a cell as a time series, and the mean and maximum of gauges in a window."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Self


@dataclass(frozen=True)
class CounterSeries:
    """Counters read about once a second; empty if there are none or they were not read."""

    at_ns: tuple[int, ...] = ()
    """When each reading was complete, on the client's monotonic clock."""
    values: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Name -> one value per reading; None: missing in that reading."""
    cpu_s: float = 0.0
    """CPU time that taking the readings cost while the load ran."""

    def within(self, window_ns: tuple[int, int]) -> Self:
        """The readings in a window, including both ends."""
        start, end = window_ns
        kept = [i for i, at in enumerate(self.at_ns) if start <= at <= end]
        values = {name: tuple(column[i] for i in kept) for name, column in self.values.items()}
        return replace(self, at_ns=tuple(self.at_ns[i] for i in kept), values=values)

    def pairs(self, a: str, b: str) -> list[tuple[float, float]]:
        """Two counters in the readings that have both."""
        both = zip(self.values.get(a, ()), self.values.get(b, ()), strict=False)
        return [(x, y) for x, y in both if x is not None and y is not None]

    def known(self, name: str) -> list[float]:
        """One counter in the readings that have it."""
        return [value for value in self.values.get(name, ()) if value is not None]


@dataclass(frozen=True)
class Gauge:
    """A gauge over a window."""

    mean: float
    """Arithmetic mean of the readings, in the gauge's unit."""
    max: float
    """Largest reading; a peak between two readings is not seen."""
    readings: int
    """Number of readings in the window."""


def gauges(series: CounterSeries, names: tuple[str, ...]) -> dict[str, Gauge]:
    """Mean and maximum of these gauges. Readings are evenly spaced, so the mean over readings is the mean over time."""
    found = {name: series.known(name) for name in names}
    return {name: Gauge(fmean(values), max(values), len(values)) for name, values in found.items() if values}


def acceptance(counters: Mapping[str, float]) -> float | None:
    """Share of draft tokens that the model accepted, 0 to 1; None without speculative decoding."""
    proposed = counters.get("draft_tokens", 0.0)
    return counters.get("accepted_tokens", 0.0) / proposed if proposed > 0 else None
