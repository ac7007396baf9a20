"""Intervals over windows contain the truth as often as they say, McNemar's test has its textbook value, and a merged KL is a bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from enginebench.metrics.divergence import agreed, kl_of_top, same_best, stretch
from enginebench.metrics.paired import Mean, mcnemar, mean, student
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (7, 2.365), (15, 2.131), (99, 1.984)])
def test_the_quantiles_of_t_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, abs=3e-3)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_the_interval_contains_the_true_mean_in_about_95_of_100_cases(n: int) -> None:
    """Of 400 draws; 92 % is three standard errors below."""
    random = np.random.default_rng(n)
    hits = 0
    for _ in range(400):
        found = mean(random.normal(0.02, 0.01, n).tolist())
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.02 <= found.high
    assert hits / 400 >= 0.92


def test_a_single_window_has_no_interval_and_logarithms_become_factors() -> None:
    assert mean([]) is None
    assert mean([0.5]) == Mean(0.5, 1)
    found = mean([math.log(1.02)] * 4)
    assert found is not None
    increase = found.exp(less=1.0)
    assert (increase.value, increase.low, increase.high) == pytest.approx((0.02, 0.02, 0.02))


def test_mcnemar_counts_only_the_documents_on_which_they_differ() -> None:
    """1 to 9: 2 * (1 + 10) / 2**10, the exact binomial test."""
    a, b = [1] * 9 + [0] + [1] * 50, [0] * 9 + [1] + [1] * 50
    assert mcnemar(a, b) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(a, a) == 1
    assert mcnemar([1, 0], [0, 1]) == 1


@given(st.integers(0, 1000), st.integers(2, 12))
def test_the_kl_of_the_top_tokens_is_a_lower_bound_of_the_whole(seed: int, top: int) -> None:
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.full(30, 0.3)), random.dirichlet(np.full(30, 0.3))
    p, q = (np.maximum(its, 1e-6) / np.maximum(its, 1e-6).sum() for its in (p, q))
    whole = float(np.sum(p * np.log(p / q)))
    tops = [{int(i): float(np.log(its[i])) for i in np.argsort(-its)[:top]} for its in (p, q)]
    assert 0 <= kl_of_top(*tops) <= whole + 1e-9
    assert kl_of_top(tops[0], tops[0]) == pytest.approx(0, abs=1e-12)


def test_all_tokens_give_the_whole_kl() -> None:
    p, q = {1: math.log(0.9), 2: math.log(0.1)}, {1: math.log(0.5), 2: math.log(0.5)}
    assert kl_of_top(p, q) == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5), rel=1e-6)


def test_agreement_ends_at_the_first_token_that_differs() -> None:
    assert (agreed((1, 2, 3), (1, 2, 4)), agreed((1, 2), (1, 2, 3)), agreed((), (1,)), agreed((1,), (2,))) == (2, 2, 0, 0)


def test_tokens_that_only_one_reports_are_not_more_probable_to_the_other_than_its_last() -> None:
    """Ten tokens of 9 % each in one, ten others of 9 % each in the other: each gives the other's at most 10 %, together."""
    p, q = ({first + i: math.log(0.09) for i in range(10)} for first in (0, 100))
    least = 0.9 * math.log(0.9 / 0.1)
    assert kl_of_top(p, q) > 0.7 * least
    assert kl_of_top({1: math.log(0.9)}, {2: math.log(0.9)}) > 0.5


def test_equal_logarithms_are_equally_probable() -> None:
    assert same_best({1: -0.5, 2: -0.5}, {2: -0.4, 1: -0.9})
    assert same_best({1: -0.5, 2: -0.50001}, {2: -0.4})
    assert not same_best({1: -0.5, 2: -0.6}, {2: -0.4, 1: -0.9})


@pytest.mark.parametrize("factor", [1 / math.log(10), 1.0, 1 / math.log(2), 1 / 0.7])
def test_the_unit_of_logarithms_is_the_slope(factor: float) -> None:
    random = np.random.default_rng(0)
    places = [dict(enumerate(np.log(random.dirichlet(np.full(10, 0.5)) + 1e-6).tolist())) for _ in range(20)]
    found = stretch([(place, {token: factor * value for token, value in place.items()}) for place in places])
    assert found == pytest.approx((factor, 1.0))
    assert stretch([(places[0], {1: -0.3})]) is None
