"""When the requests of an open loop are due, in seconds from the start of the load, exact under a seed.

A process of rate 1 is stretched to the load's rate: its arrival at s is due when the integral of the rate reaches s.
Poisson and gamma arrivals begin with a gap like any other; constant arrivals begin at 0. Does not know prompts, clocks or servers.
"""

import math
from collections.abc import Iterator
from itertools import islice
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from enginebench.domain import DrawnLoad
from enginebench.domain.loads import RateSegment
from enginebench.workload.draws import stream, uniforms

_NORMAL = NormalDist()
_CHUNK = 4096


def due_times(load: DrawnLoad, count: int) -> npt.NDArray[np.float64]:
    """Due times in s of the first `count` arrivals (conversations count once), never decreasing.

    They depend on the load's arrival fields and its seed, not on any salt, so every engine and every repeat gets the same arrivals.
    """
    left, due = _unit_arrivals(load, count), np.zeros(count)
    for segment in load.segments():
        within = np.minimum(left, segment.arrivals)
        due += _elapsed(segment, within)
        left = left - within
    return due


def _elapsed(segment: RateSegment, arrivals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Time in s from the start of a segment until so many arrivals are expected."""
    first, length_s = segment.first, segment.length_s
    if first == segment.last:
        return np.minimum(arrivals / first, length_s)
    slope = (segment.last - first) / length_s
    # The root of first * t + slope * t^2 / 2 = arrivals, in the form that does not cancel when the slope is small.
    root: npt.NDArray[np.float64] = 2 * arrivals / (first + np.sqrt(np.maximum(first**2 + 2 * slope * arrivals, 0.0)))
    return root


def due_within(load: DrawnLoad, duration_s: float) -> int:
    """How many arrivals of an open loop are due before duration_s has passed."""
    expected = duration_s * max(max(segment.first, segment.last) for segment in load.segments())
    count = 16 + math.ceil(expected + 4 * math.sqrt(expected))
    while (due := due_times(load, count))[-1] < duration_s:
        count *= 2
    return int(np.searchsorted(due, duration_s))


def _unit_arrivals(load: DrawnLoad, count: int) -> npt.NDArray[np.float64]:
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
