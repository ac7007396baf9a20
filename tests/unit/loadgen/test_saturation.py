"""Telling a queue that grows without bound from one that fills, wanders or follows a ramp: on simulated queues."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections.abc import Callable

import pytest
from enginebench.loadgen.saturation import MIN_ARRIVALS, MIN_S, SaturationWatch

STEP_S = 0.25


def watched(rate: Callable[[float], float], servers: int, service_s: float, length_s: float, seed: int) -> tuple[float, str] | None:
    """When, and with which words, the watch ends Poisson arrivals at a first-come first-served queue; None if it never does."""
    rng = random.Random(seed)
    free = [0.0] * servers
    arrivals: list[float] = []
    ends: list[float] = []
    now = 0.0
    while now < length_s:
        now += rng.expovariate(rate(now))
        begins = max(now, heapq.heappop(free))
        heapq.heappush(free, begins + service_s * rng.uniform(0.7, 1.3))
        arrivals.append(now)
        ends.append(begins + service_s)
    ends.sort()
    watch = SaturationWatch()
    arrived = ended = 0
    for tick in range(1, int(length_s / STEP_S)):
        at = tick * STEP_S
        while arrived < len(arrivals) and arrivals[arrived] <= at:
            arrived += 1
        while ended < len(ends) and ends[ended] <= at:
            ended += 1
        if verdict := watch.observe(at, arrived, ended):
            return at, verdict
    return None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.5, 0.85])
def test_a_server_that_keeps_up_is_left_alone(share: float, seed: int) -> None:
    """20 servers of 1 s: up to 20 requests/s."""
    assert watched(lambda _: 20 * share, 20, 1.0, 60, seed) is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("share", "within_s"), [(1.5, 20), (3.0, 10)])
def test_a_server_that_cannot_is_found_out(share: float, within_s: float, seed: int) -> None:
    found = watched(lambda _: 20 * share, 20, 1.0, 60, seed)
    assert found is not None
    at, verdict = found
    assert MIN_S <= at <= within_s
    assert "the queue grew from" in verdict


def unqueued(gap: Callable[[random.Random], float], latency: Callable[[random.Random], float], dispersion: float, seed: int) -> bool:
    """Whether the watch is fooled by a server of any size, where no request ever waits."""
    rng = random.Random(seed)
    now, arrivals, ends = 0.0, [], []
    while now < 60:
        now += gap(rng)
        arrivals.append(now)
        ends.append(now + latency(rng))
    ends.sort()
    watch = SaturationWatch(dispersion)
    ticks = [tick * STEP_S for tick in range(1, int(60 / STEP_S))]
    return any(watch.observe(at, bisect_right(arrivals, at), bisect_right(ends, at)) for at in ticks)


@pytest.mark.parametrize(
    ("gap", "latency", "dispersion"),
    [
        pytest.param(lambda r: r.expovariate(20), lambda r: r.uniform(0.2, 10), 1.0, id="latencies from short to long"),
        pytest.param(lambda r: r.gammavariate(0.1, 1 / 2), lambda r: r.uniform(1, 1), 10.0, id="bursts"),
        pytest.param(lambda r: r.expovariate(20), lambda r: r.lognormvariate(0.5, 1.0), 1.0, id="a long tail"),
        pytest.param(lambda r: r.uniform(0.02, 0.02), lambda r: r.uniform(3, 4), 0.0, id="constant rate, slow answers"),
    ],
)
def test_a_server_without_a_queue_is_never_suspected(
    gap: Callable[[random.Random], float], latency: Callable[[random.Random], float], dispersion: float
) -> None:
    assert sum(unqueued(gap, latency, dispersion, seed) for seed in range(50)) <= 1


def test_the_first_answers_are_waited_for() -> None:
    """All of the first requests are in flight while the first one runs; that is no queue."""
    assert watched(lambda _: 20, 1000, 10.0, 25, 0) is None


def test_a_few_requests_prove_nothing() -> None:
    watch = SaturationWatch()
    verdicts = [watch.observe(i / 2, i, 1) for i in range(1, MIN_ARRIVALS)]
    assert verdicts == [None] * (MIN_ARRIVALS - 1)
