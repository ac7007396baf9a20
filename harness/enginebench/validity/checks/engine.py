"""What the engine reports of itself: its prefix cache, its queue, its KV cache, its own timings."""

from collections.abc import Iterator

import numpy as np

from enginebench.domain.formatting import counted, percent
from enginebench.metrics import server_timings
from enginebench.metrics.context import Floats
from enginebench.metrics.figures.requests import engine_tpot, engine_ttft, tpot, ttft
from enginebench.metrics.statistics import median
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.context import REQUEST_TIMES, Context, Requirement, engine_gauge, engine_total

MOST_CACHED = Threshold(0.02, "share")
LEAST_WARM = Threshold(0.5, "share")
FEWEST_READINGS = Threshold(3, "readings")
FULL = Threshold(0.995, "share")
"""Engines keep a block back."""
FEWEST_TIMED = Threshold(3, "requests")
PACE_OFF, PACE_OFF_MS = Threshold(0.2, "share"), Threshold(0.5, "ms")
FIRST_OFF, FIRST_OFF_MS = Threshold(0.5, "share"), Threshold(20, "ms")

CACHE_COUNTS = Requirement("counts of cached prompt tokens", lambda cell: cell.cache.by is not None)
WARM_COUNTS = Requirement(CACHE_COUNTS.name, lambda cell: cell.load.prefix_cache != "warm" or CACHE_COUNTS.present(cell))
ENGINE_TIMES = Requirement(
    "times that the engine reports for its requests", lambda cell: _pace(cell) is not None or _first_token(cell) is not None
)


@check(
    meaning="the prefix cache should have been cold",
    when={
        "invalid": "the load has `prefix_cache: cold`, and over {MOST_CACHED} of the prompt tokens came from the cache",
        "suspect": "the load has `prefix_cache: cold`, and any prompt token came from the cache",
    },
    advice="switch the prefix cache off in the deployment's `options`, or write `prefix_cache: allowed` in the load",
    needs=(CACHE_COUNTS,),
)
def cache_hits(cell: Context) -> Iterator[Finding]:
    """A cached token needs no prefill, so TTFT is that of a shorter prompt."""
    proof = cell.cache
    if cell.load.prefix_cache == "cold" and proof.cached:
        share = proof.cached / max(proof.prompt, 1)
        detail = f"{proof.cached:,} of {proof.prompt:,} prompt tokens ({percent(share)}; limit {MOST_CACHED}) were cached"
        yield Finding("invalid" if share > MOST_CACHED else "suspect", detail, excess=share)


@check(
    meaning="the prefix cache should have been warm",
    when={
        "suspect": "the load has `prefix_cache: warm`, and under {LEAST_WARM} of the prompt tokens that it could reuse came from the cache"
    },
    advice="switch the prefix cache on in the deployment's `options`, or give the KV cache more memory",
    needs=(WARM_COUNTS,),
)
def cache_misses(cell: Context) -> Iterator[Finding]:
    """Engines that share whole blocks of tokens keep the last, incomplete block of a prefix to themselves."""
    facts, proof = cell.record.prompts, cell.cache
    if cell.load.prefix_cache != "warm" or not facts.reusable_tokens or not facts.tokens or not proof.prompt:
        return
    could, did = facts.reusable_tokens / facts.tokens, proof.cached / proof.prompt
    if did < LEAST_WARM * could:
        detail = f"{percent(did)} of the prompt tokens were cached, {percent(could)} could be (limit {LEAST_WARM} of that)"
        yield Finding("suspect", detail, excess=could / max(did, 1e-9))


@check(
    meaning="the KV cache is too small for this load",
    when={"suspect": "the engine preempted any request"},
    advice="give the KV cache more memory in the deployment's `options`, or lower `concurrency`",
    needs=(engine_total("preemptions"),),
)
def preempted(cell: Context) -> Iterator[Finding]:
    """A preempted request loses its KV cache to others and is computed again."""
    if (count := cell.record.counters.totals["preemptions"]) > 0:
        yield Finding("suspect", f"{counted(round(count), 'preemption')}: requests were computed again", excess=count)


