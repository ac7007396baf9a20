"""live.json: what a run does now, from its events; there while it goes on, and believed only if its process is alive."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.domain import Cell, ClosedLoop, Deployment
from enginebench.loadgen import Progress
from enginebench.records.cell import CellRecord
from enginebench.records.live import NAME, Live, LiveCell, Process, read_live, write_live
from enginebench.runner import live as writer
from enginebench.runner.events import CellEnded, CellProgress, CellStarted, EngineReady, Event, LaunchStarted, LaunchStep, RunOpened
from enginebench.runner.live import LiveFile

DEPLOYMENT = Deployment("llamacpp", "any", "f16", "hf:any")
CELL = Cell(DEPLOYMENT, ClosedLoop(concurrency=2, input_tokens=16, output_tokens=8, requests=8), 0)


def opened(run: Path) -> RunOpened:
    return RunOpened(run, 3, 1, (CELL.load,), (DEPLOYMENT,), (CELL,))


def waited(run: Path, step: str) -> Live:
    deadline = time.monotonic() + 20
    while (found := read_live(run)) is None or found.step != step:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_the_file_follows_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_EVERY_S", 0.005)
    with LiveFile() as live:
        live(opened(tmp_path))
        assert waited(tmp_path, "preparing").process == Process.own()
        for event, step in (
            (LaunchStarted(DEPLOYMENT, 0), "starting"),
            (LaunchStep(DEPLOYMENT, "loading"), "loading"),
            (EngineReady(DEPLOYMENT, 1.0), "ready"),
            (CellStarted(CELL, 3), "warm-up"),
            (CellProgress(CELL, Progress(8, 5, 4, 0, 32, 0.5, pace_s=(0.02, 0.004))), "measuring"),
        ):
            live(event)
            found = waited(tmp_path, step)
        assert (found.deployment, found.planned, found.done) == ("llamacpp", 3, 1)
        assert found.cell == LiveCell(CELL.id, "2 streams 16 + 8 tokens", 0, 8, 4, 0, 32, 0.5, None, 0.02, 0.004)
        live(CellEnded(CELL, CellRecord.of(CELL, "ok"), 4))
        found = waited(tmp_path, "between cells")
        assert (found.done, found.planned, found.cell) == (2, 4, None)
    assert list(tmp_path.iterdir()) == [], "it is removed, and so is the temporary file"


def test_a_run_that_stores_nothing_has_none(tmp_path: Path) -> None:
    with LiveFile() as live:
        live(LaunchStarted(DEPLOYMENT, 0))  # without an open run
    assert read_live(tmp_path) is None


def test_it_is_removed_when_the_run_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), LiveFile() as live:  # noqa: PT012
        live(opened(tmp_path))
        waited(tmp_path, "preparing")
        raise KeyboardInterrupt
    assert not (tmp_path / NAME).exists()


def test_a_folder_that_is_gone_or_full_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_EVERY_S", 0.005)
    with LiveFile() as live:
        live(opened(tmp_path / "gone"))
        time.sleep(0.05)
        live(LaunchStarted(DEPLOYMENT, 0))


def test_a_listener_never_waits_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        time.sleep(1)

    monkeypatch.setattr(writer, "write_live", slow)
    with LiveFile() as live:
        live(opened(tmp_path))
        event: Event = CellProgress(CELL, Progress(8, 5, 4, 0, 32, 0.5))
        live(CellStarted(CELL, 3))
        began = time.monotonic()
        for _ in range(100):
            live(event)
        assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    "process",
    [
        replace(Process.own(), pid=2**22 - 3),
        replace(Process.own(), started_at=Process.own().started_at - 60),
    ],
    ids=["ended", "another with the same number"],
)
def test_a_process_that_is_gone_is_not_believed(tmp_path: Path, process: Process) -> None:
    write_live(tmp_path, Live(Process.own(), "measuring", 2, 1))
    assert read_live(tmp_path) is not None
    write_live(tmp_path, Live(process, "measuring", 2, 1))
    assert read_live(tmp_path) is None


def test_on_another_machine_it_is_believed_for_a_minute(tmp_path: Path) -> None:
    write_live(tmp_path, Live(replace(Process.own(), host="elsewhere"), "measuring", 2, 1))
    assert read_live(tmp_path) is not None
    os.utime(tmp_path / NAME, (time.time() - 61, time.time() - 61))
    assert read_live(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 2, "step": 1}'])
def test_a_damaged_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    assert read_live(tmp_path) is None
