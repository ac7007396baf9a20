"""Live progress on stderr: one status line on a terminal, plain lines elsewhere. Prints; decides nothing.

Called four times a second at most inside a measured window, so it formats one short line and nothing more.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator

import click

from enginebench.analysis import figures_of
from enginebench.loadgen import Progress
from enginebench.nouns import Cell, Deployment
from enginebench.plan import Plan
from enginebench.samples import Samples
from enginebench.store import CellRecord, Run
from enginebench.text import printable


class ProgressLines:
    """The reporter of the command line."""

    def __init__(self, plan: Plan, run: Run) -> None:
        self._cells = plan.cells
        self._done = sum(run.has(cell.id) for cell in plan.cells)
        self._measured = 0
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()
        self._numbers = {cell.id: number for number, cell in enumerate(plan.cells, 1)}

    def launching(self, deployment: Deployment, what: str) -> None:
        text = f"{_name(deployment)}: {what} ..."
        self._status(text) if self._live else self._line(text)

    def measuring(self, cell: Cell, progress: Progress | None) -> None:
        if not self._live:
            return  # a log wants one line per cell, not four a second
        if progress is None:
            self._status(f"{self._head(cell)}  warm-up")
            return
        figures = [f"{progress.ended}/{progress.requests} requests"]
        if progress.ttft_s is not None:
            figures.append(f"TTFT {progress.ttft_s * 1e3:.0f} ms")
        if progress.tpot_s is not None:
            figures.append(f"TPOT {progress.tpot_s * 1e3:.1f} ms")
        if progress.elapsed_s > 0:
            figures.append(f"~{progress.reads / progress.elapsed_s:,.0f} tok/s")
        self._status(f"{self._head(cell)}  {'  '.join(figures)}  {self._left() or _left_here(progress)}")

    def done(self, cell: Cell, record: CellRecord, samples: Samples | None) -> None:
        self._done += 1
        self._measured += record.status == "ok"
        self._line(f"{self._head(cell)}  {_outcome(record, samples)}  {self._left()}".rstrip())

    def close(self) -> None:
        """Remove the status line."""
        if self._live:
            click.echo("\r\x1b[2K", nl=False, err=True)

    def _head(self, cell: Cell) -> str:
        load = cell.load
        repeat = f" #{cell.repeat + 1}" if cell.repeat else ""
        where = f"c={load.concurrency} {load.input_tokens}+{load.output_tokens}"
        return f"[{self._numbers[cell.id]}/{len(self._cells)}] {_name(cell.deployment)} {where}{repeat}"

    def _left(self) -> str:
        """Time left, from what the cells of this sitting took with their launches; silent until one has been measured."""
        todo = len(self._cells) - self._done
        if not self._measured or not todo:
            return ""
        seconds = (time.monotonic() - self._began) / self._measured * todo
        return f"~{seconds:.0f} s left" if seconds < 100 else f"~{seconds / 60:.0f} min left"

    def _status(self, text: str) -> None:
        click.echo(f"\r\x1b[2K{printable(text)[: shutil.get_terminal_size().columns - 1]}", nl=False, err=True)

    def _line(self, text: str) -> None:
        self.close()
        click.echo(printable(text), err=True)


def _left_here(progress: Progress) -> str:
    """Time left in the cell that runs: all that can be said before one has been measured."""
    if not progress.ended:
        return ""
    seconds = progress.elapsed_s / progress.ended * (progress.requests - progress.ended)
    return f"~{seconds:.0f} s left in this cell"


@contextlib.contextmanager
def progress(plan: Plan, run: Run) -> Iterator[ProgressLines]:
    """Progress for the time of a sweep; the status line goes whatever happens."""
    lines = ProgressLines(plan, run)
    try:
        yield lines
    finally:
        lines.close()


def _outcome(record: CellRecord, samples: Samples | None) -> str:
    if record.status != "ok" or samples is None:
        return f"{record.status}: {record.reason}"
    figures = figures_of(samples)
    parts = [
        f"{label} {value * scale:,.{digits}f} {unit}"
        for name, label, scale, digits, unit in (
            ("ttft_p50", "TTFT p50", 1e3, 0, "ms"),
            ("tpot_p50", "TPOT", 1e3, 1, "ms"),
            ("output_throughput", "", 1, 0, "tok/s"),
        )
        if (value := figures.get(name)) is not None
    ]
    return "  ".join(part.strip() for part in parts)


def _name(deployment: Deployment) -> str:
    if deployment.label:
        return deployment.label
    options = "".join(f" {key}={value}" for key, value in deployment.options.items())
    return f"{deployment.engine} {deployment.model} {deployment.precision}{options}"
