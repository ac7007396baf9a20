"""The index over a folder of runs: one DuckDB database in the cache folder, made from the runs' files, and again whenever it is missing.

It is never a second truth. Each run has a stamp of all its files (size and times of change), of the code that computes figures and of the
files of weights; a run whose stamp differs is read anew, one that is gone is removed. Of a run that cannot be read it has the reason.
Imports nothing that takes long unless a run has changed. docs/decisions/0019-index-over-runs.md says why it is made so.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginebench.analysis import dependencies
from enginebench.analysis.stored_run import StoredRow, StoredRun
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir

if TYPE_CHECKING:
    import duckdb

    from enginebench.analysis.run_summary import RunSummary

_LAYOUT = 1
"""Raise it when a table changes; an index of another layout is made anew."""
_TABLES = """
create table runs (id text, stamp text, data text);
create table facts (run text, "of" text, data text);
create table rows (run text, place int, key text, engine_key text, deployment text, engine text, model text, load text, level double,
                   status text, verdict text, reasons text);
create table figures (run text, place int, figure text, "values" double[], value double, low double, high double);
"""
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
    """The runs of a folder as they were when it was opened."""

    folder: Path
    database: Path
    runs: tuple[StoredRun, ...]
    """Newest first; damaged ones last."""

    def rows(self, run: str | None = None, *, figures: Sequence[str] | None = None) -> tuple[StoredRow, ...]:
        """The rows of a run, or of all runs from the oldest to the newest, each in the order of its plan.

        figures: the figures to read ('ttft_p99'); None: all. Over many runs, a few are read much faster.
        """
        from enginebench.metrics.statistics import Estimate

        wanted = {each.id for each in self.runs if run in (None, each.id)}
        order = {each.id: -i for i, each in enumerate(self.runs)}
        with _opened(self.database) as base:
            where, given = ("", []) if run is None else (" where run = ?", [run])
            rows = base.execute(f"select * from rows{where} order by run, place", given).fetchall()  # noqa: S608  # no text from outside
            chosen = " and " if where else " where "
            names = "" if figures is None else f"{chosen}list_contains(?, figure)"
            values = base.execute(
                f'select run, place, figure, "values", value, low, high from figures{where}{names}',  # noqa: S608  # as above
                [*given, *([list(figures)] if figures is not None else [])],
            ).fetchall()
        found: dict[tuple[str, int], dict[str, Estimate]] = {}
        for owner, place, figure, each, value, low, high in values:
            found.setdefault((owner, place), {})[figure] = Estimate(value, tuple(each), low, high)
        made = [
            StoredRow(*[owner, *rest, tuple(json.loads(reasons)), found.get((owner, place), {})])
            for owner, place, *rest, reasons in rows
            if owner in wanted
        ]
        return tuple(sorted(made, key=lambda row: order[row.run]))

    def facts(self, run: str) -> Mapping[str, Mapping[str, str]]:
        """What is recorded about a run: 'machine', 'run' and each 'MODEL/DEPLOYMENT' -> facts by dotted key, as `compare` lists them."""
        with _opened(self.database) as base:
            found = base.execute('select "of", data from facts where run = ?', [run]).fetchall()
        return {of: json.loads(data) for of, data in found}


def run_index(folder: str | Path = "results", *, on_run: OnRun = lambda _done, _all: None) -> RunIndex:
    """The index over the runs of a folder, up to date. on_run: called before each run that has to be read.

    UserError if the folder is not there.
    """
    place = Path(folder)
    if not place.is_dir():
        raise UserError("there are no runs: it is not a folder", file=place, advice="make a run: bench run quickstart")
    database = cache_dir() / "index" / f"{hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:16]}.duckdb"
    paths = {_name_of(file.parent, place): file.parent for pattern in _PLACES for file in place.glob(pattern)}
    known = _known(database)
    common = json.dumps([dependencies.code_hash(), dependencies.catalogues()])
    stamps = {name: _stamp(path, common) for name, path in paths.items()}
    weights = {stamp for _, data in known.values() for stamp in map(tuple, data["weights"])}
    changed = {stamp for stamp in weights if dependencies.stamps([stamp[0]])[0] != stamp}
    kept = {
        name: data
        for name, (stamp, data) in known.items()
        if stamp and stamp == stamps.get(name) and changed.isdisjoint(map(tuple, data["weights"]))
    }
    new = sorted(set(paths) - set(kept))
    fresh = _read_runs(database, {name: paths[name] for name in new}, stamps, on_run)
    if gone := set(known) - set(paths):
        with _opened(database, write=True) as base:
            _forget(base, gone)
    runs = [*fresh, *(_stored(name, paths[name], data) for name, data in kept.items())]
    return RunIndex(place, database, tuple(sorted(runs, key=lambda run: (run.started_at, run.id), reverse=True)))


def _name_of(run: Path, folder: Path) -> str:
    """`StoredRun.id`; bytes that are no text are question marks."""
    return run.relative_to(folder).as_posix().encode(errors="replace").decode()


def _read_runs(database: Path, paths: Mapping[str, Path], stamps: Mapping[str, str], on_run: OnRun) -> list[StoredRun]:
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
            with _opened(database, write=True) as base:
                _store(base, batch, stamps)
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


def _files(folder: Path, only: str | None) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((each for each in entries if only in (None, each.name)), key=lambda each: each.name)
    except OSError:
        return []


# -- the database ----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(database: Path, *, write: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that no writer disturbs: writers of other processes wait, and are waited for."""
    import duckdb  # not above: it starts threads, for which a process that was forked later waits in vain when it ends

    with _locked(database, fcntl.LOCK_EX if write else fcntl.LOCK_SH), duckdb.connect(str(database), read_only=not write) as base:
        yield base


