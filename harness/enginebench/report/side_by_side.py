"""Any number of runs side by side as a user of Python sees it: for a terminal, as a page and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from enginebench.analysis import side_by_side as lines_of
from enginebench.analysis.comparison import Pair
from enginebench.analysis.side_by_side import Line
from enginebench.domain import JSON, plain, plain_object
from enginebench.domain.formatting import printable
from enginebench.errors import UserError
from enginebench.metrics.costs import Prices
from enginebench.metrics.registry import unit_of
from enginebench.report.columns import Column, column, estimate_data, shown
from enginebench.report.run import Run, open_run

SIDE_BY_SIDE_SCHEMA = 1
"""Version of `to_dict`. Raise it when a reader of the old form would misread the new one."""

Extent: TypeAlias = Literal["summary", "latency", "text"]
"""The main figures, the latencies, or every figure of every line."""
_LATENCIES = ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99")


@dataclass(frozen=True)
class SideBySide:
    found: lines_of.SideBySide
    """The lines of deployment and load with a row per run, and what differs around them."""
    runs: tuple[Run, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The folders of the runs, by their names; with the folder above where two have the same."""
        names = [run.path.name for run in self.runs]
        return tuple(
            name if names.count(name) == 1 else f"{run.path.parent.name}/{name}" for name, run in zip(names, self.runs, strict=True)
        )

    def columns(self, extent: Extent = "summary") -> tuple[Column, ...]:
        """The figures to show, of those that any line has."""
        runs = self.found.runs
        if extent == "text":
            every = [each for run in runs for each in shown(run)]
            wanted = list({each.figure: each for each in every}.values())
        else:
            main = ("goodput", "output_throughput", "ttft_p50", "tpot_p50") if extent == "summary" else _LATENCIES
            wanted = [column(name, runs[0]) for name in main]
        have = {name for line in self.found.lines for row in line.rows if row is not None for name, its in row.figures.items() if its}
        return tuple(each for each in wanted if each.figure in have)

    def to_text(self, extent: Extent = "summary", *, width: int | None = None) -> str:
        """For the terminal: the runs, what differs, then a table per figure with a column per run."""
        from enginebench.report.side_by_side_text import render_text

        return render_text(self, extent, width=width)

    def to_html(self) -> str:
        """A self-contained page that opens offline."""
        from enginebench.report.side_by_side_page import render_page

        return render_page(self)

    def to_dict(self) -> JSON:
        """What `bench report A B --json` prints: every figure in SI units, and how it differs from the reference."""
        found = self.found
        return {
            "schema": SIDE_BY_SIDE_SCHEMA,
            "runs": [
                {
                    "letter": letter, "path": str(run.path), "name": its.run.name, "created_at": its.run.created_at,
                    "enginebench": its.run.enginebench, "counts": plain(its.counts), "trust": its.conclusion.trust.level,
                    "sentence": its.sentence,
                }
                for letter, run, its in zip(found.letters, self.runs, found.runs, strict=True)
            ],
            "different_machines": found.moved,
            "differences": [{"of": each.of, "what": each.what, "values": list(each.values)} for each in found.differences],
            "lines": [_line_data(line) for line in found.lines],
        }  # fmt: skip


def side_by_side(runs: Sequence[Run | str | Path], *, prices: Prices | None = None) -> SideBySide:
    """Runs side by side: the same deployments and loads lined up, what differs around them, every figure with its difference.

    runs: two or more, or their folders or capsules. prices: also the cost of tokens.
    UserError for fewer than two runs, and for a folder that is not a run.
    """
    opened = [each if isinstance(each, Run) else open_run(each) for each in runs]
    if len(opened) < 2:
        raise UserError(f"needs two runs or more, got {len(opened)}", advice="name their folders")
    judged = tuple(each.judged_by(prices=prices) for each in opened) if prices is not None else tuple(opened)
    return SideBySide(lines_of.side_by_side([run.analysis for run in judged]), judged)


# -- of a value ------------------------------------------------------------------------------------------------------------------


def change_text(line: Line, place: int, figure: str) -> str:
    """How a figure of a run differs from that of the reference: '-14 %', '~', '+3 %?'; '' for the reference, or if it is not comparable."""
    pair = line.pairs[place]
    its = pair.figures.get(figure) if pair is not None else None
    if its is None:
        return ""
    if its.verdict == "alike":
        return "~"
    relative = its.change.relative
    text = "of 0" if relative is None else f"{100 * relative:+.0f} %" if abs(relative) >= 0.095 else f"{100 * relative:+.1f} %"
    return f"{text}?" if its.verdict in ("unsure", "unknown") else text


def doubt(line: Line, place: int) -> str:
    """Why a row is not to be trusted, or cannot be compared; '' if nothing speaks against it."""
    row, pair = line.rows[place], line.pairs[place]
    if row is None:
        return ""
    if row.status != "ok" or row.verdict in ("suspect", "invalid"):
        return f"{row.verdict if row.status == 'ok' else row.status}: {'; '.join(row.reasons)}"
    return pair.why_not or "" if pair is not None else ""


def _line_data(line: Line) -> JSON:
    first = line.first
    return {
        "name": line.name, "model": first.deployment.model, "deployment": first.name, "load": plain(first.load),
        "reference": line.reference, "runs": [_row_data(line, i, pair) for i, pair in enumerate(line.pairs)],
    }  # fmt: skip


def _row_data(line: Line, place: int, pair: Pair | None) -> JSON:
    row = line.rows[place]
    if row is None:
        return None
    figures: dict[str, JSON] = {}
    for name, its in row.figures.items():
        if its:
            compared = pair.figures.get(name) if pair is not None else None
            change: JSON = {"verdict": compared.verdict, **plain_object(compared.change)} if compared is not None else None
            figures[name] = {"unit": unit_of(name), **estimate_data(its), "values": list(its.values), "change": change}
    return {
        "deployment": row.name, "asked": row.deployment.shown, "status": row.status, "verdict": None if row.status != "ok" else row.verdict,
        "reasons": [printable(each) for each in row.reasons], "why_not": pair.why_not if pair is not None else None, "figures": figures,
        "withheld": plain(pair.withheld) if pair is not None else {},
    }  # fmt: skip
