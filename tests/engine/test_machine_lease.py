"""Two runs on one machine see each other, and what a killed run left is removed by the next."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from enginebench.runtime.machine_lease import machine_lease, remove_dead

from .bench import Bench


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this test's own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_second_run_is_refused_until_told_to_share(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.start("run", bench.scenario("options: {ttft_ms: 200, tick_ms: 40}", repeats=20))
    bench.wait_for_cells(1)
    quick = bench.scenario("options: {ttft_ms: 5, tick_ms: 2}")
    refused = bench("run", quick, "--results", "other")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[-2:] == [
        f"error: this machine is in use by bench run demo (process {first.pid})",
        "  wait until it has ended, or go on with --share-machine: then every cell is suspect",
    ]
    assert not (tmp_path / "other").exists()
    shared = bench("run", quick, "--results", "other", "--share-machine")
    assert shared.returncode == 0, shared.stderr
    monkeypatch.setenv("ENGINEBENCH_LEASES", str(tmp_path / "leases"))
    with machine_lease("another run"):
        stored = len(list(tmp_path.glob("results/*/cells/*.json")))
        bench.wait_for_cells(stored + 1)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    records = [json.loads(file.read_text())["shared_machine"] for file in tmp_path.glob("other/*/cells/*.json")]
    assert f"bench run demo (process {first.pid})" in records
    assert any("another run" in str(cell["shared_machine"]) for cell in bench.cells()), "the first run was disturbed, too"
    assert bench("run", quick, "--results", "later").returncode == 0
    assert not any(json.loads(file.read_text())["shared_machine"] for file in tmp_path.glob("later/*/cells/*.json"))


def test_a_killed_run_holds_no_lease_and_leaves_nothing_after_the_next_start(
    bench: Bench, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = bench.scenario("options: {ttft_ms: 40, tick_ms: 20}")
    killed = bench.start("run", scenario)
    bench.wait_for_cells(1)
    assert list(temporary.iterdir())
    children = psutil.Process(killed.pid).children(recursive=True)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    monkeypatch.setenv("ENGINEBENCH_LEASES", str(tmp_path / "leases"))
    with machine_lease("next") as lease:
        assert lease.others() == [], "its children do not inherit the lock"
    deadline = time.monotonic() + 10
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    again = bench("run", scenario)
    assert again.returncode == 0, again.stderr
    assert "left by bench run demo" in again.stderr
    assert not list(temporary.iterdir())
    assert not list((tmp_path / "leases").iterdir())
    assert not list(tmp_path.rglob("*.part"))


def test_a_lease_ends_with_its_block_and_leaves_no_folder(temporary: Path) -> None:
    with machine_lease("one") as one, machine_lease("two") as two:
        (one.folder / "file").write_text("x")
        assert one.others() == [f"two (process {os.getpid()})"]
        assert two.others() == [f"one (process {os.getpid()})"]
        assert remove_dead() == ([], [])
    assert not list(temporary.iterdir())


def test_a_foreign_folder_in_a_dead_lease_is_left_alone(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leases, mine = tmp_path / "leases", tmp_path / "precious"
    monkeypatch.setenv("ENGINEBENCH_LEASES", str(leases))
    leases.mkdir()
    mine.mkdir()
    for content in (json.dumps({"pid": 1, "purpose": "x", "folder": str(mine), "containers": False}), "", "[]", '{"pid": "y"}'):
        (leases / "enginebench-1.json").write_text(content)
        assert remove_dead() == ([], [])
        assert mine.is_dir()
        assert not list(leases.iterdir())


def test_without_a_folder_for_leases_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENGINEBENCH_LEASES", str(tmp_path / "file"))
    with machine_lease("one") as lease:
        assert lease.folder.is_dir()
        assert lease.others() == []