@contextlib.contextmanager
def _locked(database: Path, how: int) -> Iterator[None]:
    """UserError if the folder of the index cannot be written to."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = database.with_suffix(".lock").open("w")
    except OSError as error:
        advice = "make the cache folder writable, or name another: ENGINEBENCH_HOME=/path"
        raise UserError(f"the index over runs cannot be written: {error.strerror}", file=database, advice=advice) from None
    with lock:
        fcntl.flock(lock, how)
        yield


def _known(database: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Run -> its stamp and data. A missing index, one that cannot be read, or one of another layout is made anew, and knows none."""
    import duckdb

    try:
        with _opened(database) as base:
            if base.execute("select layout from meta").fetchall() == [(_LAYOUT,)]:
                return {name: (stamp, json.loads(data)) for name, stamp, data in base.execute("select * from runs").fetchall()}
    except (duckdb.Error, ValueError):
        pass
    with _locked(database, fcntl.LOCK_EX):
        for file in (database, database.with_name(f"{database.name}.wal")):
            file.unlink(missing_ok=True)
        with duckdb.connect(str(database)) as base:
            base.execute(_TABLES)
            base.execute("create table meta as select ? as layout", [_LAYOUT])
    return {}


def _forget(base: duckdb.DuckDBPyConnection, names: set[str]) -> None:
    for table, column in (("runs", "id"), ("facts", "run"), ("rows", "run"), ("figures", "run")):
        base.execute(f"delete from {table} where list_contains(?, {column})", [sorted(names)])  # noqa: S608  # no text from outside


def _store(base: duckdb.DuckDBPyConnection, summaries: Sequence[RunSummary], stamps: Mapping[str, str]) -> None:
    """Replace these runs, all or none."""
    base.begin()
    _forget(base, {each.run.id for each in summaries})
    tables: dict[str, list[tuple[Any, ...]]] = {"runs": [], "facts": [], "rows": [], "figures": []}
    for each in summaries:
        run, data = each.run, {name: value for name, value in asdict(each.run).items() if name not in ("id", "path")}
        tables["runs"].append((run.id, stamps[run.id], json.dumps(data)))
        tables["facts"] += [(run.id, of, json.dumps(facts)) for of, facts in each.facts.items()]
        for place, row in enumerate(each.rows):
            known = (row.key, row.engine_key, row.deployment, row.engine, row.model, row.load, row.level, row.status, row.verdict)
            tables["rows"].append((run.id, place, *known, json.dumps(row.reasons)))
            its = row.figures.items()
            tables["figures"] += [(run.id, place, name, list(of.values), of.value, of.low, of.high) for name, of in its]
    for table, lines in tables.items():
        _insert(base, table, lines)
    base.commit()


def _insert(base: duckdb.DuckDBPyConnection, table: str, lines: Sequence[tuple[Any, ...]]) -> None:
    """As one Arrow table: a statement for each line takes a millisecond."""
    import pyarrow as pa

    if lines:
        columns = [pa.array(column) for column in zip(*lines, strict=True)]
        base.register("new", pa.table(columns, names=[f"c{i}" for i in range(len(columns))]))
        base.execute(f"insert into {table} select * from new")  # noqa: S608  # no text from outside
        base.unregister("new")


def _stored(name: str, path: Path, data: dict[str, Any]) -> StoredRun:
    versions = {engine: tuple(its) for engine, its in data["engines"].items()}
    weights = tuple(tuple(stamp) for stamp in data["weights"])
    return StoredRun(name, path, **{**data, "engines": versions, "models": tuple(data["models"]), "weights": weights})
