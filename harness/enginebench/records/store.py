"""One run on disk: a folder that a crash can only shorten, never spoil.

    results/<run>/run.json            scenario, plan, machine (written once at the start)
                  scenario.yaml       the scenario, verbatim
                  launches/<id>.json  one per server start: command, resolved configuration, parity outputs, how it ended
                  cells/<id>.json     one per cell, written atomically the moment the cell ends
                  samples/<id>.parquet  its raw samples
                  logs/<id>.log       the engine's own output; <id>.<member>.log of a deployment of several servers

Every record carries the schema version; a newer one is refused with a clear message. Knows nothing of metrics or reports.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from enginebench.domain import JSON, Deployment, Status, plain
from enginebench.errors import UserError
from enginebench.records.counters import CounterSeries
from enginebench.records.evidence import Stated
from enginebench.records.stored_load import StoredLoad
from enginebench.records.subject import Subject

if TYPE_CHECKING:
    from enginebench.records.samples import Samples

SCHEMA = 1
"""Version of every record below. Raise it when a reader of the old one would misread the new one."""

R = TypeVar("R")


@dataclass(frozen=True)
class RunRecord:
    """What is known when a run starts. machine: `enginebench.machine.host` facts; cells: every cell id in order.

    slo: what a good answer is, as `enginebench.metrics.slo.parse` reads it; None: the scenario does not say.
    """

    name: str
    created_at: str
    scenario: Mapping[str, JSON]
    plan_id: str
    cells: tuple[str, ...]
    machine: Mapping[str, JSON]
    enginebench: str
    slo: Mapping[str, JSON] | None = None
    schema: int = SCHEMA


@dataclass(frozen=True)
class LaunchRecord:
    """One server start. start_s: from exec to proven ready. identity: 'proven', or why it could not be.

    packages: what is installed in the engine's environment; inherited: names of the environment variables it got from ours.
    resolved: what the engine says of itself, `differences`: where that is not what was asked. parity: prompt -> greedy output.
    members: the servers that were started before argv, each an `enginebench.adapter.Member`; their logs are <id>.<name>.log.
    container: with `runtime: docker` the image, its id and digests, and the base that it was built on.
    """

    id: str
    deployment: Deployment
    repeat: int
    started_at: str
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Mapping[str, JSON], ...] = ()
    notes: tuple[str, ...] = ()
    variant: str | None = None
    version: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    inherited: tuple[str, ...] = ()
    container: Mapping[str, JSON] = field(default_factory=dict)
    start_s: float | None = None
    stop_s: float | None = None
    identity: str | None = None
    resolved: Mapping[str, JSON] = field(default_factory=dict)
    differences: tuple[Mapping[str, JSON], ...] = ()
    parity: tuple[Mapping[str, JSON], ...] = ()
    ended: str | None = None
    schema: int = SCHEMA


@dataclass(frozen=True)
class CellRecord:
    """One cell. reason says why it failed or was skipped; client: what the load generator knows of itself.

    counters: the engine's own totals over the cell (after - before), under neutral names; series: its counters while the load ran.
    telemetry: GPUs, the machine and what the engine runs in, while the load ran; empty in records of before there was any.
    prompt_form: 'ids' or 'text'. forced_routing: tokens were spread over the experts by a rule. dense:
    there is nothing to route, as far as is known. gpus: devices the deployment takes
    where it runs on any; None: nobody knows. exact_prompts: whether the prompts'
    token counts were known (else they were fitted to how the server counts text). stopped: why the load ended early, with
    `unsent` requests never tried. saturated: why the load was broken off because the server's queue grew without bound.
    client_limit: what this machine's client was calibrated to bear, `events_per_s` and `streams`; empty: it was not calibrated.
    token_check: output tokens of the warm-up's requests as the `server` and as the checkpoint's own `tokenizer` count them.
    nonce: what was mixed into the prompts beside seed and repeat.
    """

    id: str
    launch_id: str
    deployment: Deployment
    load: StoredLoad
    repeat: int
    status: Status
    reason: str | None = None
    started_at: str | None = None
    wall_s: float | None = None
    window_ns: tuple[int, int] | None = None
    client: Mapping[str, JSON] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    series: CounterSeries = field(default_factory=CounterSeries)
    telemetry: tuple[Subject, ...] = ()
    length_control: str = "exact"
    prompt_form: str = ""
    exact_prompts: bool = True
    stopped: str | None = None
    unsent: int = 0
    saturated: str | None = None
    client_limit: Mapping[str, JSON] = field(default_factory=dict)
    token_check: Mapping[str, int] = field(default_factory=dict)
    nonce: str = ""
    random_weights: bool = False
    dense: bool = False
    forced_routing: bool = False
    gpus: int | None = None
    identity: str | None = None
    log_tail: tuple[str, ...] = ()
    stated: Stated | None = None
    """Figures that another tool's file states, for a cell without raw samples."""
    schema: int = SCHEMA


