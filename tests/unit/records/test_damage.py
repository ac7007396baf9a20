"""Damage to a stored run costs the cells that it hit, and is named in one sentence each; nothing else is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.analysis.analysis import analyse
from enginebench.domain import Cell, ClosedLoop, Deployment
from enginebench.errors import UserError
from enginebench.records.cell import CellRecord
from enginebench.records.files import NotStored, remove_parts, replace_atomically
from enginebench.records.launch import LaunchRecord
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run, open_run

from ...conftest import Pace, synthetic_samples  # noqa: TID252  # tests are no package that has a name

CELLS = [
    Cell(Deployment(engine, "m", "f16", "m"), ClosedLoop(concurrency=1, input_tokens=8, output_tokens=4, requests=20), 0)
    for engine in "abc"
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of three cells, each of a launch of its own."""
    made = Run.create(tmp_path / "run", RunRecord("r", "", {}, "p", tuple(cell.id for cell in CELLS), {}, "0"), "")
    for cell in CELLS:
        made.add_launch(LaunchRecord(cell.launch_id, cell.deployment, 0, ""))
        made.add_cell(CellRecord.of(cell, "ok"), synthetic_samples(cell.load, Pace(0.02, 0.01), seed=ord(cell.deployment.engine)))
    return made


def _cell(run: Run, index: int = 0) -> Path:
    return run.path / "cells" / f"{CELLS[index].id}.json"


def _text(text: str) -> Callable[[Run], object]:
    return lambda run: _cell(run).write_text(text)


def _field(name: str, value: object) -> Callable[[Run], object]:
    """A field of a record as before there were checksums."""

    def change(run: Run) -> None:
        data = json.loads(_cell(run).read_text()) | {name: value}
        del data["checksum"]
        _cell(run).write_text(json.dumps(data))

    return change


def _instead(make: Callable[[Path], object]) -> Callable[[Run], object]:
    return lambda run: (_cell(run).unlink(), make(_cell(run)))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_text(""), "Expecting value"),
        (_text("\0" * 400), "Expecting value"),
        (_text("[1, 2]"), "no schema version"),
        (_text('{"schema": true}'), "no schema version"),
        (_text('{"schema": 2.0}'), "no schema version"),
        (_text("[" * 100_000), "nested too deeply"),
        (_field("schema", 99), "has schema 99, this enginebench reads up to"),
        (_field("repeat", "first"), "valid integer"),
        (_field("deployment", None), "cannot be read"),
        (_field("load", {"concurrency": []}), "cannot be read"),
        (_field("id", CELLS[1].id), f"is the record of another cell, {CELLS[1].id}"),
        (_instead(Path.mkdir), "it is not a file"),
        (_instead(os.mkfifo), "it is not a file"),
    ],
)
def test_a_damaged_cell_record_costs_its_cell(run: Run, damage: Callable[[Run], object], why: str) -> None:
    damage(run)
    assert {record.id for record in run.cells()} == {CELLS[1].id, CELLS[2].id}
    (reason,) = run.damage().values()
    assert why in reason
    assert "\n" not in reason
    found = analyse(open_run(run.path))
    assert found.counts == {"ok": 2, "failed": 0, "skipped": 0, "damaged": 1, "missing": 0}
    assert any(why in caveat and "--retry-failed" in caveat for caveat in found.caveats)
    assert found.incomplete == "not every cell was measured (1 damaged)"
    run.drop(CELLS[0].id)
    assert not run.has(CELLS[0].id)


@pytest.mark.parametrize("indent", [None, 1])
def test_any_change_of_a_record_is_noticed(run: Run, indent: int | None) -> None:
    """Also one of a digit, which leaves the record as readable as before. To indent the file anew is no change."""
    stored = _cell(run).read_bytes()
    for at in range(0, len(stored), 7):
        damaged = bytearray(stored)
        damaged[at] ^= 1 if damaged[at : at + 1].isalnum() else 0x10
        _cell(run).write_bytes(damaged)
        assert list(run.damage()) == [CELLS[0].id], (at, bytes(damaged[at - 20 : at + 20]))
    data = json.loads(stored)
    _cell(run).write_text(json.dumps(data, indent=indent))
    assert not run.damage()
    _cell(run).write_text(json.dumps({**data, "repeat": data["repeat"] + 1}, indent=indent))
    assert "it is not as it was stored: its checksum does not fit" in run.damage()[CELLS[0].id]


