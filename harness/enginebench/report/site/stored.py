"""The runs in a folder, each with its name in addresses and a fingerprint of its content. Does not read figures."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from enginebench.errors import UserError
from enginebench.records import run_folder
from enginebench.records.capsule import is_capsule, unpacked
from enginebench.records.remote.local import local
from enginebench.records.remote.urls import url_of
from enginebench.records.run import RunRecord

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80
_PARTS = ("run.json", "scenario.yaml", "cells", "launches", "samples")
_READ = ("run.json", "scenario.yaml", "cells/*.json", "launches/*.json")
"""The files whose content the pages of a run show; of samples, which are large, the size counts, and the checksum in the cell's record."""


Signature: TypeAlias = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class SiteRun:
    path: Path
    name: str
    """Its path in the folder of runs."""
    slug: str
    """Its name in addresses: letters, digits, '.', '_' and '-'."""
    record: RunRecord
    signature: Signature
    """Of its files when it was read: equal as long as nothing was written to it."""

    @cached_property
    def fingerprint(self) -> str:
        """Changes with everything that its pages show."""
        digest = hashlib.sha256()
        for file in (file for pattern in _READ for file in sorted(self.path.glob(pattern))):
            digest.update(f"{file.relative_to(self.path)}\0".encode(errors="replace") + file.read_bytes() + b"\0")
        for file in sorted((self.path / "samples").glob("*.parquet")):
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode(errors="replace"))
        return digest.hexdigest()

    @property
    def order(self) -> tuple[str, str]:
        return self.record.created_at, self.path.name


@dataclass(frozen=True)
class Found:
    runs: tuple[SiteRun, ...]
    """Oldest first."""
    refused: tuple[str, ...]
    """Why other folders with a run.json are left out, one sentence each."""


class StoredRuns:
    """The runs in a folder or in folders within it; or a single run or capsule. A run is read again when it has changed."""

    def __init__(self, named: str | Path) -> None:
        folder = local(named)
        folder = unpacked(folder) if is_capsule(folder) else folder
        if not folder.is_dir():
            raise UserError("is not a folder", file=folder, advice="name a folder of runs, such as results")
        self.folder = folder
        self.named = named
        self._known: dict[Path, tuple[Signature, SiteRun | str]] = {}

    def refresh(self) -> None:
        """Bring here what is new in a store; nothing for a folder of this machine."""
        if url_of(self.named) is not None:
            local(self.named)

    def find(self) -> Found:
        """Every readable run that is there now."""
        known = {path: self._read(path) for path in _runs_in(self.folder)}
        self._known = known
        runs = [run for _, run in known.values() if isinstance(run, SiteRun)]
        refused = [why for _, why in known.values() if isinstance(why, str)]
        return Found(tuple(sorted(runs, key=lambda run: run.order)), tuple(refused))

    def _read(self, path: Path) -> tuple[Signature, SiteRun | str]:
        current = _signature(path)
        if (known := self._known.get(path)) is not None and known[0] == current:
            return known
        root = self.folder.resolve()
        name = root.name if path == self.folder else path.relative_to(self.folder).as_posix()
        try:
            check_links(path, root)
            return current, SiteRun(path, name, slug(name), run_folder.open_run(path).record, current)
        except UserError as error:
            return current, f"{name}: {error.message}"


def _signature(path: Path) -> Signature:
    """Changes with every record that is written to a run, and where a file or folder of it becomes a link."""
    found = []
    for place in (path, *(path / name for name in _PARTS)):
        try:
            its = place.lstat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((its.st_mode, its.st_ino, 0 if place == path else its.st_mtime_ns))
    return tuple(found)


def _runs_in(folder: Path) -> list[Path]:
    if (folder / "run.json").is_file():
        return [folder]
    return sorted(file.parent for pattern in ("*/run.json", "*/*/run.json") for file in folder.glob(pattern))


def check_links(run: Path, root: Path) -> None:
    """UserError if the folder of a run, or anything in it, is a link that leads out of the folder of runs."""
    for place in _links(run):
        if not place.resolve().is_relative_to(root):
            raise UserError(f"leads out of the folder of runs: {place.name} is a link", file=run)


def _links(run: Path) -> Iterator[Path]:
    if run.is_symlink():
        yield run
    for top, folders, files in os.walk(run):
        yield from (place for name in (*folders, *files) if (place := Path(top, name)).is_symlink())


def slug(name: str) -> str:
    """A name for addresses and files: itself where that is safe, else what is left of it with a hash of the whole."""
    safe = _UNSAFE.sub("-", name).strip(".-")[:_LONGEST]
    return safe if safe == name else f"{safe or 'run'}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
