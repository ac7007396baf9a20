"""Keeps live.json of a run up to date from its events, in a thread: who measures never waits for a file system."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from enginebench.records.live import Live, LiveCell, Process, remove_live, write_live
from enginebench.runner.events import CellEnded, CellProgress, CellStarted, EngineReady, Event, LaunchStarted, LaunchStep, RunOpened

_EVERY_S = 0.5
_SIGN_OF_LIFE = 20
"""Without news the file is written every so many turns, for watchers on other machines."""


class LiveFile:
    """Listens to the events of a run. The file is there from `RunOpened` to the end of the block."""

    def __init__(self) -> None:
        self._run: RunOpened | None = None
        self._live: Live | None = None
        self._stop = threading.Event()
        self._writer: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._writer is not None and self._run is not None:
            self._writer.join()
            remove_live(self._run.path)

    def __call__(self, event: Event) -> None:
        """Returns at once: the thread writes."""
        if isinstance(event, RunOpened):
            self._run = event
            self._live = Live(Process.own(), "preparing", event.planned, event.stored)
            self._writer = threading.Thread(target=self._write, args=(event.path,), name="live.json", daemon=True)
            self._writer.start()
        elif self._live is not None and self._run is not None:
            self._live = _after(event, self._live, self._run)

    def _write(self, run: Path) -> None:
        written, turns = None, 0
        while True:
            live, turns = self._live, turns + 1
            if live is not None and (live is not written or turns % _SIGN_OF_LIFE == 0):
                try:
                    write_live(run, live)
                    written = live
                except OSError:
                    pass  # the disk is full: whether that ends the run is decided where results are stored
            if self._stop.wait(_EVERY_S):
                return


def _after(event: Event, live: Live, run: RunOpened) -> Live:
    """What goes on after an event."""
    match event:
        case LaunchStarted():
            return replace(live, step="starting", deployment=run.deployment_name(event.deployment), cell=None)
        case LaunchStep():
            return replace(live, step=event.step, deployment=run.deployment_name(event.deployment), cell=None)
        case EngineReady():
            return replace(live, step="ready", cell=None)
        case CellStarted():
            load = event.cell.load
            cell = LiveCell(event.cell.id, run.load_name(load), event.cell.repeat, load.requests or 0, duration_s=load.duration_s)
            return replace(live, step="warm-up", planned=event.planned, cell=cell)
        case CellProgress() if live.cell is not None:
            so_far = event.progress
            ttft, tpot = so_far.pace_s or (None, None)
            cell = replace(
                live.cell, ended=so_far.ended, failed=so_far.failed, tokens=so_far.events, elapsed_s=round(so_far.elapsed_s, 3),
                ttft_s=ttft, tpot_s=tpot,
            )  # fmt: skip
            return replace(live, step="measuring", cell=cell)
        case CellEnded():
            return replace(live, step="between cells", planned=event.planned, done=live.done + 1, cell=None)
    return live
