"""Changes in series of nights: planted ones, unchanged series, drifts, series that others published, and the parts of the method."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from enginebench.metrics.change_points import FEWEST, cleaned, discoveries, intervals, memory
from enginebench.metrics.level_changes import Drift, LevelChanges, Step, find_changes
from enginebench.metrics.statistics import Floats

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
PUBLISHED = json.loads(Path(__file__).with_name("published_series.json").read_text())


def found(values: Floats | Sequence[float], known: Sequence[int] = (), least: float = 0.03) -> LevelChanges:
    (its,) = find_changes([np.log(np.asarray(values, dtype=float))], [known], [least])
    return its


def nights(n: int, seed: int = 0, noise: float = 0.01) -> Floats:
    return 100 * np.exp(noise * np.random.default_rng(seed).standard_normal(n))


@pytest.mark.parametrize("seed", [0, 10])
def test_19_of_20_planted_changes_are_found_at_the_right_night(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And less than 5 % of 50 unchanged series have a change. `make bench-history` counts over many such matrices."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("history", None)
    import history

    counts = history.count(history.ours, [history.matrix(seed)])
    assert (counts.planted, counts.unchanged) == (20, 50)
    assert counts.right >= 19
    assert counts.false < 0.05 * counts.unchanged


def test_a_night_with_a_record_is_preferred_to_its_neighbour() -> None:
    values = nights(30, seed=3)
    values[15:] *= 0.95
    values[15] = (values[:15].mean() + values[16:].mean()) / 2  # either side might be its own
    (change,) = found(values, known=[15]).changes
    assert isinstance(change, Step)
    assert change.location.at == 15
    (unknown,) = found(values).changes
    assert isinstance(unknown, Step)
    assert unknown.location.low <= 15 <= unknown.location.high


def test_sizes_and_intervals_are_those_of_the_levels() -> None:
    values = nights(60, seed=5)
    values[30:] *= 1.10
    (change,) = found(values).changes
    assert isinstance(change, Step)
    assert change.interval[0] < 0.10 < change.interval[1]
    assert change.relative == pytest.approx(0.10, abs=0.01)
    assert change.p < 1e-4


def test_a_repaired_loss_is_two_changes() -> None:
    values = nights(60, seed=1)
    values[30:40] *= 0.94
    assert [(its.location.at, its.relative < 0) for its in found(values).changes if isinstance(its, Step)] == [(30, True), (40, False)]


@pytest.mark.parametrize("odd", [0.3, 0.9, 1.1, 3.0])
@pytest.mark.parametrize("where", [(0,), (29,), (12,), (5, 20), (14, 15)])
def test_one_or_two_odd_nights_are_no_change(where: Sequence[int], odd: float) -> None:
    values = nights(30, seed=2)
    values[list(where)] *= odd
    its = found(values)
    assert not its.changes
    if len(where) == 1 and 0 < where[0] < 29:
        assert its.outliers == where


def test_a_slope_is_a_drift_and_two_steps_are_steps() -> None:
    n = np.arange(80)
    (drift,) = found(nights(80, seed=1) * (1 + 0.001 * n)).changes
    assert isinstance(drift, Drift)
    assert drift.relative == pytest.approx(0.08, abs=0.02)
    (ramp,) = found(nights(80, seed=2) * (1 + 0.08 * np.clip((n - 30) / 25, 0, 1))).changes
    assert isinstance(ramp, Drift)
    assert abs(ramp.start - 30) <= 6
    assert abs(ramp.end - 55) <= 6
    steps = found(nights(80, seed=3) * (1 + 0.06 * (n >= 25) + 0.06 * (n >= 55))).changes
    assert [its.location.at for its in steps if isinstance(its, Step)] == [25, 55]


def test_what_is_too_small_is_not_said() -> None:
    values = nights(100, seed=4, noise=0.003)
    values[50:] *= 1.02
    assert not found(values).changes
    assert len(found(values, least=0.01).changes) == 1


@pytest.mark.parametrize("values", [[100.0] * 20, [100.0] * 10 + [110.0] * 10, [100.0, 101.0] * 10])
def test_series_without_noise(values: list[float]) -> None:
    assert len(found(values).changes) == (1 if 110.0 in values else 0)


@pytest.mark.parametrize("n", range(FEWEST))
def test_short_series_are_not_judged(n: int) -> None:
    assert found([100.0] * (n // 2) + [200.0] * (n - n // 2)) == LevelChanges()


def test_steady_autocorrelated_series_are_left_alone() -> None:
    """Nights that resemble the one before wander, and look like levels. At most 5 % of 40 series."""
    rng = np.random.default_rng(7)
    series = []
    for _ in range(40):
        values = 0.02 * rng.standard_normal(60)
        for i in range(1, 60):
            values[i] += 0.6 * values[i - 1]
        series.append(values)
    assert sum(bool(its.changes) for its in find_changes(series, [()] * 40, [0.03] * 40)) <= 2


def test_memory_is_that_of_the_noise() -> None:
    rng = np.random.default_rng(1)
    for truth in (0.0, 0.3, 0.6):
        values = rng.standard_normal(400)
        for i in range(1, 400):
            values[i] += truth * values[i - 1]
        values[200:] += 5.0  # a step is no memory
        assert memory([values])[0] == pytest.approx(truth, abs=0.15)


def test_false_discoveries_are_controlled_over_all() -> None:
    """The example of Benjamini and Hochberg (1995), section 4.1: four of fifteen at 5 %."""
    ps = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert discoveries(ps, 0.05) == [True] * 4 + [False] * 11
    assert discoveries(ps[::-1], 0.05) == [False] * 11 + [True] * 4


def test_a_series_too_quiet_to_look_changed_uses_none_of_the_error() -> None:
    ps = [0.02, *[0.9] * 19]
    assert not any(discoveries(ps, 0.1))
    assert discoveries(ps, 0.1, [1.0, *[0.0] * 19]) == [True] + [False] * 19
    assert discoveries(ps, 0.1, [1.0, *[0.003] * 19]) == [True] + [False] * 19


def test_what_is_too_small_to_be_said_is_no_discovery() -> None:
    """It is followed all the same, because it divides its series, if another one is a discovery at that p."""
    ps = [1e-6, 1e-6, 1e-6, 0.03, 0.9, 0.9]
    assert discoveries(ps, 0.1)[3]
    small = [False] * 3 + [True] * 3
    assert not any(discoveries(ps, 0.1, counted=small))
    assert discoveries([*ps, 1e-7], 0.1, counted=[*small, True]) == [True] * 3 + [False] * 3 + [True]


def test_of_many_series_that_do_not_change_few_are_called_changed() -> None:
    """At a rate of 10 %, in at most one of ten such families anything at all is; here noise differs between the series."""
    rng = np.random.default_rng(11)
    families = [[sigma * rng.standard_normal(28) for sigma in rng.uniform(0.005, 0.03, 30)] for _ in range(12)]
    said = [sum(bool(its.changes) for its in find_changes(series, [()] * 30, [0.03] * 30)) for series in families]
    assert sum(map(bool, said)) <= 2
    assert sum(said) <= 3


def test_intervals_cover_a_level_of_a_week() -> None:
    for n in (8, 27, 28, 60, 120):
        spans = intervals(n)
        assert spans[0] == (0, n)
        assert all(0 <= start < end <= n for start, end in spans)
        if n >= 28:
            assert all(any(start <= at and at + 7 <= end and end - start <= 28 for start, end in spans) for at in range(n - 6))


def test_a_single_value_is_pulled_in_and_a_step_is_not() -> None:
    values = np.log(nights(30, seed=1))
    values[10] += 1.0
    values[20:] += 0.5
    clean = cleaned(values)
    assert clean[10] < values[10] - 0.9
    assert clean[20:].mean() - clean[15:20].mean() == pytest.approx(0.5, abs=0.02)


# -- series that others published ----------------------------------------------------------------------------------------


def test_tigerbeetle() -> None:
    """What Otava finds, the outlier, and the slope that its test describes: as a rise after night 95."""
    its = found(PUBLISHED["tigerbeetle"]["values"])
    at = [change.location.at for change in its.changes if isinstance(change, Step)]
    assert {15, 71, 95} <= set(at)
    assert 10 in its.outliers
    assert all(change.relative > 0 for change in its.changes if isinstance(change, Step) and change.location.at > 95)
    assert not [night for night in at if 15 < night < 61 or night > 200]


def test_a_steady_test_of_mongodb() -> None:
    its = found(PUBLISHED["mongodb"]["values"])
    assert not its.changes
    assert its.outliers


def test_well_log() -> None:
    """Every change that four of five people marked between the nights 100 and 450, within a night; nothing that none of them marked."""
    data = PUBLISHED["well_log"]
    marked = sorted(at for each in data["marked"] for at in each if 100 < at < 450)
    agreed = [at for at in set(marked) if sum(abs(at - other) <= 1 for other in marked) >= 4]
    at = [change.location.at for change in found(data["values"]).changes if isinstance(change, Step) and 100 < change.location.at < 450]
    assert len({round(each / 5) for each in agreed}) >= 8
    assert all(min(abs(each - night) for night in at) <= 1 for each in agreed)
    assert sum(min(abs(night - each) for each in marked) > 1 for night in at) <= 1


def test_a_change_is_the_same_whatever_the_unit_and_the_direction() -> None:
    values = nights(40, seed=6)
    values[20:] *= 1.07
    (one,), (scaled,), (turned,) = (found(each).changes for each in (values, 1e-3 * values, 1 / values))
    assert isinstance(one, Step)
    assert isinstance(scaled, Step)
    assert isinstance(turned, Step)
    assert one.location == scaled.location == turned.location
    assert math.isclose(1 + one.relative, 1 / (1 + turned.relative), rel_tol=1e-6)
