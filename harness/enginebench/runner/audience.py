"""Who is told the events of a run: live.json, the caller, and, where they are asked for, the upload to a store and a collector of metrics.

A run on this machine and one on a cluster have the same audience.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.analysis.rows import keep_figures
from enginebench.domain import Cell
from enginebench.domain.ids import text_of
from enginebench.records.remote.urls import url_of
from enginebench.records.run_folder import Run
from enginebench.runner.events import CellEnded, Event, LaunchEnded, Note, OnEvent, RunOpened
from enginebench.runner.live import LiveFile
from enginebench.scenario.plan import Plan

if TYPE_CHECKING:
    from enginebench.runner.uploads import Uploads


class Audience:
    """Passes each event on to all listeners, in the order in which they were added."""

    def __init__(self, on_event: OnEvent, *, reported: bool = True) -> None:
        """reported: the run is read on this machine when it has ended."""
        self._live, self._caller, self._figures = LiveFile(), _Caller(on_event), _Figures()
        self._listeners: list[OnEvent] = [self._live, self._caller, *([self._figures] if reported else [])]

    def __call__(self, event: Event) -> None:
        for each in self._listeners:
            each(event)

    def note(self, text: str) -> None:
        self(Note(text))

    def add_sinks(
        self, results: str | Path, plan: Plan, stack: contextlib.ExitStack, *, retry_failed: bool, otlp: str | None
    ) -> tuple[Path, Uploads | None]:
        """Where the run is measured; where `results` is a store, also what takes it there. otlp: URL of a collector. Both listen from now
        on, until the stack is closed.
        """
        folder, uploads = Path(results), None
        if (url := url_of(results)) is not None:
            from enginebench.runner.uploads import Uploads

            uploads = stack.enter_context(Uploads(url, self.note))
            uploads.prepare(plan.scenario.name, plan.id, whole=retry_failed or plan.scenario.auto is not None)
            folder = uploads.folder
            self._listeners.append(uploads)
        if otlp is not None:
            from enginebench.runner.otlp import Otlp

            self._listeners.append(stack.enter_context(Otlp(otlp, self.note)))
        return folder, uploads

    def open(self, plan: Plan, run: Run, stack: contextlib.ExitStack, *, placed: bool = False) -> None:
        """Tell what is to be measured; live.json is there until the stack is closed. placed: it is measured elsewhere."""
        stack.enter_context(self._live)
        self._figures.run = run
        loads = tuple(dict.fromkeys(cell.load for cell in plan.cells))
        deployments = tuple({text_of(deployment): deployment for deployment, _ in plan.launches()}.values())
        todo: tuple[Cell, ...] = tuple(cell for cell in plan.cells if cell.id not in plan.skipped and not run.has(cell.id))
        stored = sum(map(run.has, run.record.cells))
        self(RunOpened(run.path, len(run.record.cells), stored, loads, deployments, todo, plan.searches, placed=placed))

    def end(self) -> None:
        """Raise what the caller's listener raised during the run."""
        if self._caller.error is not None:
            raise self._caller.error


class _Caller:
    """Passes events on until the listener raises; its error must not look like one of the engine, and is raised after the run."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self.error: Exception | None = None

    def __call__(self, event: Event) -> None:
        if self.error is None:
            try:
                self._on_event(event)
            except Exception as error:  # noqa: BLE001  # whatever it is, the run goes on
                self.error = error


class _Figures:
    """Keeps the figures of what a server start measured when it has ended: nothing is measured then, and the report of the run is quick."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self._cells: dict[str, list[str]] = {}
        """By deployment, as several are measured at a time on a cluster."""

    def __call__(self, event: Event) -> None:
        match event:
            case CellEnded() if event.record.status == "ok":
                self._cells.setdefault(text_of(event.cell.deployment), []).append(event.record.id)
            case LaunchEnded() if self.run is not None and (cells := self._cells.pop(text_of(event.deployment), [])):
                with contextlib.suppress(Exception):  # whatever it is, the run goes on, and its report says it
                    keep_figures(self.run, cells)
