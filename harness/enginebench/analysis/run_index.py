"""The index over a folder of runs: made from their files, and again whenever it is missing. A DuckDB file in the cache folder, or by URL
a database that a team shares.

It is never a second truth. Each run has a stamp of all its files (size and times of change, or their versions in a store), of the code that
computes figures and of the files of weights; a run whose stamp differs is read anew, one that is gone is removed. Of a run that cannot be
read it has the reason. Imports nothing that takes long unless a run has changed. docs/decisions/0019-index-over-runs.md and
0026-a-store-for-a-team.md say why it is made so.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.analysis import dependencies
from enginebench.analysis.index.duckdb_file import DuckDBFile
from enginebench.analysis.index.tables import IndexStore, Known, Tables, lines_of, stored_run
from enginebench.analysis.stored_run import StoredRow, StoredRun
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from enginebench.records.remote.filesystem import RemoteFile
from enginebench.records.remote.mirror import Mirror
from enginebench.records.remote.urls import url_of

if TYPE_CHECKING:
    from enginebench.analysis.night_run import NightRun
    from enginebench.analysis.run_summary import RunSummary

VARIABLE = "ENGINEBENCH_INDEX"
"""Names the index where none is asked for."""
_PLACES = ("*/run.json", "*/*/run.json")
"""Where runs are: in the folder, and in folders within it, such as results/published."""
_PARTS = ("cells", "launches", "samples")
_SETTLED_NS = 2 * 10**9
"""A file that changed less than this ago may change again without another time of change."""
_BATCH_S = 5.0
"""Time after which what was read is stored, so that an interrupted listing goes on from there."""

OnRun = Callable[[int, int], None]
"""Called with (runs read, runs to read) before each run that is read anew."""


@dataclass(frozen=True)
class RunIndex:
    """The runs of a folder as they were when it was opened; or those of all folders that a shared index knows."""

    folder: str
    """As it was named."""
    stores: Mapping[str, IndexStore]
    """What the ids of the runs begin with -> their tables: '' for those of one folder."""
    runs: tuple[StoredRun, ...]
    """Newest first; damaged ones last."""

    def rows(self, run: str | None = None, *, figures: Sequence[str] | None = None) -> tuple[StoredRow, ...]:
        """The rows of a run, or of all runs from the oldest to the newest, each in the order of its plan.

        figures: the figures to read ('ttft_p99'); None: all. Over many runs, a few are read much faster.
        """
        order = {each.id: -i for i, each in enumerate(self.runs) if run in (None, each.id)}
        found = [row for tables in self._tables(run, figures) for row in tables.stored_rows() if row.run in order]
        return tuple(sorted(found, key=lambda row: order[row.run]))

    def nights(self, figures: Sequence[str] | None = None, *, runs: Sequence[str] | None = None) -> tuple[NightRun, ...]:
        """What history needs of the runs, oldest first, with these figures. runs: only these."""
        wanted = [run for run in reversed(self.runs) if runs is None or run.id in runs]
        single = runs[0] if runs is not None and len(runs) == 1 else None
        found = (night for tables in self._tables(single, figures, facts=True) for night in tables.night_runs(wanted))
        unique = {night.id: night for night in found if night.rows}
        return tuple(sorted(unique.values(), key=lambda night: night.created_at))

    def facts(self, run: str) -> Mapping[str, Mapping[str, str]]:
        """What is recorded about a run: 'machine', 'run' and each 'MODEL/DEPLOYMENT' -> facts by dotted key, as `compare` lists them."""
        prefix, store = self._store_of(run)
        return {of: json.loads(data) for _, of, data in store.facts(run.removeprefix(prefix))}

    def _store_of(self, run: str) -> tuple[str, IndexStore]:
        return max(((prefix, store) for prefix, store in self.stores.items() if run.startswith(prefix)), key=lambda each: len(each[0]))

    def _tables(self, run: str | None, figures: Sequence[str] | None, *, facts: bool = False) -> Iterator[Tables]:
        """Of each folder, with the ids that its runs have here."""
        stores = self.stores.items() if run is None else [self._store_of(run)]
        for prefix, store in stores:
            name = None if run is None else run.removeprefix(prefix)
            parts = store.rows(name), store.figures(name, figures), store.facts(name) if facts else []
            yield Tables(*([(f"{prefix}{line[0]}", *line[1:]) for line in lines] for lines in parts))


def run_index(folder: str | Path | None = None, *, index: str | None = None, on_run: OnRun = lambda _done, _all: None) -> RunIndex:
    """The index over the runs of a folder, or of a store at a URL, up to date. on_run: called before each run that has to be read.

    index: 'postgresql://USER@HOST/DATABASE' for one that a team shares; None: what ENGINEBENCH_INDEX names, or a file in the cache folder.
    folder: None: 'results'; or, where `index` is given, all that it knows, without a look at any file.
    UserError if the folder is not there, or the index cannot be used.
    """
    if folder is None and index is not None:
        return _everything(index)
    named = folder if folder is not None else "results"
    shared = index or os.environ.get(VARIABLE) or None
    if (url := url_of(named)) is not None:
        mirror = Mirror.of(url)
        store = _store(mirror.local, mirror.remote.shown, shared)
        return RunIndex(mirror.remote.shown, {"": store}, _of_store(store, mirror, on_run))
    place = Path(named)
    if not place.is_dir():
        raise UserError("there are no runs: it is not a folder", file=place, advice="make a run: bench run quickstart")
    store = _store(place, f"{socket.gethostname()}:{os.fsdecode(place.resolve())}", shared)
    return RunIndex(str(named), {"": store}, _of_folder(store, place, on_run))


def _store(place: Path, name: str, index: str | None) -> IndexStore:
    """name: of the folder in a shared index."""
    if index is None:
        return DuckDBFile(cache_dir() / "index" / f"{hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:16]}.duckdb")
    from enginebench.analysis.index.sql import SqlIndex

    return SqlIndex.open(_url(index), name)


def _url(index: str) -> str:
    if "://" not in index:
        raise UserError(f"'{index}' is no URL of a database", key="--index", advice="write postgresql://USER@HOST/DATABASE")
    return index


def _everything(index: str) -> RunIndex:
    """All runs that a shared index knows, of every folder, each named by its folder and its name there."""
    from enginebench.analysis.index.sql import SqlIndex, folders

    stores = {f"{name}/": SqlIndex.open(_url(index), name) for name in folders(_url(index))}
    runs = [
        stored_run(f"{prefix}{name}", Path(f"{prefix}{name}"), data)
        for prefix, store in stores.items()
        for name, (_, data) in store.known().items()
    ]
    return RunIndex("the shared index", dict(stores), _newest_first(runs))


def _newest_first(runs: Sequence[StoredRun]) -> tuple[StoredRun, ...]:
    return tuple(sorted(runs, key=lambda run: (run.started_at, run.id), reverse=True))


def _of_folder(store: IndexStore, place: Path, on_run: OnRun) -> tuple[StoredRun, ...]:
    paths = {_name_of(file.parent, place): file.parent for pattern in _PLACES for file in place.glob(pattern)}
    known, common = store.known(), _common()
    stamps = {name: _stamp(path, common) for name, path in paths.items()}
    weights = {stamp for _, data in known.values() for stamp in map(tuple, data["weights"])}
    changed = {stamp for stamp in weights if dependencies.stamps([stamp[0]])[0] != stamp}
    current = {name: its for name, its in known.items() if changed.isdisjoint(map(tuple, its[1]["weights"]))}
    return _up_to_date(store, current, set(known), paths, stamps, on_run)


def _of_store(store: IndexStore, mirror: Mirror, on_run: OnRun) -> tuple[StoredRun, ...]:
    """Only runs that are new or changed are brought here. The weights that ceilings depend on are files of one machine: of a store, which
    many read, the ceilings of the first reader stay.
    """
    listed, known, common = mirror.runs(), store.known(), _common()
    if not listed:
        raise UserError(f"{mirror.remote.shown} has no runs", advice="store one there: bench run SCENARIO --results URL")
    stamps = {name: _remote_stamp(files, common) for name, files in listed.items()}
    mirror.bring({name: files for name, files in listed.items() if known.get(name, ("",))[0] != stamps[name]})
    return _up_to_date(store, known, set(known), {name: mirror.local / name for name in listed}, stamps, on_run)


def _common() -> str:
    return json.dumps([dependencies.code_hash(), dependencies.catalogues()])


def _up_to_date(
    store: IndexStore, current: Mapping[str, Known], known: set[str], paths: Mapping[str, Path], stamps: Mapping[str, str], on_run: OnRun
) -> tuple[StoredRun, ...]:
    """current: what is known and may still hold. known: the names of all that is."""
    kept = {name: data for name, (stamp, data) in current.items() if stamp and stamp == stamps.get(name)}
    fresh = _read_runs(store, {name: paths[name] for name in sorted(set(paths) - set(kept))}, stamps, on_run)
    if gone := known - set(paths):
        store.forget(gone)
    return _newest_first([*fresh, *(stored_run(name, paths[name], data) for name, data in kept.items())])


def _name_of(run: Path, folder: Path) -> str:
    """`StoredRun.id`; bytes that are no text are question marks."""
    return run.relative_to(folder).as_posix().encode(errors="replace").decode()


def _read_runs(store: IndexStore, paths: Mapping[str, Path], stamps: Mapping[str, str], on_run: OnRun) -> list[StoredRun]:
    """Read these runs and store them, in batches."""
    if not paths:
        return []
    from enginebench.analysis.run_summary import summarise_run

    found: list[StoredRun] = []
    batch: list[RunSummary] = []
    began = time.monotonic()
    for i, (name, path) in enumerate(paths.items(), start=1):
        on_run(i - 1, len(paths))
        batch.append(summarise_run(name, path))
        if time.monotonic() - began > _BATCH_S or i == len(paths):
            store.store(lines_of(batch, stamps))
            found += [each.run for each in batch]
            batch, began = [], time.monotonic()
    return found


# -- what a run is known by ------------------------------------------------------------------------------------------------------


def _stamp(path: Path, common: str) -> str:
    """Of all files of a run; '' if one changed just now, so that the run is read again next time."""
    whole = hashlib.sha256(common.encode())
    newest = 0
    for part in ("", *_PARTS):
        for entry in _files(path / part, only="run.json" if not part else None):
            stat = entry.stat()
            newest = max(newest, stat.st_mtime_ns, stat.st_ctime_ns)
            whole.update(f"{part}/{entry.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode(errors="replace"))
    return whole.hexdigest() if newest < time.time_ns() - _SETTLED_NS else ""


def _remote_stamp(files: Mapping[str, RemoteFile], common: str) -> str:
    """Of the versions that a store lists: the same on every machine."""
    parts = ("run.json", *(f"{part}/" for part in _PARTS))
    lines = [f"{name} {its.size} {its.tag}" for name, its in sorted(files.items()) if name.startswith(parts)]
    return hashlib.sha256("\n".join([common, *lines]).encode(errors="replace")).hexdigest()


def _files(folder: Path, only: str | None) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((each for each in entries if only in (None, each.name)), key=lambda each: each.name)
    except OSError:
        return []
