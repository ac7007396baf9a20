"""The files that a load names: their paths, and when they last changed."""

from pathlib import Path

from enginebench.errors import UserError


def find(name: str, base: Path, key: str) -> Path:
    """A file named in a scenario; relative names start from `base`. UserError, with `key`, if it does not exist."""
    file = base / Path(name).expanduser()
    if not file.is_file():
        raise UserError(f"there is no file {file}", key=key, advice="relative names start from the folder of the scenario")
    return file


def modified(file: Path) -> int:
    """Time of a file's last change in ns, for the keys of caches."""
    return file.stat().st_mtime_ns
