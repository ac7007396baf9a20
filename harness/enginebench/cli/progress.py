"""Live progress on stderr: one status line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

import enginebench
from enginebench import CellEnded, CellProgress, CellsAdded, CellStarted, Event, LaunchEnded, LaunchStarted, LaunchStep, Note, RunOpened
from enginebench.cli.shared import show
from enginebench.cli.time_left import TimeLeft
from enginebench.domain import Cell
from enginebench.domain.formatting import counted, duration, printable

_SHORTEST = 24
"""Characters of a name below which values are left out."""


class ProgressLines:
    """Listens to the events of a run."""

    def __init__(self, time_needed: Callable[[], enginebench.PlanTime] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """time_needed: what the plan takes, which is shown until a cell has been measured; asked when the run has begun."""
        self._ask_time = time_needed
        self._time_needed: enginebench.PlanTime | None = None
        self._run = RunOpened(Path(), planned=0, stored=0)
        self._planned = 0
        self._done = 0
        self._clock = clock
        self._time_left = TimeLeft(())
        self._began = 0.0
        self._live = sys.stderr.isatty()
        self._unmeasured: list[CellEnded] = []
        self._again: dict[str, int] = {}
        """Why cells were not measured -> how many more there are than was printed."""

    def __call__(self, event: Event) -> None:
        """Print an event, unless there is nothing to print."""
        self._gather(event)
        self._watch(event)
        match event:
            case Note():
                self.close()
                show(event.text)
            case RunOpened():
                self._run, self._planned, self._done = event, event.planned, event.stored
                if left := self._left():
                    self._line(f"{left}; warm-up and server starts come on top")
            case LaunchStep():
                text = f"{self._run.deployment_name(event.deployment)}: {event.step} ..."
                self._status(text) if self._live else self._line(text)
            case CellsAdded():
                self._planned = event.planned
                self._line(event.why)
            case CellStarted():
                self._planned = event.planned
                if self._live:  # a log gets one line per cell
                    self._status(self._head(event.cell), "warm-up")
            case CellProgress():
                if self._live:
                    self._status(self._head(event.cell), *_figures_so_far(event), self._left() or _left_in_cell(event))
            case CellEnded():
                self._planned = event.planned
                head = self._head(event.cell)
                self._done += 1
                if event.result is not None:
                    self._line(f"{head}  {_outcome(event)}  {self._left()}".rstrip())

    def _watch(self, event: Event) -> None:
        """Keep the time that launches and cells take."""
        now, left = self._clock(), self._time_left
        if isinstance(event, RunOpened):
            self._began = now
        if self._placed(event):
            return
        match event:
            case RunOpened():
                self._time_needed = self._ask_time() if self._ask_time else None
                self._time_left = TimeLeft(event.todo, event.searches, self._time_needed.by_load if self._time_needed else {})
            case CellsAdded():
                left.add(event.cells)
            case LaunchStarted():
                left.launch_started(event.deployment, now)
            case CellStarted():
                left.cell_started(event.cell, now)
            case CellEnded():
                left.cell_ended(event.cell, now, measured=event.launch is not None)
            case LaunchEnded():
                left.launch_ended(event.deployment, now)

    def _placed(self, event: Event) -> bool:
        """Whether several cells run at a time, so that how long one took says nothing of the others."""
        return event.placed if isinstance(event, RunOpened) else self._run.placed

    def _gather(self, event: Event) -> None:
        """Keep cells that were not measured, one after the other for one reason, until another event comes: then they are one line.

        Those that end later for a reason that was printed are counted, and said at the end.
        """
        if isinstance(event, CellEnded) and event.result is None:
            if self._unmeasured and _cause(self._unmeasured[0]) != _cause(event):
                self._flush()
            self._unmeasured.append(event)
        elif not isinstance(event, LaunchEnded):
            self._flush()

    def _flush(self) -> None:
        gathered, self._unmeasured = self._unmeasured, []
        if not gathered:
            return
        first, cause = gathered[0], _cause(gathered[0])
        if cause in self._again:
            self._again[cause] += len(gathered)
            return
        self._again[cause] = 0
        place, names = self._done - len(gathered) + 1, dict.fromkeys(self._run.deployment_name(each.cell.deployment) for each in gathered)
        if len(gathered) == 1:
            self._line(f"{self._head(first.cell, place)}  {_outcome(first)}  {self._left()}".rstrip())
            return
        who = next(iter(names)) if len(names) == 1 else f"{len(names)} deployments"
        self._line(f"[{place}-{self._done}/{self._planned}] {who}: {len(gathered)} cells {_outcome(first)}  {self._left()}".rstrip())

    def finish(self) -> None:
        """Say what is left to say, and remove the status line."""
        self._flush()
        for cause, more in self._again.items():
            if more:
                self._line(f"{counted(more, 'more cell')} {cause}")
        self.close()

    def close(self) -> None:
        """Remove the status line."""
        if self._live:
            click.echo("\r\x1b[2K", nl=False, err=True)

    def _head(self, cell: Cell, place: int | None = None) -> str:
        repeat = f" #{cell.repeat + 1}" if cell.repeat else ""
        name, load = self._run.deployment_name(cell.deployment), self._run.load_name(cell.load)
        return f"[{place or self._done + 1}/{self._planned}] {name} {load}{repeat}"

    def _left(self) -> str:
        """Time left, from what has been measured in this session; until there is something, what is expected."""
        todo = self._planned - self._done
        if not todo:
            return ""
        if (seconds := self._seconds_left(todo)) is None:
            return self._expected(todo / self._planned)
        return (
            f"~{seconds:.0f} s left"
            if seconds < 100
            else f"~{seconds / 60:.0f} min left"
            if seconds < 6000
            else f"~{seconds / 3600:.1f} h left"
        )

    def _seconds_left(self, todo: int) -> float | None:
        if not self._run.placed:
            return self._time_left.seconds(self._clock())
        ended = self._done - self._run.stored
        return (self._clock() - self._began) / ended * todo if ended else None

    def _expected(self, share: float) -> str:
        """'about 31 min of load left (expected), at least 12 min' for a share of the plan; empty where nothing is known of it."""
        known = self._time_needed
        if known is None or not known.least_s:
            return ""
        least = f"at least {duration(known.least_s * share)}"
        return (
            f"about {duration(known.expected_s * share)} of load left (expected), {least}" if known.expected_s else f"{least} of load left"
        )

    def _status(self, head: str, *values: str) -> None:
        text = fitted(printable(head), [printable(value) for value in values if value], shutil.get_terminal_size().columns - 1)
        click.echo(f"\r\x1b[2K{text}", nl=False, err=True)

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
        lines.finish()


def fitted(head: str, values: Sequence[str], width: int) -> str:
    """What is measured and its values on one line: first the name becomes shorter, then values are left out, the last one never."""
    kept = list(values)
    while len(kept) > 1 and _SHORTEST + sum(len(value) + 2 for value in kept) > width:
        kept.pop(1 if len(kept) > 3 else 0)
    room = width - sum(len(value) + 2 for value in kept)
    shown = head if len(head) <= room else f"{head[: room - 3].rstrip()}..." if room > 3 else ""
    return "  ".join(filter(None, [shown, *kept]))[:width]


def _figures_so_far(event: CellProgress) -> list[str]:
    progress = event.progress
    figures = [f"{progress.ended}/{progress.requests} requests" if event.cell.load.requests else f"{progress.ended} requests"]
    if progress.pace_s is not None:
        figures += [f"TTFT {progress.pace_s[0] * 1e3:.0f} ms", f"TPOT {progress.pace_s[1] * 1e3:.1f} ms"]
    if progress.elapsed_s > 0:
        figures.append(f"~{progress.events / progress.elapsed_s:,.0f} tok/s")
    return figures


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


def _cause(event: CellEnded) -> str:
    """Why a cell was not measured, without what differs where the cause is the same: ports, process ids, times."""
    return re.sub(r"\d[\d.,]*", "...", f"{event.record.status}: {event.record.reason}")


def _doubt(result: enginebench.CellResult) -> Iterator[str]:
    if result.verdict in ("suspect", "invalid"):
        first, *others = result.reasons
        more = f" (and {len(others)} more)" if others else ""
        yield f"{result.verdict}: {first.detail}{more}"
