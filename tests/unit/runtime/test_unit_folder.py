"""The folder of a unit goes when the unit has ended, or, where its process was killed, at a later start and with `bench clean`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from enginebench.runner.doctor import clean
from enginebench.runtime import unit_folder as module
from enginebench.runtime.unit_folder import PREFIX, remove_left_folders, unit_folder

HOLDS = """
import os, subprocess, sys
from enginebench.runtime.unit_folder import unit_folder
with unit_folder() as (folder, lock):
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    print(folder, child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def aged(folder: Path) -> Path:
    os.utime(folder, (0, 0))
    return folder


def test_a_folder_in_use_stays_and_goes_when_its_unit_has_ended() -> None:
    with unit_folder() as (folder, _):
        (folder / "unit.json").touch()
        aged(folder)
        assert remove_left_folders() == []
        with unit_folder() as (other, _):
            assert folder.is_dir()
        assert not other.exists()
    assert not folder.exists()


def test_the_folder_of_a_killed_process_is_removed_later(tmp_path: Path) -> None:
    """The unit's own process has the lock too, so a folder stays until that has ended as well."""
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name, _ = process.stdout.readline().split()
        folder = aged(Path(name))
        assert remove_left_folders() == []
        process.kill()
        process.stdout.read()  # until the child, which has it too, has ended with its own stdin
    assert folder.is_dir()
    with unit_folder():
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_clean_says_what_it_removes_and_leaves_young_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginebench.runner.doctor._clean_containers", lambda *_: (None, []))
    old, young, others = tmp_path / f"{PREFIX}old", tmp_path / f"{PREFIX}young", tmp_path / "another"
    for folder in (old, young, others):
        folder.mkdir()
    aged(old), aged(others)
    assert f"removed {old}: the process of its unit has ended" in clean().actions
    assert [folder.exists() for folder in (old, young, others)] == [False, True, True]
    monkeypatch.setattr(module, "YOUNG_S", 0.0)
    assert remove_left_folders() == [f"removed {young}: the process of its unit has ended"]
