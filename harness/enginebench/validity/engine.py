"""What the engine said of itself while the load ran, and what that makes of the cell's figures: its cache, its queue, its KV cache,
its own timings, its routing.

An engine that does not say is not blamed for it. What the client did is judged in `enginebench.validity.delivery`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from enginebench.metrics import server_timings
from enginebench.metrics.context import Floats
from enginebench.metrics.figures.requests import engine_tpot, engine_ttft, tpot, ttft
from enginebench.metrics.statistics import median
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord
from enginebench.records.window import Window
from enginebench.validity.checks import Check, Reason

_FULL = 0.995
"""Share of the KV cache from which it counts as full: engines keep a block back."""

_FEW_READINGS = 3
"""Fewer readings than this say nothing of a whole window."""

_FEW_TIMED = 3
_PACE_OFF, _PACE_OFF_S = 0.2, 5e-4
_FIRST_OFF, _FIRST_OFF_S = 0.5, 0.02
"""How far two clocks may differ for one request, as a share of the engine's and in s; beyond both it is not the clocks."""


# -- the prefix cache ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheProof:
    """How many of a cell's prompt tokens came from a prefix cache, and who says so: the engine's totals around the cell, or the
    usage of its requests. by None: nobody, so that the cache was cold cannot be proved."""

    by: Literal["counters", "usage"] | None = None
    cached: int = 0
    prompt: int = 0

    @property
    def text(self) -> str:
        """'cold, proved by counters', '512 of 4,096 prompt tokens cached, by usage', 'not provable'."""
        if self.by is None:
            return "not provable: the engine does not say"
        if not self.cached:
            return f"cold, proved by {self.by}"
        return f"{self.cached:,} of {self.prompt:,} prompt tokens cached, by {self.by}"


def cache_proof(record: CellRecord, s: Samples) -> CacheProof:
    """Counters see every request, usage only those that ended well; where both say something, the larger number of hits counts."""
    known = s.ok & (s.cached_tokens >= 0)
    by_usage = int(s.cached_tokens[known].sum())
    counted = record.counters.get("cached_tokens")
    if counted is not None and counted >= by_usage:
        return CacheProof("counters", int(counted), int(np.maximum(s.input_tokens[s.ok], 0).sum()))
    prompt = int(np.maximum(s.input_tokens[known], 0).sum())
    everywhere = known.any() and not (s.ok & ~known).any()
    return CacheProof("usage", by_usage, prompt) if by_usage or everywhere else CacheProof()


def cache(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """Hits in a cache that was to be cold."""
    proof = cache_proof(record, s)
    if record.load.prefix_cache == "cold" and proof.cached:
        share = proof.cached / max(proof.prompt, 1)
        detail = f"{proof.cached} of {proof.prompt} prompt tokens ({share:.0%}) were cached"
        yield Reason(Check.CACHE_HITS, "invalid" if share > 0.02 else "suspect", detail)


# -- queue and KV cache --------------------------------------------------------------------------------------------------


def pressure(record: CellRecord, window: Window) -> Iterator[Reason]:
    """Whether the engine had more to do than its batch or its KV cache holds."""
    if (lost := record.counters.get("preemptions", 0.0)) > 0:
        detail = f"{lost:,.0f} preemption{'s' if lost > 1 else ''}: requests lost their KV cache to others and were computed again"
        yield Reason(Check.PREEMPTED, "suspect", detail)
    inside = record.series.within((window.start_ns, window.end_ns))
    waiting = inside.known("waiting")
    if len(waiting) >= _FEW_READINGS and min(waiting) > 0:
        detail = f"at every one of {len(waiting)} readings {min(waiting):,.0f} to {max(waiting):,.0f} requests waited in the engine's queue"
        yield Reason(Check.QUEUED, "suspect", detail)
    full = sum(use >= _FULL and queue > 0 for use, queue in inside.pairs("kv_use", "waiting"))
    if full:  # a full cache that nobody waits for is one that was made to measure
        readings = len(inside.known("kv_use"))
        yield Reason(Check.KV_FULL, "suspect", f"the KV cache was full at {full} of {readings} readings, and requests waited")


# -- two clocks ----------------------------------------------------------------------------------------------------------


def clocks(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """The engine's own timings against the client's, over the requests that have both.

    An engine leaves its queue out of the time to the first token, so that is compared only where the queue is known, or empty: one
    stream of single requests.
    """
    if pace := _medians(engine_tpot(s), tpot(s)):
        its, ours = pace
        if abs(ours - its) > max(_PACE_OFF_S, _PACE_OFF * its):
            detail = f"the engine says {its * 1e3:.3g} ms per token, the client saw {ours * 1e3:.3g}"
            yield Reason(Check.TIMINGS_DISAGREE, "suspect", detail)
    load, queue = record.load, server_timings.queue_s(s)
    alone = not load.open_loop and load.concurrency == 1
    if first := _medians(engine_ttft(s) + (np.nan_to_num(queue) if alone else queue), ttft(s)):
        its, ours = first
        if abs(ours - its) > max(_FIRST_OFF_S, _FIRST_OFF * its):
            detail = f"the engine says {its * 1e3:.3g} ms to the first token, the client saw {ours * 1e3:.3g}"
            yield Reason(Check.TIMINGS_DISAGREE, "suspect", detail)


def _medians(its: Floats, ours: Floats) -> tuple[float, float] | None:
    """Medians of the requests that both have timed; None when they are too few."""
    both = ~np.isnan(its) & ~np.isnan(ours)
    return (median(its[both]), median(ours[both])) if both.sum() >= _FEW_TIMED else None


# -- routing -------------------------------------------------------------------------------------------------------------


def routing(record: CellRecord) -> Iterator[Reason]:
    """A random router sends tokens to other experts, and to more or fewer of them, than any trained one."""
    if record.random_weights and not record.dense and not record.forced_routing:
        yield Reason(Check.RANDOM_ROUTING, "unranked", "random weights, and nothing forces their routing")
