"""A run that is going on: what it does now, and its cells as they end. Each cell is read once."""

from __future__ import annotations

from dataclasses import dataclass

from enginebench.analysis.labels import deployment_titles, load_text
from enginebench.analysis.rows import CellResult, result_of
from enginebench.domain import Deployment
from enginebench.domain.formatting import duration, number, printable
from enginebench.domain.ids import text_of
from enginebench.errors import UserError
from enginebench.metrics.context import RunContext
from enginebench.metrics.slo import parse
from enginebench.records.cell import CellRecord
from enginebench.records.live import Live, LiveCell
from enginebench.records.run_folder import open_run
from enginebench.report.page import SITE_POLICY, page_environment
from enginebench.report.site.assets import place
from enginebench.report.site.stored import SiteRun

_MOST = 100
"""Cells that the page lists, the newest first; the report has all."""


@dataclass(frozen=True)
class EndedCell:
    deployment: Deployment
    load: str
    repeat: int
    state: str
    """'valid', 'suspect', 'invalid', 'failed' or 'skipped'."""
    text: str
    """Its main figures, or why there are none."""
    ended: float
    """Orders the cells."""


class Follower:
    """Follows one run."""

    def __init__(self, stored: SiteRun) -> None:
        self.stored = stored
        self._cells: dict[str, EndedCell] = {}

    def page(self, live: Live) -> str:
        cells, now = self._ended(), live.cell
        names = deployment_titles(list({text_of(its.deployment): its.deployment for its in cells}.values()))
        return page_environment().get_template("site/live.html.j2").render(
            place=place(1, "site"), policy=SITE_POLICY, run=self.stored.record, slug=self.stored.slug, live=live, so_far=_so_far(now),
            share=_share(now), cells=[(names[text_of(its.deployment)], its) for its in cells[:_MOST]],
            earlier=max(0, len(cells) - _MOST), counts=_counts(cells),
            version=self.stored.record.enginebench,
        )  # fmt: skip

    def _ended(self) -> list[EndedCell]:
        """The newest first."""
        files = {file.stem: file.stat().st_mtime for file in (self.stored.path / "cells").glob("*.json")}
        new = [cell for cell in files if cell not in self._cells]
        if new:
            run = open_run(self.stored.path)
            slo = parse(run.record.slo) if run.record.slo is not None else None
            context = RunContext(run.record, run.launches(), slo)
            for cell in new:
                try:
                    record = run.cell(cell)
                    samples = run.samples(cell)
                    result = result_of(record, samples, context) if record.status == "ok" and samples is not None else None
                except UserError:
                    continue  # half written, or damaged: the report says so
                self._cells[cell] = EndedCell(
                    record.deployment, load_text(record.load), record.repeat, *_outcome(record, result), files[cell]
                )
        return sorted((its for cell, its in self._cells.items() if cell in files), key=lambda its: -its.ended)


def _outcome(record: CellRecord, result: CellResult | None) -> tuple[str, str]:
    """Its state, and its main figures with the first reason for doubt, or why there are none."""
    if result is None:
        return record.status, printable(record.reason or "")
    doubt = [result.reasons[0].detail] if result.verdict in ("suspect", "invalid") and result.reasons else []
    return result.verdict, printable(" · ".join([*result.summary.split("  "), *doubt]))


def _counts(cells: list[EndedCell]) -> dict[str, int]:
    states = [cell.state for cell in cells]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def _so_far(cell: LiveCell | None) -> list[str]:
    """'31 of 64 requests', '~320 tok/s', 'TTFT 25 ms', ..."""
    if cell is None or not cell.elapsed_s:
        return []
    parts = [f"{cell.ended:,} of {cell.requests:,} requests" if cell.requests else f"{cell.ended:,} requests"]
    parts += [f"{cell.failed:,} failed"] if cell.failed else []
    parts.append(f"~{number(cell.tokens / cell.elapsed_s)} tok/s")
    parts += [f"TTFT {number(1e3 * cell.ttft_s)} ms"] if cell.ttft_s is not None else []
    parts += [f"TPOT {number(1e3 * cell.tpot_s)} ms"] if cell.tpot_s is not None else []
    return [*parts, f"{duration(cell.elapsed_s)}{f' of {duration(cell.duration_s)}' if cell.duration_s else ''}"]


def _share(cell: LiveCell | None) -> float | None:
    """Of the cell's load, 0 to 1."""
    if cell is None or not cell.elapsed_s:
        return None
    shares = [cell.ended / cell.requests] if cell.requests else []
    shares += [cell.elapsed_s / cell.duration_s] if cell.duration_s else []
    return min(1.0, max(shares, default=0.0))
