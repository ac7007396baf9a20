"""Large sweeps: refused before they are built, or planned without doing for each deployment what thousands of them share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from enginebench.errors import UserError
from enginebench.report.plan import plan_to_text
from enginebench.scenario.plan import Plan
from enginebench.scenario.planning import plan as plan_scenario


def timed(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def write(folder: Path, options: dict[str, int], loads: int = 1, rest: str = "") -> Path:
    swept = json.dumps({name: list(range(1, 1 + count)) for name, count in options.items()})
    file = folder / "s.yaml"
    file.write_text(
        "name: big\nmodels: {m: {random_weights: {}}}\n"
        f"deployments:\n  - {{engine: llamacpp, model: m, precision: f16, max_concurrency: {loads}, {rest}options: {swept}}}\n"
        f"loads:\n  - {{concurrency: {list(range(1, 1 + loads))}, requests: 64}}\n"
    )
    return file


@pytest.fixture(autouse=True)
def warm(tmp_path: Path) -> None:
    """Import physics and read the adapter outside the measured time."""
    plan_to_text(plan_scenario(write(tmp_path, {"threads": 1}), hardware="h100"))


def test_a_sweep_of_220_000_deployments_is_refused_before_it_is_built(tmp_path: Path) -> None:
    def refused() -> None:
        with pytest.raises(UserError, match="220,000 cells, more than 200,000"):
            plan_scenario(write(tmp_path, {"threads": 100, "batch": 100, "ubatch": 22}))

    assert timed(refused) < 0.5


@pytest.mark.parametrize(("options", "loads"), [({"threads": 100, "batch": 90}, 1), ({"threads": 15, "batch": 10}, 60)])
def test_9_000_cells_are_planned_and_shown_in_a_second(tmp_path: Path, options: dict[str, int], loads: int) -> None:
    made: list[Plan] = []

    def plan() -> None:
        made.append(plan_scenario(write(tmp_path, options, loads), hardware="h100"))
        plan_to_text(made[0], ())

    assert timed(plan) < 2.0, "0.5 s on a machine that does nothing else"
    assert len(made[0].cells) == 9_000


def test_ids_of_skipped_cells_cost_little(tmp_path: Path) -> None:
    assert timed(lambda: plan_scenario(write(tmp_path, {"threads": 100, "batch": 90}, rest="pp: 2, tp: 2, "))) < 3.0
