"""A folder of runs in a store, mirrored on this machine: what is read is brought here first, what is measured is kept here and uploaded.

A file `.remote.json` in each mirrored run says which version of each remote file is here. A local file that it does not describe is not
uploaded yet. A cell's record is uploaded after its samples, and brought here after them: a record that exists is complete, on both sides.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from enginebench.errors import UserError
from enginebench.records.files import remove
from enginebench.records.remote.filesystem import RemoteFile, RemoteFolder
from enginebench.records.remote.urls import mirror_of
from enginebench.records.remote.versions import MANIFEST, Version, read_versions, write_versions

_ONLY_HERE = ("live.json", "report.html")
"""What goes on, and what can be made again."""
_LAST = ("logs", "scenario.yaml", "launches", "samples", "cells", "run.json")
"""The order in which files are brought here."""
_DEPTH = 2
"""Runs are in the folder, and in folders within it, such as published/."""
_AT_ONCE = 8

Say = Callable[[str], None]


@dataclass
class Mirror:
    """The folder of runs at a URL. Runs are named by their path in it."""

    remote: RemoteFolder
    local: Path

    @classmethod
    def of(cls, url: str) -> Mirror:
        return cls(RemoteFolder(url), mirror_of(url))

    # -- from the store to this machine ---------------------------------------------------------------------------------------------

    def pull(self, say: Say = lambda _: None) -> Path:
        """Bring every run here as it is in the store now, and forget those that are gone. Returns the local folder."""
        with self.locked():
            found = self.runs()
            for run, files in found.items():
                self._pull_run(run, files, say)
            for file in [file for depth in range(_DEPTH) for file in self.local.glob("*/" * (depth + 1) + MANIFEST)]:
                run = file.parent.relative_to(self.local).as_posix()
                if run not in found and not self.pending(run) and not _busy(file.parent):
                    remove(file.parent)
        return self.local

    def pull_run(self, run: str, say: Say = lambda _: None) -> Path:
        """Bring one run here."""
        with self.locked():
            self._pull_run(run, {name: its for name, its in self._below(run).items() if not _hidden(name)}, say)
        return self.local / run

    def pull_records(self, run: str, say: Say = lambda _: None) -> Path:
        """Bring what was recorded about one run here, but neither raw samples nor logs."""
        with self.locked():
            files = {name: its for name, its in self._below(run).items() if not _hidden(name)}
            records = {name: its for name, its in files.items() if name.split("/")[0] not in ("samples", "logs")}
            self._pull_run(run, records, say, part=True)
        return self.local / run

    def bring(self, runs: Mapping[str, Mapping[str, RemoteFile]], say: Say = lambda _: None) -> None:
        """Bring these runs here, of which `runs` has listed the files."""
        with self.locked():
            for run, files in runs.items():
                self._pull_run(run, files, say)

    def pull_heads(self) -> None:
        """Bring run.json of every run here, which is what is needed to choose one."""
        with self.locked():
            names = [name for name in self.remote.names() if not _hidden(name)]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                heads = list(pool.map(lambda name: self.remote.info(f"{name}/run.json"), names))
            for name, head in zip(names, heads, strict=True):
                if head is not None:
                    self._pull_run(name, {"run.json": head}, lambda _: None, part=True)

    def runs(self) -> dict[str, dict[str, RemoteFile]]:
        """Run -> its files by name in the run, of all that the store has."""
        names = self.remote.find()
        heads = {str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name == "run.json"}
        runs: dict[str, dict[str, RemoteFile]] = {head: {} for head in sorted(heads) if head != "." and head.count("/") < _DEPTH}
        for name, its in names.items():
            path = PurePosixPath(name)
            run = next((str(parent) for parent in path.parents if str(parent) in runs), None)
            if run is not None and not _hidden(inner := str(path.relative_to(run))):
                runs[run][inner] = its
        return runs

    def _below(self, run: str) -> dict[str, RemoteFile]:
        return {str(PurePosixPath(name).relative_to(run)): its for name, its in self.remote.find(run).items()}

    def _pull_run(self, run: str, files: Mapping[str, RemoteFile], say: Say, *, part: bool = False) -> None:
        """part: files are not all that the store has of the run. A run that is being written here is newer than the store."""
        folder = self.local / run
        if _busy(folder):
            return
        known = self._known(run)
        wanted = [name for name, its in files.items() if self._wanted(folder / name, its, known.get(name))]
        own = [name for name in wanted if _version(folder / name) not in (None, _of_local(known.get(name)))]
        kept = [name for name in own if name.split("/")[0] in ("cells", "samples", "launches")]
        theirs = [name for name in wanted if name not in own or name in kept]
        cells = self._set_aside(run, kept)
        for group in _in_order(theirs):
            with ThreadPoolExecutor(_AT_ONCE) as pool:  # waits for all; the first error is raised
                list(pool.map(lambda name: self.remote.download(f"{run}/{name}", folder / name), group))
            for name in group:
                known[name] = (files[name].tag, *(_version(folder / name) or (-1, -1)))
        gone = [] if part else [name for name in known if name not in files and _version(folder / name) == _of_local(known[name])]
        for name in gone:
            remove(folder / name)
            del known[name]
        if theirs or gone:
            self._save(run, known)
        if cells:
            counts = "that of the store counts, and what was measured here is in"
            say(f"note: {', '.join(cells)} of {run} was also measured elsewhere: {counts} {self._aside(run)}")

    @staticmethod
    def _wanted(file: Path, its: RemoteFile, known: Version | None) -> bool:
        """Whether the store has another version than the one that is here."""
        return known is None or known[0] != its.tag or not file.exists()

    def _set_aside(self, run: str, names: Sequence[str]) -> list[str]:
        """Move files of this machine away, for which the store has others. Returns the cells of which something was measured here."""
        cells = []
        for name in names:
            ours, aside = self.local / run / name, self._aside(run) / name
            if self.remote.read(f"{run}/{name}") == ours.read_bytes():
                continue  # uploaded, but this was not written down any more
            aside.parent.mkdir(parents=True, exist_ok=True)
            ours.replace(aside)
            cells += [PurePosixPath(name).stem] if name.startswith("cells/") else []
        return cells

    def _aside(self, run: str) -> Path:
        return self.local / ".aside" / run

    # -- from this machine to the store ---------------------------------------------------------------------------------------------

    def pending(self, run: str) -> list[str]:
        """The files of a run that are not in the store as they are here, in the order in which they are uploaded."""
        folder, known = self.local / run, self._known(run)
        found = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        return _for_upload(name for name in found if self._is_pending(folder / name, name, known))

    def push(self, run: str, names: Sequence[str] | None = None) -> int:
        """Upload what is pending of these files, or of all. Returns their number. StoreError in the middle leaves what was uploaded."""
        folder, known = self.local / run, self._known(run)
        chosen = self.pending(run) if names is None else _for_upload(n for n in names if self._is_pending(folder / n, n, known))
        done = 0
        try:
            for name in chosen:
                if (before := _version(folder / name)) is not None:
                    known[name] = (self.remote.upload(folder / name, f"{run}/{name}").tag, *before)
                    done += 1
        finally:
            if done:
                self._save(run, known)
        return done

    def rejoin(self, run: str, say: Say) -> bool:
        """Before a run that was kept here is uploaded: take what the store has of it; where it has nothing any more, all of it is pending.
        False: the store has another run of that name.
        """
        head, manifest = self.remote.read(f"{run}/run.json"), self.local / run / MANIFEST
        if head is None:
            manifest.unlink(missing_ok=True)
        elif not manifest.exists() and head != (self.local / run / "run.json").read_bytes():
            return False
        else:
            self.pull_run(run, say)
        return True

    def unsent(self) -> dict[str, int]:
        """Run -> number of files that are not in the store yet."""
        runs = [file.parent for depth in range(_DEPTH) for file in self.local.glob("*/" * (depth + 1) + "run.json")]
        names = [run.relative_to(self.local).as_posix() for run in runs if not _busy(run)]
        return {name: count for name in sorted(names) if (count := len(self.pending(name)))}

    @staticmethod
    def _is_pending(file: Path, name: str, known: Mapping[str, Version]) -> bool:
        return not _hidden(name) and (its := _version(file)) is not None and its != _of_local(known.get(name))

    # -- what is here ---------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process of this machine at a time."""
        try:
            self.local.mkdir(parents=True, exist_ok=True)
            file = (self.local / ".lock").open("w")
        except OSError as error:
            advice = "make it writable, or name another place: ENGINEBENCH_HOME=/path"
            raise UserError(f"the copy of {self.remote.shown} cannot be kept: {error.strerror}", file=self.local, advice=advice) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _known(self, run: str) -> dict[str, Version]:
        return read_versions(self.local / run)

    def _save(self, run: str, known: Mapping[str, Version]) -> None:
        write_versions(self.local / run, self.remote.shown, known)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/")) or name in _ONLY_HERE


def _version(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _of_local(known: Version | None) -> tuple[int, int] | None:
    return known[1:] if known is not None else None


def _in_order(names: Sequence[str]) -> Iterator[list[str]]:
    """Groups of files that may be brought at once, one after the other."""
    groups: dict[int, list[str]] = {}
    for name in names:
        first = name.split("/")[0]
        groups.setdefault(_LAST.index(first) if first in _LAST else -1, []).append(name)
    return (groups[place] for place in sorted(groups))


def _for_upload(names: Iterator[str]) -> list[str]:
    """What a run is comes first, cells come last, each after its samples."""
    order = ("scenario.yaml", "run.json", "launches", "logs", "samples")
    place = {name: i for i, name in enumerate(order)}
    return sorted(names, key=lambda name: (name.startswith("cells/"), place.get(name.split("/")[0], len(order)), name))


def _busy(folder: Path) -> bool:
    """Whether a process of this machine writes to the run."""
    try:
        with (folder / ".lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
