"""Live progress on stderr: one status line on a terminal, plain lines elsewhere. Prints; decides nothing.

Inside a measured window it is called at most four times a second, and formats one short line. After a cell it computes the figures and
the validity checks that the report will show.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator

import click

from enginebench.analysis.rows import CellResult, result_of
from enginebench.domain import Cell, Deployment, Load
from enginebench.domain.text import printable
from enginebench.loadgen import Progress
from enginebench.metrics.context import RunContext
from enginebench.metrics.slo import Slo
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord, Run
from enginebench.scenario.plan import Plan


class ProgressLines:
    """The command line's implementation of `enginebench.runner.reporter.Reporter`."""

    def __init__(self, plan: Plan, run: Run) -> None:
        self._run = run
        self._slo = plan.scenario.slo
        self._done = sum(map(run.has, run.record.cells))
        self._measured = 0
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()

    def launching(self, deployment: Deployment, what: str) -> None:
        text = f"{_name(deployment)}: {what} ..."
        self._status(text) if self._live else self._line(text)

    def measuring(self, cell: Cell, progress: Progress | None) -> None:
        if not self._live:
            return  # a log gets one line per cell, not four a second
        if progress is None:
            self._status(f"{self._head(cell)}  warm-up")
            return
        figures = [f"{progress.ended}/{progress.requests} requests" if cell.load.requests else f"{progress.ended} requests"]
        if progress.ttft_s is not None:
            figures.append(f"TTFT {progress.ttft_s * 1e3:.0f} ms")
        if progress.tpot_s is not None:
            figures.append(f"TPOT {progress.tpot_s * 1e3:.1f} ms")
        if progress.elapsed_s > 0:
            figures.append(f"~{progress.events / progress.elapsed_s:,.0f} tok/s")
        self._status(f"{self._head(cell)}  {'  '.join(figures)}  {self._left() or _left_in_cell(cell.load, progress)}")

    def done(self, cell: Cell, record: CellRecord, samples: Samples | None) -> None:
        head = self._head(cell)
        self._done += 1
        self._measured += record.status == "ok"
        self._line(f"{head}  {_outcome(record, samples, self._slo)}  {self._left()}".rstrip())

    def close(self) -> None:
        """Remove the status line."""
        if self._live:
            click.echo("\r\x1b[2K", nl=False, err=True)

    def _head(self, cell: Cell) -> str:
        repeat = f" #{cell.repeat + 1}" if cell.repeat else ""
        total = len(self._run.record.cells)  # a search adds cells while it runs
        return f"[{self._done + 1}/{total}] {_name(cell.deployment)} {cell.load.level_text} {cell.load.shape_text}{repeat}"

    def _left(self) -> str:
        """Time left, from the mean time of the cells of this session with their launches; empty until one has been measured."""
        todo = len(self._run.record.cells) - self._done
        if not self._measured or not todo:
            return ""
        seconds = (time.monotonic() - self._began) / self._measured * todo
        return f"~{seconds:.0f} s left" if seconds < 100 else f"~{seconds / 60:.0f} min left"

    def _status(self, text: str) -> None:
        click.echo(f"\r\x1b[2K{printable(text)[: shutil.get_terminal_size().columns - 1]}", nl=False, err=True)

    def _line(self, text: str) -> None:
        self.close()
        click.echo(printable(text), err=True)


def _left_in_cell(load: Load, progress: Progress) -> str:
    """Time left in the running cell, for as long as no cell has been measured."""
    left = [load.duration_s - progress.elapsed_s] if load.duration_s is not None else []
    if progress.ended and load.requests:
        left.append(progress.elapsed_s / progress.ended * (progress.requests - progress.ended))
    return f"~{max(0.0, min(left)):.0f} s left in this cell" if left else ""


@contextlib.contextmanager
def progress(plan: Plan, run: Run) -> Iterator[ProgressLines]:
    """Progress of a sweep; the status line is removed at the end, also after an error."""
    lines = ProgressLines(plan, run)
    try:
        yield lines
    finally:
        lines.close()


_FIGURES = (
    ("ttft_p50", "TTFT p50", 1e3, 0, "ms"),
    ("tpot_p50", "TPOT", 1e3, 1, "ms"),
    ("output_throughput", "", 1, 0, "tok/s"),
    ("goodput", "goodput", 1, 2, "req/s"),
    ("slo_attainment", "", 1e2, 0, "% within SLO"),
)


def _outcome(record: CellRecord, samples: Samples | None, slo: Slo | None) -> str:
    """The cell's main figures and, where it is suspect or invalid, the first reason; else why there are none."""
    if record.status != "ok" or samples is None:
        return f"{record.status}: {record.reason}"
    result = result_of(record, samples, RunContext(slo=slo))
    found = [
        f"{label} {value * scale:,.{digits}f} {unit}".strip()
        for name, label, scale, digits, unit in _FIGURES
        if (value := result.figures.get(name)) is not None
    ]
    return "  ".join([*found, *_doubt(result)])


def _doubt(result: CellResult) -> Iterator[str]:
    if result.verdict in ("suspect", "invalid"):
        first, *others = result.reasons
        more = f" (and {len(others)} more)" if others else ""
        yield f"{result.verdict}: {first.detail}{more}"


def _name(deployment: Deployment) -> str:
    if deployment.label:
        return deployment.label
    options = "".join(f" {key}={value}" for key, value in deployment.options.items())
    return f"{deployment.engine} {deployment.model} {deployment.precision}{options}"
