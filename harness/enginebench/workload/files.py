"""The files that a load names: where they are, and whether they have changed since they were read."""

from __future__ import annotations

from pathlib import Path

from enginebench.errors import UserError


def find(name: str, base: Path, key: str) -> Path:
    """A file named in a scenario; relative names start from `base`. UserError, naming `key`, when it is not there."""
    file = base / Path(name).expanduser()
    if not file.is_file():
        raise UserError(f"there is no file {file}", key=key, advice="a relative name starts from the scenario's folder")
    return file


def modified(file: Path) -> int:
    """Part of the key under which what was read of a file is kept: ns of its last change."""
    return file.stat().st_mtime_ns
