"""`find: max_goodput` against a fake engine whose limit is known: it has four slots, and who waits is too late.

In this process, where `foreign_load` can be switched off: on a busy machine it leaves a search without an answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from enginebench.cli import bench
from enginebench.metrics import hardware

SCENARIO = """
name: find
deployments:
  - {{engine: fake, model: any, precision: none, max_concurrency: 16, options: {options}}}
slo: {{ttft_ms: 120, share: 0.8}}
loads:
  - {{find: {{goal: max_goodput, over: concurrency, from: {start}, to: {stop}, precision: 1.0}},
      input_tokens: 16, output_tokens: 8, requests: 16, warmup_requests: 0}}
repeats: {repeats}
"""
FOUR_SLOTS = "{ttft_ms: 60, itl_ms: 10, slots: 4}"
"""A request holds its slot for 130 ms, so of eight streams each waits that long before its first token, of four none."""


class Folder:
    """A folder of its own in which a search is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def bench(self, *arguments: str) -> Result:
        return CliRunner().invoke(bench, arguments)

    def search(self, *, start: int = 2, stop: int = 16, options: str = FOUR_SLOTS, repeats: int = 1) -> dict[str, Any]:
        (self.path / "s.yaml").write_text(SCENARIO.format(start=start, stop=stop, options=options, repeats=repeats))
        done = self.bench("run", "s.yaml", "--json", "--no-html")
        assert done.stdout, done.stderr
        self.said = done.stderr
        return dict(json.loads(done.stdout))

    @property
    def run(self) -> Path:
        (found,) = (self.path / "results").iterdir()
        return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hardware, "_foreign", lambda *_: None)
    return Folder(tmp_path)


def levels(report: dict[str, Any]) -> list[int]:
    return [row["asked"]["load"]["concurrency"] for row in report["rows"]]


@pytest.mark.clock
def test_it_finds_the_number_of_slots_and_lists_its_probes_by_level(folder: Folder) -> None:
    report = folder.search()
    assert levels(report) == [2, 4, 8]
    (found,) = report["findings"]
    assert (found["holds"], found["endings"], found["cells"]) == (4, ["found"], 3)
    assert 4 <= found["level"] < 8
    assert 0 < found["goodput"] <= report["rows"][1]["figures"]["request_throughput"]["value"] + 1e-9
    assert report["counts"] == {"ok": 3, "failed": 0, "skipped": 0, "missing": 0}
    shown = folder.bench("report").stdout
    assert "highest load within the SLO (TTFT 120 ms for 80 % of requests)" in shown
    assert "fake holds 4 streams" in shown
    assert "(measured to hold 4 streams" in " ".join(folder.bench("report", "--table").stdout.split())


@pytest.mark.clock
def test_a_search_resumes_with_what_is_stored(folder: Folder) -> None:
    folder.search()
    record = json.loads((folder.run / "run.json").read_text())
    first, middle, last = record["cells"]
    (folder.run / "cells" / f"{middle}.json").unlink()
    unfinished = json.loads(folder.bench("report", "--json").stdout)
    assert unfinished["counts"]["missing"] == 1
    assert unfinished["findings"][0]["endings"] == ["unfinished"]
    before = {cell: (folder.run / "cells" / f"{cell}.json").stat().st_mtime_ns for cell in (first, last)}
    report = folder.search()
    assert "2 of 3 cells are stored" in folder.said
    assert levels(report) == [2, 4, 8]
    assert {cell: (folder.run / "cells" / f"{cell}.json").stat().st_mtime_ns for cell in before} == before


@pytest.mark.parametrize(
    ("start", "stop", "ending", "tried"), [(8, 16, "never", [8]), (1, 2, "top", [1, 2])], ids=["too much at first", "not enough at last"]
)
@pytest.mark.clock
def test_an_answer_outside_the_bounds_is_said_to_be(folder: Folder, start: int, stop: int, ending: str, tried: list[int]) -> None:
    report = folder.search(start=start, stop=stop)
    assert levels(report) == tried
    assert report["findings"][0]["endings"] == [ending]


@pytest.mark.clock
def test_every_repeat_searches_anew(folder: Folder) -> None:
    report = folder.search(start=4, stop=8, repeats=2)
    (found,) = report["findings"]
    assert found["endings"] == ["found", "found"]
    assert found["cells"] == 4
    assert found["restarts"] == 2


def test_an_engine_that_does_not_start_ends_its_search(folder: Folder) -> None:
    report = folder.search(options="{exit_at_start: true}")
    assert report["counts"] == {"ok": 0, "failed": 1, "skipped": 0, "missing": 0}
    assert report["findings"][0]["endings"] == ["unfinished"]
    assert report["findings"][0]["level"] is None
