"""Writing files so that a crash or a power cut never leaves half of one. Does not know records."""

import contextlib
import datetime as dt
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil

from enginebench.errors import UserError


class NotStored(UserError):  # noqa: N818  # named like LaunchFailed
    """The disk is full, or a file cannot be written for another reason. What was there stays."""

    ADVICE = "what is stored stays: make room, and the same command resumes"


def now() -> str:
    """Wall-clock time in UTC, ISO 8601. For people to read: no figure is computed from it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file. A reader sees the old content or the new content, and a power cut leaves one of the two."""
    replace_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file next to `path`, then rename it to `path`. An error, as of a full disk, leaves `path` as it was."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        _sync(part)
        part.replace(path)
    except OSError as error:
        remove(part)
        raise NotStored(f"cannot be written: {error.strerror}", file=path, advice=NotStored.ADVICE) from None
    except BaseException:
        remove(part)
        raise
    _sync(path.parent)  # the rename is stored in the folder


def remove(path: Path) -> None:
    """Remove a file or a folder with its content, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what `replace_atomically` left in a folder, and up to two levels below, when its process was killed."""
    for part in [part for pattern in (".*.part", "*/.*.part", "*/*/.*.part") for part in folder.glob(pattern)]:
        pid = part.suffixes[-2].removeprefix(".") if len(part.suffixes) > 1 else ""
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with contextlib.suppress(OSError):
                remove(part)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the kernel write a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
