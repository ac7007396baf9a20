"""`repeats: auto`: its looks and errors, false winners and cost on simulated runs, and that what was decided stays decided."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from enginebench.analysis.regimes import Field
from enginebench.analysis.sequential import Looks, until
from enginebench.domain.repeats import ERROR, FIRST_LOOK, MOST, AutoRepeats
from enginebench.metrics.statistics import rank_test

from .result_sets import base, rows, times

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from sequential import Truth, simulate

AUTO = AutoRepeats()
LOADS = 3


@pytest.mark.parametrize("most", range(FIRST_LOOK, MOST + 1))
def test_the_looks_share_five_percent_and_each_can_be_reached(most: int) -> None:
    auto = AutoRepeats(most)
    assert auto.looks[0] == FIRST_LOOK
    assert auto.looks[-1] == most
    assert list(auto.looks) == sorted(set(auto.looks))
    assert math.isclose(sum(auto.errors), ERROR)
    for restarts, error in zip(auto.looks, auto.errors, strict=True):
        assert 2 / math.comb(2 * restarts, restarts) < error, "not even complete separation would be enough"


def test_one_load_stopped_at_any_look_has_an_error_below_five_percent() -> None:
    """The rank test does not depend on the distribution, so uniform values stand for all: 2,000 pairs without a difference."""
    rng = np.random.default_rng(1)
    false = 0
    for a, b in rng.random((2000, 2, AUTO.most)):
        false += any(
            rank_test(tuple(a[:n]), tuple(b[:n])) < error for n, error in zip(AUTO.looks[:2], AUTO.errors[:2], strict=True)
        )  # fmt: skip
    assert false / 2000 < sum(AUTO.errors[:2]) + 3 * math.sqrt(0.034 * 0.966 / 2000)


@pytest.mark.parametrize("engines", [2, 3])
def test_without_a_difference_fewer_than_five_percent_of_runs_name_a_winner(engines: int) -> None:
    """Few runs here; `make bench-sequential` has 1,000 of each kind, and docs/tune.md its table."""
    truth = Truth("equal", (1.0,) * engines, LOADS, 0.03)
    found = [simulate(truth, AUTO, np.random.default_rng((engines, seed))) for seed in range(60 // engines)]
    assert sum(its.false for its in found) / len(found) < ERROR


def test_a_clear_difference_is_found_for_a_third_of_the_fixed_design() -> None:
    truth = Truth("clear", (1.3, 1.0), LOADS, 0.02)
    found = [simulate(truth, AUTO, np.random.default_rng(seed)) for seed in range(40)]
    assert not any(its.false for its in found)
    assert sum(its.right for its in found) >= 0.95 * LOADS * len(found)
    assert np.mean([its.cost for its in found]) < 0.36


def looks(truth: dict[str, float], restarts: int, *, noise: float = 0.02, seed: int = 0) -> Looks:
    made = rows({name: times(factor) for name, factor in truth.items()}, restarts=restarts, noise=noise, seed=seed)
    return Looks(Field(list(enumerate(made)), "output_throughput"), AUTO)


def test_an_outcome_is_that_of_the_first_look_at_which_it_was_sure() -> None:
    few, many = looks({"a": 1.3, "b": 1.0}, 4), looks({"a": 1.3, "b": 1.0}, 12)
    for load in few.loads:
        first, last = few.judged(load), many.judged(load)
        assert (first.decided, first.restarts, first.regime.outcome) == (True, 4, "leads")
        assert last.regime.best is not None
        assert last.restarts == (4 if first.regime.best is not None else 12)
        assert last.regime.leaders == first.regime.leaders


def test_who_is_surely_behind_is_measured_no_more_and_stays_behind() -> None:
    its = looks({"a": 1.0, "b": 1.001, "slow": 0.5}, 4, noise=0.03)
    load = its.loads[0]
    judged = its.judged(load)
    assert not judged.decided
    assert "slow" not in judged.contenders
    more = looks({"a": 1.0, "b": 1.001, "slow": 0.5}, 12, noise=0.03)
    kept = [(i, until(row, 4) if row.name == "slow" else row) for i, row in more.field.rows]
    later = Looks(Field(kept, "output_throughput"), AUTO).judged(load)
    (slow,) = (each for each in later.regime.standings if each.deployment == "slow")
    assert slow.relation == "behind"
    assert slow.share is not None
    assert 0.4 < slow.share < 0.6


def test_rows_of_earlier_restarts() -> None:
    (row, *_) = rows({"a": base}, restarts=6)
    assert [cell.record.repeat for cell in until(row, 4).cells] == [0, 1, 2, 3]
    assert until(row, 4).figures["output_throughput"] != row.figures["output_throughput"]