def now() -> str:
    """Wall-clock time in UTC, ISO 8601, for people; nothing is ever computed from it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


class Run:
    """A run folder, open for reading and for adding records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = _load(path / "run.json", RunRecord)

    @classmethod
    def create(cls, path: Path, record: RunRecord, scenario_text: str) -> Run:
        """A new run folder; `path` must not exist."""
        for name in ("cells", "samples", "launches", "logs"):
            (path / name).mkdir(parents=True)
        write_atomically(path / "scenario.yaml", scenario_text)
        write_atomically(path / "run.json", _dump(record))  # last: a folder without it is not a run
        return cls(path)

    def add_cell(self, cell: CellRecord, samples: Samples | None = None) -> None:
        """Store a finished cell: samples first, so that a record never points at nothing."""
        if samples is not None:
            target = self.path / "samples" / f"{cell.id}.parquet"
            part = target.with_suffix(".part")
            samples.write(part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
            _sync_folder(target.parent)
        write_atomically(self.path / "cells" / f"{cell.id}.json", _dump(cell))

    def add_launch(self, launch: LaunchRecord) -> None:
        """Store (or replace) the record of a server start."""
        write_atomically(self.path / "launches" / f"{launch.id}.json", _dump(launch))

    def new_launch_id(self, launch_id: str) -> str:
        """An unused id for a server start: the first keeps the plan's id, a restart after a crash gets -2, -3, ..."""
        candidates = (launch_id if i == 1 else f"{launch_id}-{i}" for i in range(1, 10_000))
        return next(c for c in candidates if not (self.path / "launches" / f"{c}.json").exists() and not self.log(c).exists())

    def log(self, launch_id: str) -> Path:
        """Where the engine's output of that launch goes."""
        return self.path / "logs" / f"{launch_id}.log"

    def has(self, cell_id: str) -> bool:
        """Whether a record of that cell is stored."""
        return (self.path / "cells" / f"{cell_id}.json").is_file()

    def drop(self, cell_id: str) -> None:
        """Forget a cell, so that it is measured again."""
        (self.path / "cells" / f"{cell_id}.json").unlink(missing_ok=True)

    def cells(self) -> Iterator[CellRecord]:
        """The stored cells in plan order."""
        for cell_id in self.record.cells:
            if self.has(cell_id):
                yield _load(self.path / "cells" / f"{cell_id}.json", CellRecord)

    def launches(self) -> dict[str, LaunchRecord]:
        """Launch id -> record, of every server start that was stored."""
        return {file.stem: _load(file, LaunchRecord) for file in sorted((self.path / "launches").glob("*.json"))}

    def samples(self, cell_id: str) -> Samples | None:
        """The raw samples of a cell; None when it has none."""
        from enginebench.records.samples import Samples

        file = self.path / "samples" / f"{cell_id}.parquet"
        return Samples.read(file) if file.is_file() else None

    @property
    def finished(self) -> bool:
        """Whether every planned cell has a record."""
        return all(self.has(cell_id) for cell_id in self.record.cells)


def open_run(path: Path) -> Run:
    """Open a run for reading. UserError when it is not one, is damaged, or was written by a newer version."""
    if not (path / "run.json").is_file():
        raise UserError("is not a run (it has no run.json)", file=path, advice="runs are folders under results/, made by `bench run`")
    return Run(path)


def find_runs(results: Path, name: str | None = None) -> list[Run]:
    """The readable runs under `results`, oldest first. name: only those of this scenario."""
    runs: list[Run] = []
    for file in results.glob("*/run.json"):
        try:
            run = Run(file.parent)
        except UserError:
            continue  # somebody else's folder, or a newer version's: not ours to resume
        if name in (None, run.record.name):
            runs.append(run)
    return sorted(runs, key=lambda run: (run.record.created_at, run.path.name))


def new_run_path(results: Path, name: str) -> Path:
    """results/<date>-<name>, with -2, -3, ... when that is taken."""
    stem = f"{dt.datetime.now(dt.UTC).date().isoformat()}-{name}"
    candidates = (results / (stem if i == 1 else f"{stem}-{i}") for i in range(1, 10_000))
    return next(path for path in candidates if not path.exists())


def write_atomically(path: Path, text: str) -> None:
    """Write so that a reader sees the old content or the new, and a power cut leaves one of the two."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut: the name lies in the folder, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NUMBERS = re.compile(r"\[\n[\s\d.,eE+-]*(?:null[\s\d.,eE+-]*)*\]")
"""A list of numbers (or nulls) over several lines; no JSON string holds a line break, so this never lies inside one."""


def _dump(record: RunRecord | LaunchRecord | CellRecord) -> str:
    """JSON for people, in which a list of numbers takes one line."""
    text = json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False)
    return _NUMBERS.sub(lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text) + "\n"


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """What reads records of a kind; made once, which takes longer than to read fifty."""
    return TypeAdapter(kind)


def _load(file: Path, kind: type[R]) -> R:
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
        version = data.get("schema", 0) if isinstance(data, dict) else 0
        if isinstance(version, int) and version > SCHEMA:
            raise UserError(
                f"has schema {version}, this enginebench reads up to {SCHEMA}", file=file, advice="upgrade enginebench to read it"
            )
        return cast("R", _adapter(kind).validate_python(data))  # type: ignore[arg-type]  # mypy: type[R] is Hashable
    except (ValueError, ValidationError, OSError) as error:
        raise UserError(f"cannot be read: {str(error).splitlines()[0]}", file=file) from None
