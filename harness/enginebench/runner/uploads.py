"""A run whose results go to a store: measured in a folder of this machine, uploaded cell by cell, and brought here to be resumed.

Uploads happen between cells, never inside a measured window. Where the store cannot be reached, the run goes on: cells stay on this machine
and are uploaded when it can be reached again, at the end, or by the next `bench run` with the same `--results`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from enginebench.domain.formatting import counted
from enginebench.errors import UserError
from enginebench.records.remote.filesystem import StoreError
from enginebench.records.remote.lease import Held, Lease, take
from enginebench.records.remote.mirror import Mirror
from enginebench.records.remote.urls import url_of
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run, find_runs
from enginebench.runner.events import CellEnded, Event, LaunchEnded, RunOpened

_AGAIN_AFTER_S = 60.0
"""How long a store that could not be reached is left alone."""


class Uploads:
    """Listens to the events of a run. Use it in a `with` block around all of the run."""

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self._mirror, self._say = Mirror.of(url), say
        self._lease: Lease | None = None
        self._run = ""
        self._failed_at: float | None = None
        self._lost = False

    @property
    def folder(self) -> Path:
        """The folder of runs on this machine."""
        return self._mirror.local

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lease is not None:
            self._push(None, again=True)
            left = len(self._mirror.pending(self._run))
            if left and self._failed_at is not None:
                where = f"{counted(left, 'file')} of {self._run} are not in {self._mirror.remote.shown} yet, and are kept in {self.folder}"
                self._say(f"warning: {where}; the next bench run with these --results uploads them")
            self._lease.release()

    def prepare(self, name: str, plan_id: str, *, whole: bool) -> None:
        """Bring here what tells which run of a plan is unfinished, and upload what earlier runs could not. UserError if the store cannot be
        reached. whole: with raw samples, which decide whether a cell is damaged and whether repeats are added; else only with records, so
        that a year of finished nights is not brought here.
        """
        self._mirror.pull_heads()
        for run in find_runs(self.folder, name):
            if run.record.plan_id == plan_id and (whole or not run.finished):
                bring = self._mirror.pull_run if whole else self._mirror.pull_records
                bring(run.path.relative_to(self.folder).as_posix(), self._say)
        send_kept(self._mirror, self._say)

    def create(self, path: Path, record: RunRecord, scenario_text: str) -> Run | None:
        """A new run that no other machine begins under this name; None where one has."""
        name = path.relative_to(self.folder).as_posix()
        try:
            lease = take(self._mirror.remote, name, self._say)
        except Held:
            return None
        if self._mirror.remote.info(f"{name}/run.json") is not None:
            lease.release()
            return None
        self._lease, self._run = lease, name
        return Run.create(path, record, scenario_text)

    def resume(self, run: Run) -> None:
        """UserError if another process writes to it."""
        if self._lease is None:
            self._run = run.path.relative_to(self.folder).as_posix()
            self._lease = take(self._mirror.remote, self._run, self._say)
            self._mirror.pull_run(self._run, self._say)

    def __call__(self, event: Event) -> None:
        match event:
            case RunOpened():
                self._push(["scenario.yaml", "run.json"])
            case CellEnded() if event.record.status != "skipped":
                its = event.record
                self._push([f"launches/{its.launch_id}.json", f"samples/{its.id}.parquet", "run.json", f"cells/{its.id}.json"])
            case LaunchEnded():
                self._push(None)

    def _push(self, names: list[str] | None, *, again: bool = False) -> None:
        waits = self._failed_at is not None and time.monotonic() - self._failed_at < _AGAIN_AFTER_S
        if self._lease is None or self._lost or (waits and not again):
            return
        try:
            if not self._lease.ours:
                self._lost, self._failed_at = True, time.monotonic()
                self._say(f"warning: another bench has taken over {self._run} in {self._mirror.remote.shown}: nothing more is uploaded")
                return
            self._mirror.push(self._run, names if self._failed_at is None else None)
            if self._failed_at is not None:
                self._failed_at = None
                self._say(f"{self._mirror.remote.shown} can be reached again: everything measured is uploaded")
        except StoreError as error:
            if self._failed_at is None:
                self._say(f"warning: {error.message}; the run goes on, and its cells stay in {self.folder / self._run}")
            self._failed_at = time.monotonic()
        except UserError as error:  # the disk is full: what the run stores next says so
            self._say(f"warning: {error.message}")


@contextlib.contextmanager
def stored_in(results: str | Path) -> Iterator[Path]:
    """The folder in which a run is made at once, such as an imported one. Where `results` is a store, it is uploaded at the end."""
    if (url := url_of(results)) is None:
        yield Path(results)
        return
    mirror = Mirror.of(url)
    mirror.pull_heads()
    yield mirror.local
    said: list[str] = []
    send_kept(mirror, said.append)
    if mirror.unsent():
        raise UserError(f"not everything could be uploaded: {said[-1]}", advice="the same command, or the next bench run there, goes on")


def send_kept(mirror: Mirror, say: Callable[[str], None]) -> None:
    """Upload what is kept on this machine because a run could not. StoreError where the store cannot be reached."""
    for run, count in mirror.unsent().items():
        try:
            lease = take(mirror.remote, run, say)
        except Held as held:
            say(f"note: {counted(count, 'file')} of {run} are uploaded later: {held.message}")
            continue
        try:
            if mirror.rejoin(run, say):
                say(f"uploaded {counted(mirror.push(run), 'file')} of {run}, which were kept on this machine")
            else:
                say(f"warning: {mirror.remote.shown} has another run with the name {run}: rename {mirror.local / run}")
        finally:
            lease.release()
