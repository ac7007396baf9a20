"""The index over a folder of runs: what it says, that it follows the files, and that one bad run costs only itself."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import enginebench as eb
import pytest
from click.testing import CliRunner
from enginebench.analysis import run_index as index
from enginebench.analysis.index.duckdb_file import DuckDBFile
from enginebench.cli import bench
from enginebench.domain import Cell, ClosedLoop, Deployment
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run

from tests.conftest import synthetic_launch, synthetic_record

X = {"cpu": "X"}
Make = Callable[..., Run]


def cells() -> Iterator[Cell]:
    for repeat in range(2):
        for streams in (1, 2):
            load = ClosedLoop(concurrency=streams, input_tokens=128, output_tokens=32, requests=4)
            yield Cell(Deployment("vllm", "olmoe-1b-7b", "bf16", "hf:olmoe"), load, repeat)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for runs, with a cache of its own. Files count as settled at once."""
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(index, "_SETTLED_NS", 0)
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


@pytest.fixture
def make(results: Path) -> Make:
    def made(name: str, day: int = 1, *, stored: int = 4) -> Run:
        plan = list(cells())
        head = RunRecord(
            "nightly", f"2026-01-{day:02}T03:00:00+00:00", {"title": "t"}, "p", tuple(c.id for c in plan), {"cpu": "X"}, "0.1.0"
        )
        run = Run.create(results / name, head, "name: nightly\n")
        for cell in plan[:stored]:
            run.add_launch(synthetic_launch(cell))
            run.add_cell(*synthetic_record(cell))
        return run

    return made


def read_again(results: Path) -> tuple[eb.RunIndex, int]:
    """The index, and how many runs were read for it."""
    read: list[int] = []
    return eb.run_index(results, on_run=lambda done, _: read.append(done)), len(read)


def database(found: eb.RunIndex) -> Path:
    store = found.stores[""]
    assert isinstance(store, DuckDBFile)
    return store.path


def test_it_says_what_when_where_and_how_it_ended(results: Path, make: Make) -> None:
    make("a", 1)
    make("b", 2, stored=3)
    found, _ = read_again(results)
    assert [run.id for run in found.runs] == ["b", "a"], "newest first"
    newest, oldest = found.runs
    assert (oldest.scenario, oldest.started_at, oldest.machine, oldest.state) == ("nightly", "2026-01-01T03:00:00+00:00", "X", "complete")
    assert (oldest.engines, oldest.models) == ({"vllm": ("1.2.3",)}, ("olmoe-1b-7b",))
    assert (oldest.deployments, oldest.loads, oldest.repeats) == (1, 2, 2)
    assert oldest.trust in ("good", "partly", "indicative only")
    assert newest.state == "incomplete"
    assert newest.counts["missing"] == 1


def test_its_rows_are_those_of_the_report(results: Path, make: Make) -> None:
    run = make("a")
    found, _ = read_again(results)
    rows = eb.open_run(run.path).analysis.rows
    stored = found.rows("a")
    assert [row.figures for row in stored] == [{name: its for name, its in row.figures.items() if its} for row in rows]
    assert [row.deployment for row in stored] == [row.name for row in rows]
    assert {row.key for row in found.rows(figures=["output_throughput"])} == {row.key for row in stored}
    assert all(set(row.figures) == {"output_throughput"} for row in found.rows(figures=["output_throughput"]))
    assert found.facts("a")["olmoe-1b-7b/vllm"]["version"] == "1.2.3"


def test_the_same_load_has_the_same_key_in_every_run(results: Path, make: Make) -> None:
    make("a", 1)
    make("b", 2)
    rows = read_again(results)[0].rows()
    assert [row.run for row in rows] == ["a", "a", "b", "b"], "oldest first"
    assert [row.key for row in rows[:2]] == [row.key for row in rows[2:]]


def test_an_unchanged_run_is_not_read_again(results: Path, make: Make) -> None:
    make("a")
    first, read = read_again(results)
    again, more = read_again(results)
    assert (read, more) == (1, 0)
    assert again.runs == first.runs


def test_a_deleted_index_is_made_again(results: Path, make: Make, tmp_path: Path) -> None:
    make("a")
    first, _ = read_again(results)
    rows = first.rows()
    shutil.rmtree(tmp_path / "home")
    again, read = read_again(results)
    assert (read, again.runs, again.rows()) == (1, first.runs, rows)


