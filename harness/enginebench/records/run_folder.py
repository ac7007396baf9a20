"""One run on disk.

    results/<run>/run.json            scenario, plan, machine, SLO: a `RunRecord`
                  scenario.yaml       the scenario as written
                  launches/<id>.json  one per server start: a `LaunchRecord`
                  cells/<id>.json     one per cell, written when the cell ends: a `CellRecord`
                  samples/<id>.parquet  its raw samples, if there are any
                  logs/<id>.log       output of the engine; <id>.<member>.log for each further server of the deployment

Every file is replaced atomically, so a crash loses at most the cell that was being measured. Knows neither metrics nor reports.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.errors import UserError
from enginebench.records import upgrades
from enginebench.records.capsule import is_capsule, unpacked
from enginebench.records.cell import CellRecord, has_samples
from enginebench.records.files import remove, replace_atomically, sha256, write_atomically
from enginebench.records.launch import LaunchRecord
from enginebench.records.remote.local import local
from enginebench.records.run import RunRecord
from enginebench.records.schema import dump, load, parse, read

if TYPE_CHECKING:
    from enginebench.records.samples import Samples


@dataclass(frozen=True)
class StoredSamples:
    """The file of a cell's raw samples, as it was read."""

    file: Path
    content: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def read(self) -> Samples:
        """UserError if they are damaged."""
        from enginebench.records.samples import Samples  # brings numpy

        return Samples.parse(self.content, self.file)


_ID = re.compile(r"[A-Za-z0-9_-]+")
"""Of a cell: it names files, and a record may come from somebody else."""


