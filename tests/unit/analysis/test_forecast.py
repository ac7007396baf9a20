"""Restarts end where they will probably not tell: what is predicted, how often it is right, and that nothing is claimed by stopping."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from enginebench.analysis.forecast import LEAST_CHANCE, Side, forecast
from enginebench.analysis.regimes import Field
from enginebench.analysis.sequential import Looks
from enginebench.domain.repeats import AutoRepeats
from enginebench.metrics.statistics import cut

from .result_sets import rows, times

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from sequential import Truth, simulate

AUTO = AutoRepeats()
LEFT = AUTO.looks[1:]


def side(*logs: float) -> Side:
    return Side(tuple(100 * math.exp(each) for each in logs), LEFT)


QUIET = (-0.004, 0.001, 0.003, 0.0)
NOISY = (-0.04, 0.01, 0.03, 0.0)


@pytest.mark.parametrize(
    ("logs", "gap", "low", "high"),
    [(QUIET, 0.0, 0.95, 1.0), (QUIET, 0.2, 0.95, 1.0), (NOISY, 0.0, 0.0, 0.25), (NOISY, 0.3, 0.95, 1.0), (QUIET, math.log(1.03), 0.2, 0.8)],
)
def test_what_is_plain_will_be_decided_and_what_drowns_in_noise_will_not(
    logs: tuple[float, ...], gap: float, low: float, high: float
) -> None:
    """The margin is 3 %: alike and quiet, apart, alike and noisy, far apart and noisy, and just at the margin."""
    found = forecast(side(*(gap + each for each in logs)), [side(*logs)], AUTO.errors[1:], 0.03)
    assert found is not None
    assert low <= found.decided <= high


def test_the_restarts_named_as_needed_make_the_interval_short_enough() -> None:
    """With a standard deviation of 3 % and no difference: half the interval of Hodges and Lehmann at that number is below the margin."""
    random = np.random.default_rng(3)
    a, b = (tuple((0.03 * random.standard_normal(40)).tolist()) for _ in range(2))
    found = forecast(Side(tuple(np.exp(a).tolist()), (48,)), [Side(tuple(np.exp(b).tolist()), (48,))], (0.007,), 0.03)
    assert found is not None
    assert found.needed is not None
    assert 20 < found.needed < 200
    wide = []
    for _ in range(100):
        values = 0.03 * random.standard_normal((2, found.needed))
        differences = np.sort((values[0][:, None] - values[1][None, :]).ravel())
        outside, _ = cut(found.needed, found.needed, 1 - 2 * 0.007)
        wide.append(differences[outside] > -0.03 and differences[-1 - outside] < 0.03)
    assert np.mean(wide) > 0.4, "0.8 if the difference that was seen is the true one"
    assert f"about {found.needed}" in found.text or found.needed > 99


def test_what_cannot_be_predicted_is_none_and_an_impossible_number_is_not_named() -> None:
    assert forecast(side(*QUIET), [side(*QUIET)], (), 0.03) is None
    assert forecast(Side((1.0,), LEFT), [side(*QUIET)], AUTO.errors[1:], 0.03) is None
    assert forecast(Side((0.0, 1.0), LEFT), [side(*QUIET)], AUTO.errors[1:], 0.03) is None
    loud = forecast(side(-0.9, 0.5, -0.5, 0.9), [side(0.91, -0.5, 0.5, -0.89)], AUTO.errors[1:], 0.03)
    assert loud is not None
    assert (loud.needed, loud.text) == (None, "1,000 restarts of each would not tell")


def looks(truth: dict[str, float], restarts: int, *, noise: float, seed: int = 0) -> Looks:
    made = rows({name: times(factor) for name, factor in truth.items()}, restarts=restarts, noise=noise, seed=seed)
    return Looks(Field(list(enumerate(made)), "output_throughput"), AUTO)


def test_a_load_that_drowns_in_noise_is_given_up_with_the_number_that_would_tell() -> None:
    its = looks({"a": 1.0, "b": 1.0}, 4, noise=0.1)
    given_up = [judged for load in its.loads if not (judged := its.judged(load)).contenders and not judged.decided]
    assert 2 * len(given_up) >= len(its.loads), "where the two look far apart by chance, they may still turn out so"
    for judged in given_up:
        assert judged.forecast is not None
        assert judged.forecast.decided < LEAST_CHANCE
        assert judged.regime.outcome == "cannot tell"
        assert judged.regime.why.endswith("restarts of each would tell") or "would not tell" in judged.regime.why


def test_restarts_that_were_measured_count_whatever_was_expected_of_them() -> None:
    """A run of an earlier version, which went on: its answer is that of all its restarts."""
    its = looks({"a": 1.0, "b": 1.0}, 12, noise=0.1)
    assert {its.judged(load).restarts for load in its.loads} == {12}


def test_engines_that_are_equal_within_noise_take_less_than_two_thirds_of_the_fixed_design() -> None:
    """docs/tune.md has the table of `make bench-sequential`."""
    truth = Truth("equal", (1.0, 1.0), 1, 0.03)
    found = [simulate(truth, AUTO, np.random.default_rng((7, seed))) for seed in range(16)]
    assert np.mean([its.cost for its in found]) < 0.67
    assert sum(its.false for its in found) <= 2
