"""What is stored comes back the same; what is damaged or newer is refused with a sentence."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from enginebench.adapter import Difference, Install, Launch, Member
from enginebench.domain import Cell, ClosedLoop, Deployment, Sample, Search, plain
from enginebench.errors import UserError
from enginebench.records.cell import CellRecord, CellTraits, ClientFacts, Delivery, EngineCounters, PromptFacts
from enginebench.records.counters import CounterSeries
from enginebench.records.launch import Configuration, LaunchRecord, Startup
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run, find_runs, new_run_path, open_run
from enginebench.records.samples import Samples
from enginebench.records.schema import SCHEMA
from enginebench.records.subject import Subject
from hypothesis import given, settings
from hypothesis import strategies as st

CELL = Cell(Deployment("fake", "m", "none", "m", options={"a": [1, "x", None], "b": 2.5}), ClosedLoop(concurrency=3), 1)


def record(**changes: object) -> CellRecord:
    return replace(CellRecord.of(CELL, "ok"), **changes)


def new_run(path: Path, name: str = "demo") -> Run:
    return Run.create(path, RunRecord(name, "2026-11-21T00:00:00+00:00", {}, "p", (CELL.id,), {"cpu": "x"}, "0"), "name: demo\n")


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    cell = record(
        prompts=PromptFacts("ids", exact=False, session_id="s"),
        traits=CellTraits("cap", random_weights=True, dense=True, forced_routing=True, gpus=2),
        delivery=Delivery((5, 9), "x", 3, "y"),
        client=ClientFacts({"loop": "uvloop"}, {"streams": 8.0}),
        counters=EngineCounters({"a": 1.5}, CounterSeries((1, 2), {"running": (1.0, None)}, 0.5), {"server": 3}),
        telemetry=(Subject("gpu", "GPU 0", {"vendor": "x"}),),
        log_tail=("x", "y"),
    )
    command = Launch(("a", "b"), "m", {"E": "1"}, {"f": "text"}, ("note",), 5.0, (Member("prefill", ("c",), 9),))
    startup = Startup(
        command,
        Install("wheel", "1.0", Path("/venv/bin/python")),
        packages={"torch": "2"},
        inherited=("PATH",),
        container={"id": "i"},
        identity="proven",
        start_s=1.0,
        first_generation_s=0.5,
        counts_tokens=False,
        stop_s=2.0,
    )
    configuration = Configuration({"slots": 4}, (Difference("slots", 8, 4),))
    parity = ({"prompt": "p", "output": "o"},)
    launch = LaunchRecord(CELL.launch_id, CELL.deployment, 1, "now", startup, configuration, parity, ended="it crashed")
    run.add_cell(cell)
    run.add_launch(launch)
    again = open_run(tmp_path / "r")
    assert list(again.cells()) == [cell]
    assert again.launches() == {launch.id: launch}
    assert again.finished


samples = st.lists(
    st.builds(
        lambda index, events, outcome, counts: Sample(
            index, 1, 2, sent_ns=10**15 + index, end_ns=10**15 + 10**9, event_ns=array("q", [10**15 + e for e in events]),
            event_tokens=array("i", [1] * len(events)), event_chars=array("i", events), outcome=outcome, error=outcome if index else None,
            input_tokens=counts, output_tokens=counts, cached_tokens=counts, local_tokens=counts, reasoning_tokens=counts,
            first_answer_ns=10**15 * (index % 2), conversation=index - 1, turn=index,
        ),
        st.integers(0, 9), st.lists(st.integers(0, 2**30), max_size=20), st.sampled_from(["ok", "cut", "tïme\0"]),
        st.none() | st.integers(0, 99),
    ), min_size=0, max_size=9,
)  # fmt: skip


@settings(deadline=None)  # the first call imports pyarrow
@given(samples)
def test_samples_round_trip_through_parquet(tmp_path_factory: pytest.TempPathFactory, rows: list[Sample]) -> None:
    path = tmp_path_factory.mktemp("s") / "s.parquet"
    before = Samples.collect(rows)
    before.write(path)
    after = Samples.read(path)
    for name in Samples.__dataclass_fields__:
        assert np.array_equal(getattr(before, name), getattr(after, name)), name


def test_older_files_lack_columns(tmp_path: Path) -> None:
    file = tmp_path / "s.parquet"
    Samples.collect([Sample(0, 1, 2, first_answer_ns=5, local_tokens=3, reasoning_tokens=1, conversation=1, turn=2)]).write(file)
    later = ["first_answer_ns", "local_tokens", "reasoning_tokens", "conversation", "turn"]
    assert [getattr(Samples.read(file), name).tolist() for name in later] == [[5], [3], [1], [1], [2]]
    pq.write_table(pq.read_table(file).drop_columns(later), file)
    assert [getattr(Samples.read(file), name).tolist() for name in later] == [[0], [-1], [-1], [-1], [0]]


def test_samples_are_there_before_their_record(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    run.add_cell(record(), Samples.collect([Sample(0, 1, 1)]))
    found = run.samples(CELL.id)
    assert found is not None
    assert len(found) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    file = run.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": SCHEMA + 1}))
    with pytest.raises(UserError, match=f"has schema {SCHEMA + 1}.*\n.*upgrade"):
        open_run(run.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": 2}', '{"schema": "2"}', '{"schema": 2, "name": 3}'])
def test_a_damaged_record_is_one_sentence(tmp_path: Path, text: str) -> None:
    run = new_run(tmp_path / "r")
    (run.path / "run.json").write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        open_run(run.path)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        open_run(tmp_path)


def test_new_runs_get_a_free_name_and_are_found_oldest_first(tmp_path: Path) -> None:
    first = new_run(new_run_path(tmp_path, "demo"))
    second = new_run(new_run_path(tmp_path, "demo"))
    new_run(new_run_path(tmp_path, "other"), "other")
    assert second.path.name == first.path.name + "-2"
    assert [run.path for run in find_runs(tmp_path, "demo")] == [first.path, second.path]


def test_ids_ignore_fields_at_their_default() -> None:
    deployment = Deployment("e", "m", "p", "c")
    assert Cell(deployment, ClosedLoop()).id == Cell(replace(deployment, max_context=2048), ClosedLoop(seed=0)).id
    assert Cell(deployment, ClosedLoop()).id != Cell(deployment, ClosedLoop(), 1).id


# -- older versions ------------------------------------------------------------------------------------------------------


def version_1(run: Run, kind: str, name: str, **fields: object) -> None:
    """Write a record as version 1 would have."""
    (run.path / kind / f"{name}.json").write_text(json.dumps({**fields, "schema": 1}))


def test_fields_of_a_version_1_cell_are_found_in_their_groups(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    version_1(
        run, "cells", CELL.id, id=CELL.id, launch_id=CELL.launch_id, deployment=plain(CELL.deployment), load=plain(CELL.load), repeat=1,
        status="ok", window_ns=[5, 9], client={"loop": "uvloop"}, client_limit={"streams": 8.0}, counters={"a": 1.5},
        series={"at_ns": [1], "values": {"running": [None]}, "cpu_s": 0.5}, token_check={"server": 3}, prompt_form="ids",
        exact_prompts=False, nonce="s", length_control="cap", random_weights=True, dense=True, forced_routing=True, gpus=2,
        stopped="x", unsent=3, saturated="y", log_tail=["x"],
    )  # fmt: skip
    (cell,) = run.cells()
    assert cell == record(
        prompts=PromptFacts("ids", exact=False, session_id="s"),
        traits=CellTraits("cap", random_weights=True, dense=True, forced_routing=True, gpus=2),
        delivery=Delivery((5, 9), "x", 3, "y"),
        client=ClientFacts({"loop": "uvloop"}, {"streams": 8.0}),
        counters=EngineCounters({"a": 1.5}, CounterSeries((1,), {"running": (None,)}, 0.5), {"server": 3}),
        log_tail=("x",),
        schema=1,
    )
    run.add_cell(cell)
    assert list(run.cells()) == [replace(cell, schema=SCHEMA)]


def test_a_version_1_launch_keeps_its_command_version_and_differences(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    start = {"id": "l", "deployment": plain(CELL.deployment), "repeat": 0, "started_at": "now"}
    version_1(
        run, "launches", "l", **start, argv=["a"], env={"E": "1"}, notes=["n"], members=[{"name": "p", "argv": ["b"], "port": 9}],
        variant="wheel", version="2.0", resolved={"version": "2.0"}, differences=[{"name": "slots", "asked": 8, "got": 4}], start_s=1.0,
    )  # fmt: skip
    version_1(run, "launches", "attached", **start | {"id": "attached"}, argv=[], variant=None, version="3.0", resolved={"version": "3.0"})
    launches = run.launches()
    command = Launch(("a",), "", {"E": "1"}, notes=("n",), members=(Member("p", ("b",), 9),))
    assert launches["l"].startup == Startup(command, Install("wheel", "2.0"), start_s=1.0)
    assert launches["l"].configuration.differences == (Difference("slots", 8, 4),)
    assert [(launch.variant, launch.version) for launch in launches.values()] == [(None, "3.0"), ("wheel", "2.0")]


def test_a_version_1_search_takes_its_load_from_a_stored_probe(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    bounds = {"over": "concurrency", "start": 1, "stop": 8, "precision": 0.1, "follows": ["requests"]}
    searches = [{**bounds, "probes": {"first": 1, CELL.id: 3}}, {**bounds, "probes": {"other": 1}}]
    old = json.loads((run.path / "run.json").read_text()) | {"schema": 1, "scenario": {"title": "t", "searches": searches}}
    del old["checksum"]
    (run.path / "run.json").write_text(json.dumps(old))
    run.add_cell(record())
    stored = open_run(run.path).record
    assert stored.scenario == {"title": "t"}
    assert stored.searches == {"first": Search(replace(CELL.load, concurrency=1), "concurrency", 1, 8, 0.1, ("requests",))}
    assert stored.probes == {"first": {"first": 1, CELL.id: 3}}
