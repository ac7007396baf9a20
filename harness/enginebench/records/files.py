"""Writing files so that a crash or a power cut never leaves half of one. Knows no record."""

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path


def now() -> str:
    """Wall-clock time in UTC, ISO 8601. For people to read: no figure is computed from it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file. A reader sees the old content or the new content, and a power cut leaves one of the two."""
    replace_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    write(part)
    _sync(part)
    part.replace(path)
    _sync(path.parent)  # the rename is stored in the folder


def _sync(path: Path) -> None:
    """Have the kernel write a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
