"""What is stored comes back the same; what is damaged or newer is refused with a sentence."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from enginebench.domain import Cell, ClosedLoop, Deployment, Sample
from enginebench.errors import UserError
from enginebench.records.samples import Samples
from enginebench.records.store import SCHEMA, CellRecord, LaunchRecord, Run, RunRecord, find_runs, new_run_path, open_run
from hypothesis import given, settings
from hypothesis import strategies as st

CELL = Cell(Deployment("fake", "m", "none", "m", options={"a": [1, "x", None], "b": 2.5}), ClosedLoop(concurrency=3), 1)


def record(**changes: object) -> CellRecord:
    return CellRecord(CELL.id, CELL.launch_id, CELL.deployment, CELL.load, CELL.repeat, "ok", **changes)  # type: ignore[arg-type]


def new_run(path: Path, name: str = "demo") -> Run:
    return Run.create(path, RunRecord(name, "2026-11-21T00:00:00+00:00", {}, "p", (CELL.id,), {"cpu": "x"}, "0"), "name: demo\n")


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    cell = record(
        saturated="x", client_limit={"streams": 8.0}, window_ns=(5, 9), client={"loop": "uvloop"}, counters={"a": 1.5}, log_tail=("x", "y")
    )
    launch = LaunchRecord(CELL.launch_id, CELL.deployment, 1, "now", argv=("a", "b"), parity=({"prompt": "p", "output": "o"},))
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
            input_tokens=counts, output_tokens=counts, cached_tokens=counts, local_tokens=counts, first_answer_ns=10**15 * (index % 2),
            conversation=index - 1, turn=index,
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
    Samples.collect([Sample(0, 1, 2, first_answer_ns=5, local_tokens=3, conversation=1, turn=2)]).write(file)
    later = ["first_answer_ns", "local_tokens", "conversation", "turn"]
    assert [getattr(Samples.read(file), name).tolist() for name in later] == [[5], [3], [1], [2]]
    pq.write_table(pq.read_table(file).drop_columns(later), file)
    assert [getattr(Samples.read(file), name).tolist() for name in later] == [[0], [-1], [-1], [0]]


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


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "name": 3}'])
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
    assert (
        Cell(Deployment("e", "m", "p", "c"), ClosedLoop()).id
        == Cell(Deployment("e", "m", "p", "c", max_context=2048), ClosedLoop(seed=0)).id
    )
    assert Cell(Deployment("e", "m", "p", "c"), ClosedLoop()).id != Cell(Deployment("e", "m", "p", "c"), ClosedLoop(), 1).id
