"""Percentiles refuse small samples; intervals over repeats are called what they are; no difference is claimed without a test."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from enginebench.metrics.statistics import (
    Comparison,
    Estimate,
    compare,
    estimate,
    percentile,
    percentiles,
    range_coverage,
    rank_test,
    repeats_needed,
    samples_needed,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(("q", "needed"), [(50, 6), (90, 30), (99, 300), (99.9, 3000)])
def test_a_percentile_needs_three_samples_beyond_it(q: float, needed: int) -> None:
    assert samples_needed(q) == needed
    assert percentile(np.arange(needed, dtype=float), q) is not None
    assert percentile(np.arange(needed - 1, dtype=float), q) is None


def test_several_percentiles_at_once_are_those_of_one_at_a_time() -> None:
    values = np.append(np.random.default_rng(0).normal(size=40), np.nan)
    assert percentiles(values, (50, 90, 99)) == [percentile(values, q) for q in (50, 90, 99)]
    assert percentiles(values, (50, 99))[1] is None


def test_undefined_values_do_not_count() -> None:
    assert percentile(np.array([1.0] * 5 + [np.nan] * 100), 50) is None


def test_a_single_repeat_has_no_interval() -> None:
    assert estimate([3.0]) == Estimate(3.0, (3.0,))
    assert estimate([None, 3.0, float("nan")]) == Estimate(3.0, (3.0,))
    assert estimate([]) is None


def test_three_repeats_span_their_range() -> None:
    found = estimate([10.0, 11.0, 13.0])
    assert found == Estimate(11.0, (10.0, 11.0, 13.0), 10.0, 13.0)
    assert (found.n, found.interval) == (3, "range")


def test_an_interval_is_a_bootstrap_only_from_six_repeats() -> None:
    made = [estimate(list(range(n))) for n in (1, 2, 5, 6)]
    assert [found.interval for found in made if found] == [None, "range", "range", "bootstrap"]


def test_the_range_misses_the_median_when_all_repeats_fall_on_one_side() -> None:
    assert [range_coverage(n) for n in (2, 3, 4, 5)] == [0.5, 0.75, 0.875, 0.9375]
    draws = np.random.default_rng(0).normal(size=(20_000, 3))
    held = ((draws.min(axis=1) < 0) & (draws.max(axis=1) > 0)).mean()
    assert held == pytest.approx(range_coverage(3), abs=0.01)


# -- two deployments -----------------------------------------------------------------------------------------------------


def of(*values: float) -> Estimate:
    found = estimate(values)
    assert found is not None
    return found


def test_what_can_be_said_of_two_deployments() -> None:
    assert compare(of(9, 10, 11, 12), of(1, 2, 3, 4)) == Comparison("higher", pytest.approx(2 / 70))
    assert compare(of(10, 11, 12), of(1, 2, 3)) == Comparison("ahead", pytest.approx(0.1))
    assert compare(of(10, 11), of(1, 2)) == Comparison("ahead", pytest.approx(1 / 3))
    assert compare(of(99, 101), of(60, 120)).order == "tied"
    assert compare(of(5, 5, 5, 5), of(5, 5, 5, 5)) == Comparison("tied", 1.0)
    assert compare(of(9), of(1, 2, 3)) == Comparison("unknown")
    assert repeats_needed() == 4


repeats = st.lists(st.integers(0, 6).map(float), min_size=2, max_size=5).map(tuple)


@given(repeats, repeats)
def test_the_rank_test_agrees_with_listing_every_permutation(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    both = (*a, *b)
    ranks = [sum(y < x for y in both) + (sum(y == x for y in both) + 1) / 2 for x in both]
    expected = len(a) * sum(ranks) / len(both)
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(a))]
    extreme = sum(abs(s - expected) >= abs(sum(ranks[: len(a)]) - expected) - 1e-9 for s in sums)
    assert rank_test(a, b) == pytest.approx(extreme / len(sums))
    assert rank_test(a, b) == pytest.approx(rank_test(b, a))


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_identical_engines_are_seldom_called_different(n: int) -> None:
    draws = np.random.default_rng(n).normal(size=(2_000, 2, n))
    wrong = sum(p < 0.05 for p in (rank_test(tuple(a), tuple(b)) for a, b in draws)) / len(draws)
    assert wrong <= 0.05 + 0.01


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20))
def test_an_interval_holds_its_median_and_stays_inside_the_data(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert min(values) <= found.low <= found.value <= found.high <= max(values)


@given(st.lists(st.floats(0, 1e6), min_size=300, max_size=400))
def test_percentiles_are_monotone(values: list[float]) -> None:
    found = [percentile(np.array(values), q) for q in (50, 90, 99)]
    assert found == sorted(found)  # type: ignore[type-var]