class Run:
    """A run folder, open for reading and for adding records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = load(path / "run.json", RunRecord, upgrades.RUN)
        if (bad := next((cell for cell in self.record.cells if not _ID.fullmatch(cell)), None)) is not None:
            raise UserError(f"names the cell {bad[:60]!r}, which is no id", file=path / "run.json")

    @classmethod
    def create(cls, path: Path, record: RunRecord, scenario_text: str) -> Run:
        """Make a run folder; `path` must not exist."""

        def fill(folder: Path) -> None:
            for name in ("cells", "samples", "launches", "logs"):
                (folder / name).mkdir(parents=True)
            write_atomically(folder / "scenario.yaml", scenario_text)
            write_atomically(folder / "run.json", dump(record))

        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, fill)
        return cls(path)

    def update(self, record: RunRecord) -> None:
        """Replace the record of the run itself."""
        write_atomically(self.path / "run.json", dump(record))
        self.record = record

    def add_cell(self, cell: CellRecord, samples: Samples | None = None) -> None:
        """Store a finished cell. Samples are written first, so that a stored record always has its samples."""
        if samples is not None:
            replace_atomically(self._samples(cell.id), samples.write)
            cell = replace(cell, samples_sha256=sha256(self._samples(cell.id)))
        write_atomically(self._cell(cell.id), dump(cell))

    def add_launch(self, launch: LaunchRecord) -> None:
        """Store or replace the record of a server start."""
        write_atomically(self.path / "launches" / f"{launch.id}.json", dump(launch))

    def new_launch_id(self, launch_id: str) -> str:
        """An unused id for a server start: the plan's launch id, or for a restart that id with -2, -3, ... appended."""
        candidates = (launch_id if i == 1 else f"{launch_id}-{i}" for i in range(1, 10_000))
        return next(c for c in candidates if not (self.path / "launches" / f"{c}.json").exists() and not self.log(c).exists())

    def log(self, launch_id: str) -> Path:
        """File for the engine's output of that server start."""
        return self.path / "logs" / f"{launch_id}.log"

    def log_of(self, cell: CellRecord) -> Path | None:
        """The log that says why a cell failed, of the server that its reason names; None without one."""
        member = re.match(r"member (\S+):", cell.reason or "")
        logs = [*([self.path / "logs" / f"{cell.launch_id}.{member[1]}.log"] if member else []), self.log(cell.launch_id)]
        return next((log for log in logs if cell.status == "failed" and log.is_file()), None)

    def has(self, cell_id: str) -> bool:
        """Whether the cell is stored, damaged or not."""
        return self._cell(cell_id).exists()

    def drop(self, cell_id: str) -> None:
        """Remove a cell, so that it is measured again."""
        remove(self._cell(cell_id))
        remove(self._samples(cell_id))

    def cells(self) -> Iterator[CellRecord]:
        """The stored cells in plan order, without those whose record cannot be read. A cell of a damaged launch has failed."""
        return (record for record, _ in self.cells_with_hash())

    def cells_with_hash(self, only: Collection[str] | None = None) -> Iterator[tuple[CellRecord, str]]:
        """The same, each with the SHA-256 of the file that it was read from. only: the ids of those that are wanted; None: of all."""
        launches = self._read_launches()
        for cell_id in filter(self.has, (each for each in self.record.cells if only is None or each in only)):
            with contextlib.suppress(UserError):
                record, digest = self._read_cell(cell_id)
                launch = launches.get(record.launch_id)
                if isinstance(launch, UserError):
                    record = replace(record, status="failed", reason=f"damaged: its launch record {record.launch_id}.json {launch.message}")
                yield record, digest

    def cell(self, cell_id: str) -> CellRecord:
        """One stored cell. UserError if there is none, or if it is damaged or that of another cell."""
        return self._read_cell(cell_id)[0]

    def _read_cell(self, cell_id: str) -> tuple[CellRecord, str]:
        file = self._cell(cell_id)
        content = read(file)
        record = parse(content, file, CellRecord, upgrades.CELL)
        if record.id != cell_id:
            raise UserError(f"is the record of another cell, {record.id}", file=file)
        return record, hashlib.sha256(content).hexdigest()

    def launches(self) -> dict[str, LaunchRecord]:
        """Launch id -> record, for every stored server start that can be read."""
        return {name: launch for name, launch in self._read_launches().items() if isinstance(launch, LaunchRecord)}

    def _read_launches(self) -> dict[str, LaunchRecord | UserError]:
        """File name -> the record, or why it cannot be used."""
        found: dict[str, LaunchRecord | UserError] = {}
        for file in sorted((self.path / "launches").glob("*.json")):
            try:
                launch: LaunchRecord | UserError = load(file, LaunchRecord, upgrades.LAUNCH)
            except UserError as error:
                launch = error
            other = isinstance(launch, LaunchRecord) and launch.id != file.stem
            found[file.stem] = UserError("is the record of another launch", file=file) if other else launch
        return found

    def samples(self, cell_id: str) -> Samples | None:
        """The raw samples of a cell; None if it has none. UserError if they are damaged."""
        stored = self.stored_samples(self.cell(cell_id))
        return stored.read() if stored is not None else None

    def stored_samples(self, cell: CellRecord) -> StoredSamples | None:
        """A cell's raw samples, which are those that were stored with it; None without any. UserError if they are damaged."""
        file, expected = self._samples(cell.id), cell.samples_sha256
        if not file.is_file():
            if expected is not None or file.exists():
                raise UserError("raw samples are missing", file=file)
            return None
        try:
            stored = StoredSamples(file, file.read_bytes())
        except OSError as error:
            raise UserError(f"raw samples cannot be read: {error.strerror}", file=file) from None
        if expected is not None and stored.sha256 != expected:
            raise UserError("raw samples are damaged: they are not those that were stored with the cell", file=file)
        return stored

    def requests(self) -> int:
        """Number of requests in the raw samples of all cells; without reading them."""
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(file).num_rows for file in sorted((self.path / "samples").glob("*.parquet")))

    def damage(self) -> dict[str, str]:
        """Id of each stored cell that cannot be used -> why, in one sentence."""
        found: dict[str, str] = {}
        good = {record.id: record for record in self.cells()}
        for cell_id in filter(self.has, self.record.cells):
            try:
                record = good.get(cell_id) or self.cell(cell_id)
                stored = self.stored_samples(record) if record.status == "ok" and has_samples(record) else None
                if record.status == "ok" and has_samples(record) and stored is None:
                    found[cell_id] = "raw samples are missing"
                elif stored is not None and record.samples_sha256 is None:
                    stored.read()
                elif (record.reason or "").startswith("damaged: "):
                    found[cell_id] = record.reason or ""
            except UserError as error:
                found[cell_id] = f"{error.file.name if error.file else cell_id}: {error.message}"
        return found

    @property
    def finished(self) -> bool:
        """Whether every cell of the plan is stored."""
        return all(self.has(cell_id) for cell_id in self.record.cells)

    def _cell(self, cell_id: str) -> Path:
        return self.path / "cells" / f"{cell_id}.json"

    def _samples(self, cell_id: str) -> Path:
        return self.path / "samples" / f"{cell_id}.parquet"


def open_run(path: str | Path) -> Run:
    """Open a run folder or a capsule, also at a URL. UserError if it is neither, is damaged, or was written by a newer version."""
    path = local(path)
    if is_capsule(path):
        return Run(unpacked(path))
    if not (path / "run.json").is_file():
        raise UserError("is not a run (it has no run.json)", file=path, advice="runs are folders under results/, made by `bench run`")
    return Run(path)


def find_runs(results: str | Path, name: str | None = None) -> list[Run]:
    """The readable runs under `results`, oldest first. name: only those of this scenario."""
    results = local(results)
    runs: list[Run] = []
    for file in results.glob("*/run.json"):
        try:
            run = Run(file.parent)
        except UserError:
            continue  # not a run, or one of a newer version: it cannot be resumed
        if name in (None, run.record.name):
            runs.append(run)
    return sorted(runs, key=lambda run: (run.record.created_at, run.path.name))


def new_run_paths(results: Path, name: str) -> Iterator[Path]:
    """results/<date>-<name>, then with -2, -3, ... appended; those that do not exist."""
    stem = f"{dt.datetime.now(dt.UTC).date().isoformat()}-{name}"
    candidates = (results / (stem if i == 1 else f"{stem}-{i}") for i in range(1, 10_000))
    return (path for path in candidates if not path.exists())


def new_run_path(results: Path, name: str) -> Path:
    """The first of them."""
    return next(new_run_paths(results, name))
