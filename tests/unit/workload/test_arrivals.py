"""Due times: never decreasing, of the rate asked for, the same under a seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from enginebench.domain import DrawnLoad, OpenLoop
from enginebench.workload import natural_count
from enginebench.workload.arrivals import due_times
from hypothesis import given
from hypothesis import strategies as st

Process = Literal["poisson", "gamma", "constant"]
PROCESSES: tuple[Process, ...] = ("poisson", "gamma", "constant")

rates = st.floats(0.01, 1000)
loads = st.builds(
    OpenLoop,
    rate=rates,
    rate_to=st.none() | rates,
    arrivals=st.sampled_from(PROCESSES),
    burstiness=st.floats(0.1, 5),
    duration_s=st.none() | st.floats(0.1, 100),
    requests=st.integers(1, 50),
    turns=st.integers(1, 3),
    seed=st.integers(0, 5),
)


@given(loads, st.integers(1, 60), st.integers(0, 30))
def test_due_times_never_decrease_and_depend_on_the_load_alone(load: DrawnLoad, count: int, more: int) -> None:
    due = due_times(load, count)
    assert len(due) == count
    assert np.isfinite(due).all()
    assert due[0] >= 0
    assert (np.diff(due) >= 0).all()
    assert (due_times(load, count + more)[:count] == due).all()
    assert load.arrivals == "constant" or (due_times(replace(load, seed=load.seed + 1), count) != due).any()


@pytest.mark.parametrize(("process", "burstiness"), [("poisson", 1.0), ("gamma", 1.0), ("gamma", 0.3), ("gamma", 4.0), ("constant", 1.0)])
def test_the_rate_and_the_variation_of_the_gaps_are_those_asked_for(process: Process, burstiness: float) -> None:
    gaps = np.diff(due_times(OpenLoop(rate=5.0, arrivals=process, burstiness=burstiness), 20_000))
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    variation = {"poisson": 1.0, "gamma": burstiness**-0.5, "constant": 0.0}[process]
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.05, abs=1e-9)


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0])
def test_gamma_gaps_have_the_gamma_distribution(shape: float) -> None:
    """By shares of known distribution functions: chi-squared of one degree, exponential, Erlang of two."""
    gaps = np.diff(due_times(OpenLoop(rate=1.0, arrivals="gamma", burstiness=shape), 20_000)) * shape
    below_one = {0.5: 0.8427, 1.0: 1 - np.exp(-1), 2.0: 1 - 2 * np.exp(-1)}[shape]
    assert (gaps < 1).mean() == pytest.approx(below_one, abs=0.012)


def test_constant_means_constant() -> None:
    assert due_times(OpenLoop(rate=8.0, arrivals="constant"), 5).tolist() == [0.0, 0.125, 0.25, 0.375, 0.5]
    assert due_times(OpenLoop(rate=3.0, arrivals="constant"), 1000)[999] == 999 / 3


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("first", "last"), [(1.0, 9.0), (9.0, 1.0), (0.001, 10.0)])
def test_a_ramp_has_the_rate_it_should_at_every_moment(process: Process, first: float, last: float) -> None:
    load = OpenLoop(rate=first, rate_to=last, arrivals=process, duration_s=1000.0)
    due = due_times(load, natural_count(replace(load, requests=0), Path()) or 0)
    for start in range(0, 1000, 250):
        middle = first + (last - first) * (start + 125) / 1000
        counted = ((due >= start) & (due < start + 250)).sum()
        assert counted == pytest.approx(250 * middle, rel=0.12)


def test_a_ramp_over_a_number_of_requests_ends_with_them_and_then_keeps_its_rate() -> None:
    load = OpenLoop(rate=2.0, rate_to=6.0, arrivals="constant", requests=400)
    due = due_times(load, 500)
    assert due[400] == pytest.approx(100)  # 400 requests at 4/s on average
    assert np.diff(due[400:]) == pytest.approx(np.full(99, 1 / 6))
    assert 1 / np.diff(due[:2]) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize(
    "fields", [{}, {"arrivals": "constant"}, {"arrivals": "gamma", "burstiness": 0.05}, {"rate_to": 40.0}, {"rate": 40.0, "rate_to": 2.0}]
)
def test_the_requests_due_within_a_duration_are_counted_as_they_will_be_sent(fields: dict[str, Any]) -> None:
    load = OpenLoop(**{"rate": 20.0, "duration_s": 30.0, "requests": 0} | fields)
    count = natural_count(load, Path())
    assert count is not None
    assert due_times(load, count)[-1] < 30 <= due_times(load, count + 1)[-1]
