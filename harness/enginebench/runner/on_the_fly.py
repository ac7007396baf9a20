"""Files of other tools where a run is expected: imported into the cache folder when first named, and read from there afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from enginebench.domain import fingerprint
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from enginebench.records import importers
from enginebench.records.capsule import is_capsule
from enginebench.records.files import remove
from enginebench.records.remote.local import local
from enginebench.runner.imports import import_run, recognise

_MOST_KEPT = 50
"""Imported runs that stay in the cache; the oldest are removed first."""


def as_run(path: Path, facts: Mapping[str, str] | None = None) -> Path | None:
    """The run folder of a file or a folder that another tool wrote; the path itself where it is a run or a capsule; None: it is neither.
    UserError for a file of a known tool that is damaged.
    """
    path = local(path)
    if (path / "run.json").is_file() or (path.is_file() and is_capsule(path)):
        return path
    if not path.exists() or (path.is_file() and recognise(path) is None):
        return None
    folder = cache_dir() / "imported" / _key(path, facts or {})
    kept = [run.parent for run in folder.glob("*/run.json")]
    if kept:
        return kept[0]
    try:
        return import_run([path], folder, facts).path
    except UserError:
        remove(folder)
        if path.is_dir():
            return None
        raise
    finally:
        _forget(folder.parent)


def _key(path: Path, facts: Mapping[str, str]) -> str:
    """A hash of where the files are, of their sizes and times, and of the facts."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else sorted(path.parent.glob("*"))
    known = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files[:1000] if file.is_file()]
    return fingerprint({"path": str(path.resolve()), "files": known, "facts": dict(facts), "code": _newest()})  # type: ignore[dict-item]


def _newest() -> int:
    """When an importer was changed last: a new one reads the files again."""
    return max(file.stat().st_mtime_ns for file in Path(importers.__path__[0]).glob("*.py"))


def _forget(folder: Path) -> None:
    kept = sorted((each for each in folder.glob("*") if each.is_dir()), key=lambda each: each.stat().st_mtime)
    for old in kept[:-_MOST_KEPT]:
        remove(old)
