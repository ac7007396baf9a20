"""`repeats: auto` in a run folder: which cells are added, that an interrupted round goes on, and when the budget ends it; no engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from enginebench.analysis.analysis import analyse
from enginebench.analysis.stopping import stopping
from enginebench.domain import Cell, ClosedLoop, Deployment, Sample
from enginebench.domain.repeats import AutoRepeats
from enginebench.errors import UserError
from enginebench.records.cell import CellRecord, Delivery
from enginebench.records.launch import LaunchRecord, Startup
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.runner.auto_repeats import AutoGrowth
from enginebench.runner.folder import open_run_for
from enginebench.runner.growth import Added, Fixed
from enginebench.runner.session import growth_of
from enginebench.scenario import Scenario
from enginebench.scenario.plan import Plan, plan

MS = 1_000_000
FAST, SLOW, SAME = (Deployment(name, "any", "none", "none") for name in ("fast", "slow", "same"))
LOADS = tuple(ClosedLoop(concurrency=c, requests=40) for c in (1, 2))
Speed = Callable[[Cell], float]


def planned(*deployments: Deployment, auto: AutoRepeats | None = None) -> Plan:
    its = tuple(deployments)
    cells = [Cell(each, load, i) for i in range(4) for each in (its if i % 2 == 0 else its[::-1]) for load in LOADS]
    scenario = Scenario("demo", its, (LOADS,) * len(its), ((),) * len(its), None, 4, auto or AutoRepeats())
    return Plan(scenario, tuple(cells))


def measure(run: Run, cells: tuple[Cell, ...], speed: Speed, start_s: float = 2.0) -> None:
    """Store cells whose throughput is in proportion to their speed."""
    for cell in cells:
        made, gap = [], 50 / speed(cell)
        for i in range(40):
            sent = int((1_000 + gap * i) * MS)
            sample = Sample(i, 16, 5, due_ns=sent, sent_ns=sent, headers_ns=sent + MS, end_ns=sent + int(gap * MS), status_code=200)
            sample.event_ns.extend(sent + int(gap * (0.5 + 0.1 * k) * MS) for k in range(5))
            sample.event_tokens.extend([1] * 5)
            sample.event_chars.extend([4] * 5)
            sample.input_tokens, sample.output_tokens, sample.cached_tokens = 16, 5, 0
            made.append(sample)
        launch = LaunchRecord(cell.launch_id, cell.deployment, cell.repeat, "2026-01-01T00:00:00+00:00", Startup(start_s=start_s))
        run.add_launch(launch)
        record = replace(CellRecord.of(cell, "ok"), delivery=Delivery((0, 1)), identity="proven", launch_id=launch.id, wall_s=3.0)
        run.add_cell(record, Samples.collect(made))


def noisy(factors: dict[str, float], noise: float = 0.01) -> Speed:
    def speed(cell: Cell) -> float:
        seed = (cell.repeat, cell.load.concurrency, len(cell.deployment.engine), ord(cell.deployment.engine[-1]))
        return factors[cell.deployment.engine] * float(np.exp(noise * np.random.default_rng(seed).standard_normal()))

    return speed


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[Plan], Run]:
    def open_new(plan: Plan) -> Run:
        with open_run_for(plan, tmp_path, {}, fresh=False, retry_failed=False, say=print, growth=growth_of(plan)) as run:
            return run

    return open_new


def grown(run: Run, growth: AutoGrowth, speed: Speed) -> list[Added]:
    found = []
    while (added := growth.more(run)) is not None:
        found.append(added)
        run.update(run.record.with_cells(cell.id for cell in added.cells))
        measure(run, added.cells, speed)
        assert len(found) < 9
    return found


def auto_growth(plan: Plan) -> AutoGrowth:
    found = growth_of(plan)
    assert isinstance(found, AutoGrowth)
    return found


def test_a_clear_difference_needs_no_more_restarts(begin: Callable[[Plan], Run]) -> None:
    plan = planned(FAST, SLOW)
    run, speed = begin(plan), noisy({"fast": 2.0, "slow": 1.0})
    measure(run, plan.cells, speed)
    assert grown(run, auto_growth(plan), speed) == []
    found = stopping(analyse(run))
    assert found is not None
    assert [(its.restarts, its.decided, its.outcome) for its in found.stops] == [(4, True, "leads")] * 2
    assert found.text == (
        "2 of 2 loads are decided, after 4 restarts; 12 restarts of all would have taken 3.2 min, these took 64 s (33.3 %)"
    )


def test_only_what_can_change_the_answer_is_measured_again(begin: Callable[[Plan], Run]) -> None:
    """Two that are alike within noise, and one that is far behind."""
    plan = planned(FAST, SLOW, SAME, auto=AutoRepeats(6))
    run, speed = begin(plan), noisy({"fast": 1.0, "slow": 0.4, "same": 1.001}, noise=0.012)
    measure(run, plan.cells, speed)
    added = grown(run, auto_growth(plan), speed)
    assert added
    assert {cell.deployment.engine for each in added for cell in each.cells} == {"fast", "same"}
    first = added[0].cells
    assert [cell.repeat for cell in first] == sorted(cell.repeat for cell in first)
    assert {cell.repeat for cell in first} == {4, 5}
    order = [(cell.repeat, cell.deployment.engine) for cell in first]
    assert list(dict.fromkeys(order))[:4] == [(4, "fast"), (4, "same"), (5, "same"), (5, "fast")], "interleaved, in alternating order"
    assert "after 4 restarts" in added[0].why


def test_an_interrupted_round_goes_on_and_a_decided_run_is_complete(begin: Callable[[Plan], Run]) -> None:
    plan = planned(FAST, SAME, auto=AutoRepeats(6))
    run, speed = begin(plan), noisy({"fast": 1.0, "same": 1.001}, noise=0.012)
    measure(run, plan.cells, speed)
    growth = auto_growth(plan)
    added = growth.more(run)
    assert added is not None
    run.update(run.record.with_cells(cell.id for cell in added.cells))
    measure(run, added.cells[:3], speed)
    again = begin(plan)
    assert again.path == run.path, "an undecided run is resumed"
    more = growth.more(again)
    assert more is not None
    assert more.cells == added.cells
    grown(again, growth, speed)
    assert begin(plan).path != run.path, "a complete run is not resumed"


def test_the_budget_ends_it_before_a_round_and_a_larger_one_goes_on(begin: Callable[[Plan], Run]) -> None:
    speed = noisy({"fast": 1.0, "same": 1.001}, noise=0.03)
    plan = planned(FAST, SAME, auto=AutoRepeats(budget_s=70.0))  # 8 starts of 2 s and 16 cells of 3 s are 64 s
    run = begin(plan)
    measure(run, plan.cells, speed)
    assert auto_growth(plan).more(run) is None
    larger = planned(FAST, SAME, auto=AutoRepeats(budget_s=700.0))
    assert begin(larger).path == run.path
    assert auto_growth(larger).more(run) is not None


def test_plans_with_a_fixed_number_do_not_grow_and_have_other_ids() -> None:
    auto = planned(FAST, SAME)
    fixed = replace(auto, scenario=replace(auto.scenario, auto=None))
    assert isinstance(growth_of(fixed), Fixed)
    assert fixed.id != auto.id
    assert replace(auto, scenario=replace(auto.scenario, auto=AutoRepeats(budget_s=9.0))).id == auto.id


def test_a_search_cannot_be_repeated_until_decided() -> None:
    from enginebench.domain import OpenLoop, Search
    from enginebench.engines.registry import discover

    search = Search(OpenLoop(concurrency=0, rate=1.0), "rate", 1.0, 8.0, 0.1)
    scenario = Scenario("demo", (replace(FAST, engine="fake"),), ((),), ((search,),), None, 4, AutoRepeats())
    with pytest.raises(UserError, match="auto does not go with `find`"):
        plan(scenario, discover())
