"""What a check can look at: one cell with its samples, window, engine counters and hardware, and which of these it has.

Computes what several checks need once. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from enginebench.domain import JSON, Load, TraceReplay
from enginebench.metrics import context as metrics
from enginebench.metrics.context import Floats
from enginebench.metrics.figures.requests import tpot, ttft
from enginebench.metrics.prefix_cache import CacheProof, cache_proof
from enginebench.metrics.statistics import quantile
from enginebench.records.cell import CellRecord
from enginebench.records.counters import CounterSeries
from enginebench.records.launch import LaunchRecord
from enginebench.records.samples import Samples
from enginebench.records.window import Window


@dataclass(frozen=True, eq=False)
class Context(metrics.Context):
    """A cell that ran, in one window: what metrics can use, and what checks need in addition."""

    samples: Samples
    """All requests of the load, measured in the window; empty where a record has no raw samples."""
    record: CellRecord
    window: Window

    @classmethod
    def without_samples(cls, record: CellRecord) -> Context:
        """A cell of which only figures are known."""
        return cls(Samples.collect([]), record, Window(0, 0, "too short to tell", "there are no raw samples"))

    @property
    def load(self) -> Load:
        return self.record.load

    @cached_property
    def readings(self) -> CounterSeries:
        """The engine's counters at the readings inside the window."""
        return self.record.counters.series.within((self.window.start_ns, self.window.end_ns))

    @cached_property
    def cache(self) -> CacheProof:
        return cache_proof(self.record, self.samples)

    @cached_property
    def ttft_ms(self) -> float:
        """Median TTFT; infinite without any."""
        return _quantile_ms(ttft(self.samples), 0.5)

    @cached_property
    def quick_ttft_ms(self) -> float:
        """Lower quartile of TTFT, near to what an undisturbed engine gives; infinite without any."""
        return _quantile_ms(ttft(self.samples), 0.25)

    @cached_property
    def quick_tpot_ms(self) -> float:
        """Lower quartile of TPOT; infinite without any."""
        return _quantile_ms(tpot(self.samples), 0.25)

    @cached_property
    def lost_turns(self) -> int:
        """Turns that were not sent because an earlier turn of their conversation failed (an upper bound: recorded ones may be shorter).

        0 for a load that was stopped: there the stop is the cause.
        """
        failed = ~self.samples.ok & ~self.samples.aborted & (self.samples.conversation >= 0)
        followers = int(np.maximum(self.load.turns - 1 - self.samples.turn, 0)[failed].sum())
        unsent = self.record.delivery.unsent
        if isinstance(self.load, TraceReplay):  # which has sessions of any length
            followers = unsent if failed.any() else 0
        return 0 if self.record.delivery.stopped else min(unsent, followers)

    @property
    def launch(self) -> LaunchRecord | None:
        """The server start that measured the cell."""
        return self.run.launches.get(self.record.launch_id)

    def client(self, name: str) -> float:
        """A figure that the load generator measured of itself; 0 where it did not."""
        return number(self.record.client.health, name)


def number(values: Mapping[str, JSON], name: str) -> float:
    """A stored figure; 0 where it is missing or not a number."""
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _quantile_ms(values: Floats, q: float) -> float:
    defined = values[~np.isnan(values)]
    return quantile(defined, q) * 1e3 if len(defined) else np.inf


@dataclass(frozen=True, eq=False)
class Requirement:
    """Something that a check needs. A check may declare its own next to those below."""

    name: str
    """Completes 'not checkable: no ...'."""
    present: Callable[[Context], bool]


RAW_SAMPLES = Requirement("raw samples", lambda cell: len(cell.samples) > 0)
SUCCESSES = Requirement("successful requests", lambda cell: bool(cell.samples.ok.any()))
REQUEST_TIMES = Requirement(
    "times of single requests (an in-process batch has none)",
    lambda cell: SUCCESSES.present(cell) and cell.record.deployment.runtime != "in-process",
)
EVENTS = Requirement(
    "streamed output events", lambda cell: REQUEST_TIMES.present(cell) and bool((cell.samples.ok & (cell.samples.events > 0)).any())
)
SINGLE_EVENTS = Requirement(
    "single output events between the first and the last",
    lambda cell: EVENTS.present(cell) and "gaps" not in cell.lacks,
)
START_TIMES = Requirement("times at which requests were sent", lambda cell: REQUEST_TIMES.present(cell) and "start times" not in cell.lacks)
DUE_TIMES = Requirement("times at which requests were due", lambda cell: START_TIMES.present(cell) and "due times" not in cell.lacks)
ASKED_LENGTHS = Requirement("lengths that were asked for", lambda cell: SUCCESSES.present(cell) and "asked lengths" not in cell.lacks)
CLIENT_FIGURES = Requirement("figures of the client's own load", lambda cell: bool(cell.record.client.health))


def engine_total(name: str) -> Requirement:
    """One of the engine's totals over the cell, by its neutral name."""
    return Requirement(f"engine counter `{name}`", lambda cell: name in cell.record.counters.totals)


def engine_gauge(name: str, fewest: float = 1) -> Requirement:
    """Readings of one of the engine's gauges inside the window, by its neutral name."""
    least = f" (at least {fewest:g})" if fewest > 1 else ""
    return Requirement(f"readings of engine counter `{name}`{least}", lambda cell: len(cell.readings.known(name)) >= fewest)
