"""Drafts of killed processes are removed, those that are being made stay."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from enginebench.checkpoints.cache import remove_drafts

DEAD = 4_194_304
"""Above Linux's highest process id."""


def test_drafts_of_killed_processes_are_removed(tmp_path: Path) -> None:
    dead = tmp_path / "random" / f".m.gguf.draft-{DEAD}-00ff"
    folder = tmp_path / f".hf.draft-{DEAD}-11aa"
    locked, live, other = tmp_path / f".w.draft-{DEAD}-22", tmp_path / f".x.draft-{os.getpid()}-33", tmp_path / "m.gguf"
    (folder / "deep").mkdir(parents=True)
    dead.parent.mkdir()
    for file in (dead, locked, live, other, folder / "deep" / "file"):
        file.write_text("x")
    with (tmp_path / ".w.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another host makes it: its process ids mean nothing here
        assert remove_drafts(tmp_path) == [f"removed the unfinished {folder}", f"removed the unfinished {dead}"]
        assert locked.exists()
    assert remove_drafts(tmp_path) == [f"removed the unfinished {locked}"]
    assert live.exists()
    assert other.exists()