@pytest.mark.parametrize("content", [b"", b"not a database", b"\0" * 8192])
def test_a_damaged_index_is_made_again(results: Path, make: Make, content: bytes) -> None:
    make("a")
    first, _ = read_again(results)
    database(first).write_bytes(content)
    again, read = read_again(results)
    assert (read, again.runs) == (1, first.runs)


def test_an_index_of_another_layout_is_made_again(results: Path, make: Make) -> None:
    make("a")
    first, _ = read_again(results)
    with duckdb.connect(str(database(first))) as base:
        base.execute("update meta set layout = 999")
    again, read = read_again(results)
    assert (read, again.runs) == (1, first.runs)


def test_runs_that_are_added_changed_and_removed(results: Path, make: Make) -> None:
    a, b = make("a", 1), make("b", 2, stored=3)
    read_again(results)
    make("c", 3)
    cell = list(cells())[3]
    b.add_cell(*synthetic_record(cell))
    shutil.rmtree(a.path)
    found, read = read_again(results)
    assert read == 2
    assert [(run.id, run.counts["missing"]) for run in found.runs] == [("c", 0), ("b", 0)]
    assert {row.run for row in found.rows()} == {"b", "c"}


def test_a_cell_that_is_replaced_by_one_of_the_same_size(results: Path, make: Make) -> None:
    run = make("a")
    read_again(results)
    cell = run.path / "cells" / f"{run.record.cells[0]}.json"
    stat = cell.stat()
    text = cell.read_text()
    cell.write_text(text.replace('"ok"', '"no"'))
    os.utime(cell, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cell.stat().st_size == stat.st_size
    assert read_again(results)[1] == 1


def test_a_change_of_the_code_makes_figures_anew(results: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make("a")
    read_again(results)
    monkeypatch.setattr("enginebench.analysis.dependencies.code_hash", lambda: "another")
    assert read_again(results)[1] == 1


def test_weights_that_appear_make_ceilings_anew(results: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make("a")
    read_again(results)
    (tmp_path / "olmoe-1b-7b").mkdir()
    from enginebench.analysis import dependencies

    dependencies._weights.cache_clear()
    assert read_again(results)[1] == 1
    assert read_again(results)[1] == 0


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"schema": 99}', b'{"schema": 2, "name": 1}', b"[" * 100_000, b'{"schema": 2}']
)
def test_a_damaged_run_costs_only_itself(results: Path, make: Make, content: bytes) -> None:
    make("good")
    (results / "bad").mkdir()
    (results / "bad" / "run.json").write_bytes(content)
    found, _ = read_again(results)
    assert [(run.id, run.state) for run in found.runs] == [("good", "complete"), ("bad", "damaged")]
    assert found.runs[1].problem
    assert "\n" not in found.runs[1].problem


def test_a_run_file_that_is_a_pipe_or_a_folder(results: Path, make: Make) -> None:
    make("good")
    for name in ("folder", "pipe"):
        (results / name).mkdir()
    (results / "folder" / "run.json").mkdir()
    os.mkfifo(results / "pipe" / "run.json")
    found, _ = read_again(results)
    assert {run.id: run.state for run in found.runs} == {"good": "complete", "folder": "damaged", "pipe": "damaged"}


def test_damaged_samples_are_a_failed_cell(results: Path, make: Make) -> None:
    run = make("a")
    read_again(results)
    file = run.path / "samples" / f"{run.record.cells[0]}.parquet"
    file.write_bytes(file.read_bytes()[:-9] + b"damaged!!")
    found, _ = read_again(results)
    assert found.runs[0].counts["failed"] == 1


def test_an_analysis_that_fails_is_said_of_the_run(results: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make("a")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("nothing")

    monkeypatch.setattr("enginebench.analysis.run_summary.analyse", broken)
    found, _ = read_again(results)
    assert (found.runs[0].state, found.runs[0].problem) == ("damaged", "it cannot be analysed (ZeroDivisionError: nothing)")


def test_a_file_that_changed_just_now_is_looked_at_again(results: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_SETTLED_NS", 60 * 10**9)
    make("a")
    assert [read_again(results)[1] for _ in range(2)] == [1, 1]


def test_hostile_names_are_data(results: Path, make: Make) -> None:
    run = make("a'; drop table runs; --")
    run.update(replace(run.record, name="\x1b[31m'; drop table rows", scenario={"title": ["no", "text"]}))
    found, _ = read_again(results)
    assert found.runs[0].scenario == "\x1b[31m'; drop table rows"
    assert found.rows(found.runs[0].id)
    assert read_again(results)[1] == 0


def test_a_name_that_is_no_text(results: Path, make: Make) -> None:
    run = make("good")
    other = Path(os.fsdecode(os.fsencode(results) + b"/no\xfftext"))
    shutil.copytree(run.path, other)
    for read in (2, 0):
        found, times = read_again(results)
        assert ({each.id for each in found.runs}, times) == ({"good", "no?text"}, read)
        assert {each.path for each in found.runs} == {run.path, other}
    assert CliRunner().invoke(bench, ["list", str(results), "--json"]).exit_code == 0


def test_a_cache_that_cannot_be_written_is_one_sentence(results: Path, make: Make, tmp_path: Path) -> None:
    make("a")
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(eb.UserError, match="the index over runs cannot be written: Not a directory"):
        eb.run_index(results)


def test_two_at_the_same_time(results: Path, make: Make) -> None:
    for day in range(1, 5):
        make(f"r{day}", day)
    found: list[eb.RunIndex] = []
    threads = [threading.Thread(target=lambda: found.append(eb.run_index(results))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(each.runs) for each in found] == [4] * 4
    assert len(found[0].rows()) == 8
    assert json.loads(json.dumps([run.id for run in found[0].runs])) == ["r4", "r3", "r2", "r1"]


def test_runs_in_folders_within_the_folder(results: Path, make: Make) -> None:
    make("published/a")
    make("b")
    assert {run.id for run in read_again(results)[0].runs} == {"published/a", "b"}


def test_the_list_fits_80_columns(results: Path, make: Make) -> None:
    make("2026-01-01-nightly")
    make("n" * 90, 2)
    run = make("with\x1b[31mcolour", 3)
    run.update(replace(run.record, name="x" * 200))
    (results / "bad").mkdir()
    (results / "bad" / "run.json").write_text("{" * 200)
    listed = CliRunner().invoke(bench, ["list", str(results)])
    assert listed.exit_code == 0
    lines = listed.stdout.splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert "\x1b" not in listed.stdout
    assert lines[0].startswith("4 runs in ")
    assert lines[0].endswith("newest first: 3 complete, 1 damaged")
    first = next(line for line in lines if line.startswith("2026-01-01-nightly "))
    assert "2026-01-01 03:00  4/4 ok" in first
    assert lines[lines.index(first) + 1] == "  nightly · 1 x 2 x 2 · vllm 1.2.3 · olmoe-1b-7b · X"
    assert any(line.startswith("bad ") and line.endswith("damaged") for line in lines)


def test_the_list_as_data(results: Path, make: Make) -> None:
    make("a")
    listed = CliRunner().invoke(bench, ["list", str(results), "--json"])
    data = json.loads(listed.stdout)
    assert data["schema"] == 1
    (run,) = data["runs"]
    assert (run["id"], run["counts"]["ok"], run["engines"]) == ("a", 4, {"vllm": ["1.2.3"]})
    assert Path(run["path"]) == results / "a"


def test_an_empty_folder_and_a_run_in_place_of_one(results: Path, make: Make) -> None:
    assert CliRunner().invoke(bench, ["list", str(results)]).stdout.startswith("no runs in ")
    make("a")
    with pytest.raises(eb.UserError, match="is a run, not a folder of runs"):
        CliRunner().invoke(bench, ["list", str(results / "a")], catch_exceptions=False)


def test_scenarios_say_what_they_are_for_and_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "name: mine\ntitle: Two fakes\ndeployments: [{engine: fake, model: any, precision: none}]\nloads: [{concurrency: [1, 2]}]\n"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "broken.yaml").write_text(text.replace("engine: fake", "engine: nothing"))
    (tmp_path / "other.yaml").write_text("a: 1\n")
    (tmp_path / "binary.yaml").write_bytes(b"deployments\xff\xfe")
    found = {each.name: each for each in eb.list_scenarios()}
    assert set(found) == {*eb.built_in_scenarios(), "mine.yaml", "broken.yaml"}
    mine = found["mine.yaml"]
    assert (mine.title, mine.needs, mine.size, mine.runs_here) == ("Two fakes", ("fake",), "1 deployment x 2 loads", "whole")
    assert "nothing" in found["broken.yaml"].problem
    assert "8xh100" in found["maverick_8xh100"].needs
    shown = CliRunner().invoke(bench, ["list", "--scenarios"]).stdout.splitlines()
    assert max(map(len, shown)) <= 80
    assert "mine.yaml: Two fakes" in shown
    assert json.loads(CliRunner().invoke(bench, ["list", "--scenarios", "--json"]).stdout)[-1]["name"] == "mine.yaml"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(eb.UserError, match="not a folder"):
        eb.run_index(tmp_path / "nothing")
