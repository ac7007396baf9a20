"""A tuning as a run that grows, from its first trial to its result, with cells that are written instead of measured; no engines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import enginebench
import numpy as np
import pytest
from enginebench.analysis.analysis import analyse
from enginebench.analysis.tuning import Tuned, restarts_of, spec_of, tuned_of
from enginebench.domain import Cell, ClosedLoop, Deployment, OpenLoop, Search
from enginebench.errors import UserError
from enginebench.metrics.slo import Slo
from enginebench.records.run_folder import Run
from enginebench.report.tuning import tuning_text
from enginebench.runner.folder import open_run_for
from enginebench.runner.tuning.session import Tuning, goal_of, tuning_of
from enginebench.scenario import Scenario
from enginebench.scenario.plan import Plan

from .test_auto_repeats import Speed, measure

BASE = Deployment("fake", "any", "none", "none")
LOADS = (ClosedLoop(concurrency=2, requests=40),)


def planned(*deployments: Deployment, slo: Slo | None = None) -> Plan:
    its = deployments or (BASE,)
    scenario = Scenario("demo", its, (LOADS,) * len(its), ((),) * len(its), slo)
    return Plan(scenario, tuple(Cell(each, load) for each in its for load in LOADS))


def speed_of(cell: Cell, noise: float = 0.01) -> float:
    """The fake engine as if it were real: 2 ms between tokens are faster, the other options do nothing."""
    seed = int(cell.id[:8], 16)
    factor = {2.0: 1.5, 10.0: 0.5}.get(float(cell.deployment.options.get("itl_ms", 5.0)), 1.0)
    return factor * float(np.exp(noise * np.random.default_rng(seed).standard_normal()))


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[Tuning], Run]:
    def open_new(its: Tuning) -> Run:
        with open_run_for(its.plan, tmp_path, {}, fresh=False, retry_failed=False, say=print, growth=its.growth) as run:
            return run

    return open_new


def grown(run: Run, its: Tuning, speed: Speed, rounds: int = 999) -> list[tuple[Cell, ...]]:
    """Measure what the plan has and what is added; the cells of each round. Every restart takes 2 + 3 seconds."""
    measure(run, tuple(cell for cell in its.plan.cells if not run.has(cell.id)), speed)
    found = []
    for _ in range(rounds):
        if (added := its.growth.more(run)) is None:
            break
        found.append(added.cells)
        run.update(run.record.with_cells(cell.id for cell in added.cells))
        measure(run, tuple(cell for cell in added.cells if not run.has(cell.id)), speed)
        assert len(found) < 200
    return found


def outcome(run: Run) -> Tuned:
    (its,) = tuned_of(analyse(run))
    return its


def test_a_tuning_ends_with_the_default_and_the_best_on_fresh_restarts(begin: Callable[[Tuning], Run]) -> None:
    its = tuning_of(planned(), budget_s=140.0)
    run = begin(its)
    grown(run, its, speed_of)
    found = outcome(run)
    assert found.settings["itl_ms"] == 2.0
    assert (found.verdict, found.default.n, found.tuned.n) == ("better", 4, 4)
    assert found.gain.relative == pytest.approx(0.5, abs=0.04)
    assert found.gain.low < 0.5 < found.gain.high
    assert found.effects[0].name == "itl_ms"
    assert found.effects[0].gain > 1.0
    assert all(each.gain < 0.15 for each in found.effects[1:])
    assert found.spent_s <= 140 + 10
    text = tuning_text(analyse(run))
    assert "surely better" in text
    assert "itl_ms: 2.0" in text


def test_fresh_restarts_have_the_loads_of_the_scenario_and_the_race_has_none_of_them(begin: Callable[[Tuning], Run]) -> None:
    its = tuning_of(planned(), budget_s=140.0)
    run = begin(its)
    rounds = grown(run, its, speed_of)
    spec = spec_of(run.record.scenario)
    assert spec is not None
    (restarts,) = restarts_of(analyse(run), spec)
    fresh = [each for each in restarts if each.fresh]
    assert [each.fresh for each in restarts] == sorted(each.fresh for each in restarts), "they come last"
    order = [each.deployment == BASE for each in fresh]
    assert order == [True, False, False, True] * 2, "interleaved, in alternating order"
    assert {cell.load for cells in rounds for cell in cells} & set(LOADS) == set(LOADS)


def test_it_goes_on_after_an_interruption_as_if_there_had_been_none(begin: Callable[[Tuning], Run], tmp_path: Path) -> None:
    its = tuning_of(planned(), budget_s=120.0)
    run = begin(its)
    grown(run, its, speed_of, rounds=3)
    again = tuning_of(planned(), budget_s=120.0)
    resumed = begin(again)
    assert resumed.path == run.path
    grown(resumed, again, speed_of)
    whole = tuning_of(planned(), budget_s=120.0)
    with open_run_for(whole.plan, tmp_path / "other", {}, fresh=True, retry_failed=False, say=print, growth=whole.growth) as other:
        grown(other, whole, speed_of)
    assert resumed.record.cells == other.record.cells
    assert begin(again).path != run.path, "a complete tuning is not resumed"


def test_deployments_take_turns_and_have_the_same_budget(begin: Callable[[Tuning], Run]) -> None:
    one, two = (replace(BASE, model=name) for name in ("one", "two"))
    its = tuning_of(planned(one, two), budget_s=100.0)
    run = begin(its)
    rounds = grown(run, its, speed_of)
    assert all({cell.deployment.model for cell in cells} == {"one", "two"} for cells in rounds[:5])
    spent = [each.spent_s for each in tuned_of(analyse(run))]
    assert len(spent) == 2
    assert abs(spent[0] - spent[1]) <= 15


def test_where_nothing_matters_nothing_is_called_better(begin: Callable[[Tuning], Run]) -> None:
    its = tuning_of(planned(), budget_s=120.0)
    run = begin(its)
    grown(run, its, lambda cell: speed_of(replace(cell, deployment=BASE), noise=0.005))
    assert outcome(run).verdict in ("equal", "not told apart")


def test_candidates_that_fail_do_not_lead(begin: Callable[[Tuning], Run]) -> None:
    its = tuning_of(planned(), budget_s=100.0)
    run = begin(its)
    measure(run, its.plan.cells, speed_of)
    from enginebench.records.cell import CellRecord

    for _ in itertools.count():
        if (added := its.growth.more(run)) is None:
            break
        run.update(run.record.with_cells(cell.id for cell in added.cells))
        for cell in added.cells:
            if cell.deployment.options.get("itl_ms") == 2.0:
                run.add_cell(CellRecord.of(cell, "failed", "exited"))
            else:
                measure(run, (cell,), speed_of)
    found = outcome(run)
    assert found.failed >= 1
    assert found.settings.get("itl_ms") != 2.0


def test_goals() -> None:
    plan, with_slo = planned(), planned(slo=Slo(ttft_s=0.1))
    assert goal_of(plan, None) == ("output_throughput", True)
    assert goal_of(with_slo, None) == ("goodput", True)
    assert goal_of(plan, "throughput") == ("output_throughput", True)
    assert goal_of(plan, "ttft") == ("ttft_p50", False)
    assert goal_of(plan, "tpot.p99") == ("tpot_p99", False)
    with pytest.raises(UserError, match="--goal ttfd: unknown figure"):
        goal_of(plan, "ttfd")
    with pytest.raises(UserError, match="needs an `slo`"):
        goal_of(plan, "goodput")


def test_what_cannot_be_tuned_is_said() -> None:
    fixed = replace(BASE, options={"itl_ms": 5.0, "tokens_per_event": 1, "close": False})
    with pytest.raises(UserError, match="there is nothing to tune: fake declares no options that the scenario leaves open"):
        tuning_of(planned(fixed), budget_s=60.0)
    search = Search(OpenLoop(concurrency=0, rate=1.0), "rate", 1.0, 8.0, 0.1)
    plan = planned()
    with pytest.raises(UserError, match="a search cannot be tuned for"):
        tuning_of(replace(plan, searches={plan.cells[0].id: search}), budget_s=60.0)
    with pytest.raises(UserError, match="every cell of the scenario is skipped"):
        tuning_of(replace(plan, skipped={plan.cells[0].id: "too large"}), budget_s=60.0)


def test_what_would_be_tried_is_listed() -> None:
    (its,) = enginebench.tunable(planned())
    assert its.text == "18 combinations, of which 0 cannot run or do not fit"
    assert {each.name for each in its.options} == {"itl_ms", "tokens_per_event", "close"}
    assert math.isfinite(its.combinations)