def test_changed_samples_fail_their_cell(run: Run) -> None:
    samples = run.path / "samples" / f"{CELLS[0].id}.parquet"
    content = bytearray(samples.read_bytes())
    content[len(content) // 2] ^= 1
    samples.write_bytes(content)
    assert run.damage() == {CELLS[0].id: f"{samples.name}: raw samples are damaged: they are not those that were stored with the cell"}
    shutil.copy(run.path / "samples" / f"{CELLS[1].id}.parquet", samples)  # whole, but another cell's
    assert list(run.damage()) == [CELLS[0].id]
    samples.unlink()
    assert run.damage() == {CELLS[0].id: f"{samples.name}: raw samples are missing"}
    assert analyse(run).counts["failed"] == 1


def test_samples_stored_before_there_was_a_hash_are_read(run: Run) -> None:
    record = run.cell(CELLS[0].id)
    assert record.samples_sha256 is not None
    run.add_cell(replace(record, samples_sha256=None))
    assert run.samples(CELLS[0].id) is not None
    assert not run.damage()


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 1}'])
def test_a_damaged_launch_record_costs_the_cells_of_that_launch(run: Run, content: str) -> None:
    (run.path / "launches" / f"{CELLS[0].launch_id}.json").write_text(content)
    assert [record.status for record in run.cells()] == ["failed", "ok", "ok"]
    (reason,) = run.damage().values()
    assert reason.startswith(f"damaged: its launch record {CELLS[0].launch_id}.json cannot be read")
    assert len(run.launches()) == 2


def test_the_launch_record_of_another_launch_is_not_used(run: Run) -> None:
    folder = run.path / "launches"
    shutil.copy(folder / f"{CELLS[1].launch_id}.json", folder / f"{CELLS[0].launch_id}.json")
    assert list(run.damage()) == [CELLS[0].id]


def test_halves_of_a_character_are_question_marks(run: Run) -> None:
    """JSON may hold them as escapes, and UTF-8 cannot."""
    record = replace(CellRecord.of(CELLS[0], "failed", "half \ud800"), log_tail=("\udcff", "whole \U0001f600"))
    run.add_cell(record)
    assert (run.cell(CELLS[0].id).reason, run.cell(CELLS[0].id).log_tail) == ("half ?", ("?", "whole \U0001f600"))
    _field("reason", "half \ud800, whole \U0001f600")(run)
    assert run.cell(CELLS[0].id).reason == "half ?, whole \U0001f600"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def full(part: Path) -> None:
        part.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(NotStored, match="cannot be written: No space left on device"):
        replace_atomically(tmp_path / "a", full)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    dead, live = tmp_path / ".a.json.4194304.part", tmp_path / f".b.json.{os.getpid()}.part"
    dead.write_text("x")
    live.write_text("y")
    (tmp_path / ".run.4194305.part" / "cells").mkdir(parents=True)
    (tmp_path / "run" / "cells").mkdir(parents=True)
    (tmp_path / "run" / ".report.html.4194306.part").write_text("z")
    (tmp_path / "run" / "cells" / ".c.json.4194306.part").write_text("z")
    remove_parts(tmp_path)
    assert sorted(tmp_path.rglob("*")) == [live, tmp_path / "run", tmp_path / "run" / "cells"]


def test_a_damaged_run_is_refused_in_one_sentence(run: Run) -> None:
    (run.path / "run.json").unlink()
    os.mkfifo(run.path / "run.json")
    with pytest.raises(UserError) as refused:
        open_run(run.path)
    assert len(str(refused.value).splitlines()) == 2
