"""A job array of units on disk: its batch script, the units, what they store, and the job that was submitted for it.

    SHARED/<time>-<run>/  batch.sh  array.json  job  units/<id>.json  runs/<id>/  logs/<index>.txt

It outlives the driver. A later driver of the same run finds it, collects what its jobs have stored meanwhile, and follows those that run.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enginebench.domain.formatting import counted
from enginebench.errors import UserError
from enginebench.records.files import write_atomically
from enginebench.runner.placement import slurm_commands as slurm
from enginebench.runner.placement.base import Intake
from enginebench.runner.placement.slurm_script import Shape, script
from enginebench.runner.placement.unit_data import ENDED, Unit, read_unit
from enginebench.runner.placement.unit_files import Reader

LOG_BYTES = 4096


@dataclass(eq=False)
class Element:
    """One unit of an array, as the driver follows it."""

    unit: Unit
    array: Array
    index: int
    begun: bool = False
    waits: str = ""
    """The last reason for which it waited."""
    gone_s: float | None = None
    """Since when its job has ended without the last file."""

    def __post_init__(self) -> None:
        self._folder = self.array.folder / "runs" / self.unit.id
        self._reader = Reader(self._folder)

    @property
    def job(self) -> str:
        return f"{self.array.job}_{self.index}"

    def collect(self, intake: Intake) -> None:
        """Store what it has written since the last time."""
        if files := self._reader.new():
            intake.store(self.unit, files)

    def ended(self) -> str | None:
        """What kept it from measuring, '' for nothing; None: it has not ended in order."""
        try:
            return str(json.loads((self._folder / ENDED).read_text())["problem"])
        except (OSError, ValueError, KeyError):
            return None

    def last_words(self) -> str:
        """The last line of the job's output."""
        try:
            with self.array.log(self.index).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - LOG_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


@dataclass(eq=False)
class Array:
    """The folder of an array, and its job."""

    folder: Path
    units: Sequence[Unit]
    job: str = ""
    """The id that Slurm gave it; '' before it is submitted."""
    elements: list[Element] = field(default_factory=list)
    """Those that have not ended."""
    keep: bool = False
    """Whether something in it may explain a failure."""

    def __post_init__(self) -> None:
        self.elements = [Element(unit, self, index) for index, unit in enumerate(self.units)]

    @property
    def name(self) -> str:
        """The name of its job, which no other job has."""
        return f"bench-{self.folder.name}"

    def log(self, index: int) -> Path:
        return self.folder / "logs" / f"{index}.txt"

    def submit(self) -> None:
        """Submit it. SlurmError; if sbatch broke off after the controller had taken the job, the job is found by its name."""
        try:
            self.job = slurm.submit(self.folder / "batch.sh")
        except slurm.SlurmError:
            self.job = slurm.job_named(self.name)
            if not self.job:
                raise
        write_atomically(self.folder / "job", self.job)

    def end(self, element: Element) -> None:
        """Forget an element; the folder goes with the last one, unless it holds what explains a failure."""
        self.elements.remove(element)
        if not self.elements and not self.keep:
            self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def make(shared: Path, what: Shape, units: Sequence[Unit], settings: Mapping[str, str]) -> Array:
    """Write a new array. UserError if the folder cannot be written."""
    array = Array(new_folder(shared, units), units)
    try:
        for part in ("units", "runs", "logs"):
            (array.folder / part).mkdir(parents=True, exist_ok=True)
        for unit in units:
            unit.write(array.folder / "units" / f"{unit.id}.json")
        write_atomically(array.folder / "batch.sh", script(what, units, array.folder, settings))
        write_atomically(array.folder / "array.json", json.dumps({"run": units[0].run, "units": [unit.id for unit in units]}))
    except OSError as error:
        advice = "name a folder that you may write and that all nodes see: --place shared=FOLDER"
        raise UserError(f"no units can be written there: {error.strerror}", file=shared, advice=advice) from None
    return array


def new_folder(shared: Path, units: Sequence[Unit]) -> Path:
    """A name that no other array has."""
    return shared / f"{time.strftime('%Y%m%d-%H%M%S')}-{re.sub(r'[^A-Za-z0-9_.-]', '-', units[0].run)[:40]}-{secrets.token_hex(2)}"


def found(shared: Path, run: str) -> Iterator[Array]:
    """The arrays that an earlier driver of this run has left, oldest first."""
    for file in sorted(shared.glob("*/array.json")):
        try:
            known = json.loads(file.read_text())
            if known["run"] != run:
                continue
            array = Array(file.parent, [read_unit(file.parent / "units" / f"{name}.json") for name in known["units"]])
        except (OSError, ValueError, KeyError, UserError):
            continue  # half written, or of another version: its jobs are not followed
        job = file.parent / "job"
        array.job = job.read_text().strip() if job.exists() else slurm.job_named(array.name)
        yield array


def told(arrays: Sequence[Array]) -> str:
    """What was found, for people."""
    jobs = ", ".join(array.job for array in arrays if array.job) or "none in the queue"
    return f"following {counted(len(arrays), 'job array')} of an earlier session (job {jobs})"
