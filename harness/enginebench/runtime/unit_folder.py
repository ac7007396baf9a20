"""The folder in which a unit is measured on a node: removed when it has ended, and by a later start where its process was killed.

A folder is in use as long as a process holds its lock: the one that made it, and the unit's own, which inherits it. The kernel drops a lock
when the process is gone, however it ended. Does not know: units.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "enginebench-placed-"
YOUNG_S = 60.0
"""A folder is left alone for so long, because it may not be locked yet."""


@contextmanager
def unit_folder() -> Iterator[tuple[Path, int]]:
    """A new folder, and the file descriptor of its lock, for the process that works in it. Removes those that were left."""
    remove_left_folders()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, lock
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_folders() -> list[str]:
    """Remove the folders of units whose processes have ended; a sentence for each."""
    found = [folder for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")) if _is_left(folder)]
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return [f"removed {folder}: the process of its unit has ended" for folder in found]


def _is_left(folder: Path) -> bool:
    """Whether no process holds its lock. A folder of another user is not ours to judge."""
    with suppress(OSError):  # gone, another user's, or locked
        facts = folder.stat()
        if facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < YOUNG_S:
            return False
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(lock)
    return False