@check(
    meaning="the engine's batch was never large enough, so latencies include time in its queue",
    when={"suspect": "requests waited in the engine's queue at every one of at least {FEWEST_READINGS} in the window"},
    advice="raise the deployment's `max_concurrency`, or lower `concurrency` or `rate`",
    needs=(engine_gauge("waiting", FEWEST_READINGS),),
)
def queued(cell: Context) -> Iterator[Finding]:
    """An engine that always has a queue is measured with fewer requests in its batch than the load is named after."""
    waiting = cell.readings.known("waiting")
    if min(waiting) > 0:
        few, many = min(waiting), max(waiting)
        detail = f"{few:,.0f} to {many:,.0f} requests waited in the engine's queue at each of {len(waiting)} readings"
        yield Finding("suspect", detail, excess=many)


@check(
    meaning="the KV cache, not the batch size, limits how many requests run at once",
    when={"suspect": "at any reading the KV cache was at least {FULL} full while requests waited"},
    advice="give the KV cache more memory in the deployment's `options`, or lower `concurrency`",
    needs=(engine_gauge("kv_use"), engine_gauge("waiting")),
)
def kv_full(cell: Context) -> Iterator[Finding]:
    """A full cache that no request waits for has just the right size."""
    if full := sum(use >= FULL and queue > 0 for use, queue in cell.readings.pairs("kv_use", "waiting")):
        readings = len(cell.readings.known("kv_use"))
        detail = f"the KV cache was full at {full} of {readings} readings while requests waited"
        yield Finding("suspect", detail, excess=full / readings)


@check(
    meaning="something between engine and client delays or bundles tokens",
    when={
        "suspect": "the medians of engine and client over at least {FEWEST_TIMED} differ by over {PACE_OFF} and {PACE_OFF_MS} per token, "
        "or by over {FIRST_OFF} and {FIRST_OFF_MS} to the first token (where the engine's queue is known, or a single stream keeps it "
        "empty)"
    },
    advice="connect without a proxy, and check the client lag and cores of this cell",
    needs=(REQUEST_TIMES, ENGINE_TIMES),
)
def timings_disagree(cell: Context) -> Iterator[Finding]:
    """Two clocks: what the engine says of its requests (`engine_ttft`, `engine_tpot`) against what the client saw.

    Engines leave the network, the client and mostly their queue out of the time to the first token.
    """
    if (pace := _pace(cell)) and _apart(*pace, PACE_OFF, PACE_OFF_MS):
        detail = f"the engine reports {pace[0]:.3g} ms per token, the client measured {pace[1]:.3g} ms (limit {PACE_OFF})"
        yield Finding("suspect", detail, excess=pace[1] / max(pace[0], 1e-9))
    if (first := _first_token(cell)) and _apart(*first, FIRST_OFF, FIRST_OFF_MS):
        detail = f"the engine reports {first[0]:.3g} ms to the first token, the client measured {first[1]:.3g} ms (limit {FIRST_OFF})"
        yield Finding("suspect", detail, excess=first[1] / max(first[0], 1e-9))


def _pace(cell: Context) -> tuple[float, float] | None:
    return _medians_ms(engine_tpot(cell.samples), tpot(cell.samples))


def _first_token(cell: Context) -> tuple[float, float] | None:
    queue = server_timings.queue_s(cell.samples)
    alone = not cell.load.open_loop and cell.load.concurrency == 1
    return _medians_ms(engine_ttft(cell.samples) + (np.nan_to_num(queue) if alone else queue), ttft(cell.samples))


def _medians_ms(engine: Floats, client: Floats) -> tuple[float, float] | None:
    """Medians over the requests that both have timed; None where these are too few."""
    both = ~np.isnan(engine) & ~np.isnan(client)
    return (median(engine[both]) * 1e3, median(client[both]) * 1e3) if both.sum() >= FEWEST_TIMED else None


def _apart(engine_ms: float, client_ms: float, share: Threshold, least_ms: Threshold) -> bool:
    return abs(client_ms - engine_ms) > max(least_ms, share * engine_ms)
