"""Percentiles refuse small samples; intervals are taken over repeats and always carry n."""

from __future__ import annotations

import numpy as np
import pytest
from enginebench.statistics import Estimate, estimate, percentile, samples_needed
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(("q", "needed"), [(50, 6), (90, 30), (99, 300), (99.9, 3000)])
def test_a_percentile_needs_three_samples_beyond_it(q: float, needed: int) -> None:
    assert samples_needed(q) == needed
    assert percentile(np.arange(needed, dtype=float), q) is not None
    assert percentile(np.arange(needed - 1, dtype=float), q) is None


def test_undefined_values_do_not_count() -> None:
    assert percentile(np.array([1.0] * 5 + [np.nan] * 100), 50) is None


def test_a_single_repeat_has_no_interval() -> None:
    assert estimate([3.0]) == Estimate(3.0, 1)
    assert estimate([None, 3.0, float("nan")]) == Estimate(3.0, 1)
    assert estimate([]) is None


def test_three_repeats_span_their_range() -> None:
    found = estimate([10.0, 11.0, 13.0])
    assert found == Estimate(11.0, 3, 10.0, 13.0)


def test_no_interval_means_no_detectable_difference() -> None:
    assert Estimate(1.0, 1).overlaps(Estimate(9.0, 1))
    assert not Estimate(1.0, 3, 0.9, 1.1).overlaps(Estimate(2.0, 3, 1.9, 2.1))


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
