"""Creates files and folders atomically, and only once across processes.

A crash leaves at most a hidden draft, which the next process that makes the same file removes. Does not know: what is being made.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a draft path for a file or a folder. The draft is renamed to `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield draft
        try:
            draft.replace(path)
        except OSError:
            # A folder cannot replace a non-empty folder: another process has published the same one.
            if not (draft.is_dir() and path.is_dir()):
                raise
    finally:
        _discard(draft)


def make_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`; call make(path) if it does not exist. If several processes call this, one makes it and the others wait."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel even if this process is killed
        if not path.exists():
            for stale in path.parent.glob(f".{path.name}.draft-*"):
                _discard(stale)
            make(path)
    return path


def remove_drafts(folder: Path) -> list[str]:
    """Remove the drafts of processes that were killed, in a folder and those below. Returns one sentence for each."""
    actions = []
    for draft in [*folder.rglob(".*.draft-*")]:
        name, _, maker = draft.name.rpartition(".draft-")
        pid, lock = maker.partition("-")[0], draft.with_name(f"{name}.lock")
        if _free(lock) if lock.exists() else pid.isdigit() and not psutil.pid_exists(int(pid)):
            _discard(draft)
            actions.append(f"removed the unfinished {draft}")
    return actions


def _free(lock: Path) -> bool:
    with suppress(OSError), lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
