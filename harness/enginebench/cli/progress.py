"""Live progress on stderr: one status line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

import enginebench
from enginebench.api import CellEnded, CellProgress, CellStarted, Event, LaunchStep, Note, RunOpened
from enginebench.cli.shared import show
from enginebench.domain import Cell
from enginebench.domain.formatting import duration, printable


class ProgressLines:
    """Listens to the events of a run."""

    def __init__(self, time_needed: Callable[[], enginebench.PlanTime] | None = None) -> None:
        """time_needed: what the plan takes, which is shown until a cell has been measured; asked when the run has begun."""
        self._ask_time = time_needed
        self._time_needed: enginebench.PlanTime | None = None
        self._run = RunOpened(Path(), planned=0, stored=0)
        self._planned = 0
        self._done = 0
        self._measured = 0
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()
        self._said = ""

    def __call__(self, event: Event) -> None:
        """Print an event, unless there is nothing to print."""
        match event:
            case Note():
                self.close()
                show(event.text)
            case RunOpened():
                self._run, self._planned, self._done, self._began = event, event.planned, event.stored, time.monotonic()
                self._time_needed = self._ask_time() if self._ask_time else None
                if left := self._left():
                    self._line(f"{left}; warm-up and server starts come on top")
            case LaunchStep():
                text = f"{self._run.deployment_name(event.deployment)}: {event.step} ..."
                self._status(text) if self._live else self._line(text)
            case CellStarted():
                self._planned = event.planned
                if self._live:  # a log gets one line per cell
                    self._status(f"{self._head(event.cell)}  warm-up")
            case CellProgress():
                if self._live:
                    self._status(f"{self._head(event.cell)}  {_figures_so_far(event)}  {self._left() or _left_in_cell(event)}")
            case CellEnded():
                self._planned = event.planned
                head = self._head(event.cell)
                self._done += 1
                self._measured += event.record.status == "ok"
                outcome = _outcome(event)
                again = event.result is None and outcome == self._said
                self._line(f"{head}  {f'{event.record.status}: as above' if again else outcome}  {self._left()}".rstrip())
                self._said = outcome

    def close(self) -> None:
        """Remove the status line."""
        if self._live:
            click.echo("\r\x1b[2K", nl=False, err=True)

    def _head(self, cell: Cell) -> str:
        repeat = f" #{cell.repeat + 1}" if cell.repeat else ""
        name, load = self._run.deployment_name(cell.deployment), self._run.load_name(cell.load)
        return f"[{self._done + 1}/{self._planned}] {name} {load}{repeat}"

    def _left(self) -> str:
        """Time left, from the mean time of the cells of this session with their launches; until one has been measured, what is expected."""
        todo = self._planned - self._done
        if not todo:
            return ""
        if not self._measured:
            return self._expected(todo / self._planned)
        seconds = (time.monotonic() - self._began) / self._measured * todo
        return f"~{seconds:.0f} s left" if seconds < 100 else f"~{seconds / 60:.0f} min left"

    def _expected(self, share: float) -> str:
        """'about 31 min of load left (expected), at least 12 min' for a share of the plan; empty where nothing is known of it."""
        known = self._time_needed
        if known is None or not known.least_s:
            return ""
        least = f"at least {duration(known.least_s * share)}"
        return (
            f"about {duration(known.expected_s * share)} of load left (expected), {least}" if known.expected_s else f"{least} of load left"
        )

    def _status(self, text: str) -> None:
        click.echo(f"\r\x1b[2K{printable(text)[: shutil.get_terminal_size().columns - 1]}", nl=False, err=True)

    def _line(self, text: str) -> None:
        self.close()
        click.echo(printable(text), err=True)


@contextlib.contextmanager
def progress(time_needed: Callable[[], enginebench.PlanTime] | None = None) -> Iterator[Callable[[Event], None]]:
    """Prints the events of a run; the status line is removed at the end, also after an error. time_needed: of the plan."""
    lines = ProgressLines(time_needed)
    try:
        yield lines
    finally:
        lines.close()


def _figures_so_far(event: CellProgress) -> str:
    progress = event.progress
    figures = [f"{progress.ended}/{progress.requests} requests" if event.cell.load.requests else f"{progress.ended} requests"]
    if progress.pace_s is not None:
        figures += [f"TTFT {progress.pace_s[0] * 1e3:.0f} ms", f"TPOT {progress.pace_s[1] * 1e3:.1f} ms"]
    if progress.elapsed_s > 0:
        figures.append(f"~{progress.events / progress.elapsed_s:,.0f} tok/s")
    return "  ".join(figures)


def _left_in_cell(event: CellProgress) -> str:
    """Time left in the running cell, for as long as no cell has been measured."""
    load, progress = event.cell.load, event.progress
    left = [load.duration_s - progress.elapsed_s] if load.duration_s is not None else []
    if progress.ended and load.requests:
        left.append(progress.elapsed_s / progress.ended * (progress.requests - progress.ended))
    return f"~{max(0.0, min(left)):.0f} s left in this cell" if left else ""


def _outcome(event: CellEnded) -> str:
    """The cell's main figures and, where it is suspect or invalid, the first reason; else why there are none."""
    result = event.result
    if result is None:
        return f"{event.record.status}: {event.record.reason}" + (f" (log: {event.log})" if event.log else "")
    return "  ".join([result.summary, *_doubt(result)])


def _doubt(result: enginebench.CellResult) -> Iterator[str]:
    if result.verdict in ("suspect", "invalid"):
        first, *others = result.reasons
        more = f" (and {len(others)} more)" if others else ""
        yield f"{result.verdict}: {first.detail}{more}"
