"""When the requests of an open loop are due, in seconds from the start of the load, exact under a seed.

A process of rate 1 is stretched to the wanted rate: an arrival at s of the first is due when the integral of the rate reaches s.
Poisson and gamma arrivals begin with a gap like every other; constant ones begin at 0. Knows no prompts, no clock, no server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from enginebench.domain import Load
from enginebench.workload.draws import stream, uniforms

_NORMAL = NormalDist()
_CHUNK = 4096


def due_times(load: Load, count: int) -> npt.NDArray[np.float64]:
    """Due times in s of the first `count` arrivals (conversations count once), never decreasing.

    They depend on the load's arrival fields and its seed, not on any salt: every engine and every repeat meets the same arrivals.
    A rate that changes does so over duration_s or, without it, for as long as `requests` need on average; then it stays.
    """
    if load.rate is None:
        raise ValueError("a closed loop has no due times")
    arrivals = _unit_arrivals(load, count)
    first, last = load.rate, load.rate if load.rate_to is None else load.rate_to
    if first == last:
        return arrivals / first
    span = load.duration_s or math.ceil(load.requests / load.turns) / ((first + last) / 2)
    slope = (last - first) / span
    within = np.minimum(arrivals, (first + last) / 2 * span)
    # The root of first * t + slope * t^2 / 2 = s, in the form that does not cancel when the slope is small.
    ramp = 2 * within / (first + np.sqrt(np.maximum(first**2 + 2 * slope * within, 0.0)))
    due: npt.NDArray[np.float64] = ramp + (arrivals - within) / last
    return due


def due_within(load: Load, duration_s: float) -> int:
    """How many arrivals of an open loop with a rate are due before duration_s has passed."""
    assert load.rate is not None  # noqa: S101  # as for due_times
    expected = duration_s * max(load.rate, load.rate_to or 0.0)
    count = 16 + math.ceil(expected + 4 * math.sqrt(expected))
    while (due := due_times(load, count))[-1] < duration_s:
        count *= 2
    return int(np.searchsorted(due, duration_s))


def _unit_arrivals(load: Load, count: int) -> npt.NDArray[np.float64]:
    """Arrivals of a process with one arrival per unit of time on average."""
    if load.arrivals == "constant":
        return np.arange(count, dtype=np.float64)
    bits = stream(load.seed, "arrivals")
    if load.arrivals == "poisson":
        return np.cumsum(-np.log(uniforms(bits, count)))
    gaps = np.fromiter(islice(_gamma(load.burstiness, bits), count), np.float64, count)
    return np.cumsum(gaps / load.burstiness)


def _gamma(shape: float, bits: np.random.PCG64) -> Iterator[float]:
    """Gamma variates of this shape and scale 1.

    Marsaglia and Tsang, "A simple method for generating gamma variables" (2000): for a shape below 1, one of shape + 1 times
    a uniform number to the power of 1 / shape.
    """
    numbers = _endless(bits)
    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        score, u = _NORMAL.inv_cdf(next(numbers)), next(numbers)
        cube = (1 + c * score) ** 3
        if cube > 0 and math.log(u) < score**2 / 2 + d * (1 - cube + math.log(cube)):
            yield d * cube if shape >= 1 else d * cube * next(numbers) ** (1 / shape)


def _endless(bits: np.random.PCG64) -> Iterator[float]:
    while True:
        yield from uniforms(bits, _CHUNK).tolist()
