"""Loads as a sum type: the flat form chooses the kind, each kind says its level, and what one kind adds does not show in another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enginebench.domain import (
    KINDS,
    Cell,
    ClosedLoop,
    Deployment,
    Load,
    OpenLoop,
    Phase,
    SteppedLoop,
    TraceReplay,
    canonical,
    kind_of,
    load_fields,
    plain,
)
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.records.schema import read_load
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import plan
from enginebench.workload import make_prompts, natural_count
from enginebench.workload.arrivals import due_times

KEPT = Path(__file__).parents[2] / "kept"
STEPPED = SteppedLoop(steps="2@30, 8@20, 0.5@10", requests=0)
LOADS: Sequence[Load] = (
    ClosedLoop(concurrency=3, ramp_s=2, turns=2, think_s=1),
    OpenLoop(rate=2.5, rate_to=5, concurrency=8),
    OpenLoop(rate=2.5, arrivals="gamma", burstiness=0.5),
    TraceReplay(trace="data/azure.csv", time_scale=0.5, requests=0),
    STEPPED,
)


def load_of(**fields: Any) -> Load:
    return kind_of(fields)(**fields)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: type(load).__name__)
def test_a_load_is_read_back_from_its_flat_json(load: Load) -> None:
    assert read_load(json.loads(json.dumps(plain(load)))) == load
    assert canonical(read_load(plain(load))) == canonical(load)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: type(load).__name__)
def test_a_load_can_have_another_level(load: Load) -> None:
    other = load.at_level(2 * load.level)
    assert type(other) is type(load)
    assert other.level == pytest.approx(2 * load.level)
    assert other.level_text != load.level_text
    assert other.without_level() == load.without_level()
    assert {name for name in load_fields() if other.value(name) != load.value(name)} <= set(load.level_fields)


def test_the_kind_of_a_load_follows_from_its_fields() -> None:
    assert [type(load_of(**fields)) for fields in ({}, {"rate": 1.0}, {"trace": "x"}, {"steps": "1@2"})] == KINDS
    with pytest.raises(TypeError):
        load_of(rate=1.0, ramp_s=2.0)
    with pytest.raises(TypeError):
        Load()  # type: ignore[abstract]


def test_an_open_loop_has_no_limit_unless_one_is_set_and_its_canonical_form_says_so() -> None:
    assert (OpenLoop(rate=1).limit, OpenLoop(rate=1, concurrency=1).limit, ClosedLoop().limit) == (0, 1, None)
    assert (OpenLoop(rate=1).streams, ClosedLoop(concurrency=4).streams) == (None, 4)
    assert canonical(OpenLoop(rate=1)) == {"concurrency": 0, "rate": 1}
    assert canonical(OpenLoop(rate=1, concurrency=1)) == {"rate": 1}


def test_a_kind_that_is_added_later_changes_no_record_of_another_kind() -> None:
    kept = json.loads((KEPT / "schema-1" / "cells" / "5305a707945a.json").read_text())["load"]
    assert plain(read_load(kept)) == ClosedLoop().stored() | kept
    assert set(STEPPED.stored()) - set(ClosedLoop().stored()) == {"steps"}


@pytest.mark.parametrize("data", [None, "closed", {"concurrency": "many"}, {"steps": "soon"}, {"rate": "fast"}])
def test_a_stored_load_that_cannot_be_read_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_load(data)


def test_a_rate_that_stays_does_not_rise() -> None:
    assert OpenLoop(rate=10, rate_to=10) == OpenLoop(rate=10)
    assert OpenLoop(rate=10, rate_to=10).change == ""


def test_the_load_generators_processes_do_not_import_pydantic() -> None:
    code = "import sys, enginebench.domain, enginebench.loadgen; assert not any(name.startswith('pydantic') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- steps ---------------------------------------------------------------------------------------------------------------


def test_each_step_is_a_phase() -> None:
    assert STEPPED.phases() == (
        Phase(0, "2 req/s", 2.0, 0.0, 30.0),
        Phase(1, "8 req/s", 8.0, 30.0, 50.0),
        Phase(2, "0.5 req/s", 0.5, 50.0, 60.0),
    )
    assert (STEPPED.duration_s, STEPPED.level) == (60.0, 8.0)
    assert STEPPED.mean_rate == pytest.approx(225 / 60)
    assert STEPPED.level_text == "2 req/s for 30 s, 8 for 20 s, 0.5 for 10 s"
    assert SteppedLoop(steps=" 2@30,8@ 20,  0.50@10", requests=0) == STEPPED
    assert OpenLoop(rate=2, rate_to=4).phases() == (Phase(0, "2 to 4 req/s", 2, 0.0, None),)


def test_constant_steps_are_due_exactly() -> None:
    due = due_times(SteppedLoop(steps="2@3, 4@1, 0.5@4", arrivals="constant"), 14)
    assert due.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.25, 3.5, 3.75, 4, 6, 8, 10]


@pytest.mark.parametrize("arrivals", ["poisson", "gamma"])
def test_every_step_has_its_rate_and_the_same_seed_the_same_arrivals(arrivals: str) -> None:
    load = load_of(steps="20@50, 80@50, 5@100", arrivals=arrivals, burstiness=0.5, requests=0)
    assert isinstance(load, SteppedLoop)
    due = due_times(load, natural_count(load, Path()) or 0)
    assert (np.diff(due) >= 0).all()
    assert due[-1] < 200
    for phase in load.phases():
        assert phase.end_s is not None
        counted = ((due >= phase.start_s) & (due < phase.end_s)).sum() / (phase.end_s - phase.start_s)
        assert counted == pytest.approx(phase.level, rel=0.15)
    assert (due_times(load, 500) == due[:500]).all()


def test_one_step_is_an_open_loop_at_that_rate() -> None:
    stepped, steady = SteppedLoop(steps="3@20", requests=0, seed=4), OpenLoop(rate=3, duration_s=20, requests=0, seed=4)
    assert natural_count(stepped, Path()) == natural_count(steady, Path())
    assert [prompt.due_s for prompt in make_prompts(None, stepped, 40, salt="")] == [
        prompt.due_s for prompt in make_prompts(None, steady, 40, salt="")
    ]
    assert not stepped.change


HEAD = "name: s\ndeployments: [{engine: fake, model: any, precision: none}]\nloads:\n"


def planned(tmp_path: Path, written: str) -> Sequence[Cell]:
    file = tmp_path / "s.yaml"
    file.write_text(f"{HEAD}  - {{{written}}}\n")
    registry = discover()
    return plan(load_scenario(file, registry), registry).cells


def test_steps_can_be_written_swept_and_told_apart(tmp_path: Path) -> None:
    cells = planned(tmp_path, "steps: ['2@30, 8@30', '4@60'], arrivals: [poisson, constant], concurrency: 16")
    assert [(cell.load.value("steps"), cell.load.value("arrivals")) for cell in cells] == [
        ("2@30, 8@30", "poisson"), ("2@30, 8@30", "constant"), ("4@60", "poisson"), ("4@60", "constant"),
    ]  # fmt: skip
    first = cells[0].load
    assert (first.requests, first.warmup_requests, first.duration_s, first.limit) == (0, 16, 60.0, 16)
    assert Cell(Deployment("fake", "any", "none", "any", max_context=192, max_concurrency=16), first).id == cells[0].id


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("steps: ['4@30', '2@30, 8']", "s.yaml:4: loads[0].steps[1]: '8' is not a step RATE@SECONDS\n  write steps: '2@30, 8@30, 2@60'"),
        ("steps: '0@30'", "loads[0].steps: '0@30': rate and seconds must be above 0"),
        ("steps: '4@30', duration_s: 60", "loads[0].duration_s: does not go with `steps`: the steps say how long the load lasts"),
        ("steps: '4@30', rate: 2", "loads[0].rate: does not go with `steps`: `steps` says when requests are sent"),
        ("steps: '4@30', ramp_s: 2", "loads[0].ramp_s: does not go with `steps`"),
        ("steps: '0.001@30', arrivals: poisson", "loads[0].steps: no request is due within 30 s"),
    ],
)
def test_steps_that_make_no_sense_are_refused_at_their_place(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        planned(tmp_path, written)
    assert message in str(error.value)
