"""Any number of runs side by side as a user of Python sees it: for a terminal, as a page and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.analysis import side_by_side as lines_of
from enginebench.analysis.comparison import Pair
from enginebench.analysis.side_by_side import Line
from enginebench.domain import JSON, plain, plain_object
from enginebench.domain.formatting import printable
from enginebench.errors import UserError
from enginebench.metrics.costs import Prices
from enginebench.metrics.registry import unit_of
from enginebench.report.columns import estimate_data
from enginebench.report.run import Run
from enginebench.report.side_by_side_contents import Contents, Extent
from enginebench.report.side_by_side_page import render_page
from enginebench.report.side_by_side_text import render_text

SIDE_BY_SIDE_SCHEMA = 1
"""Version of `to_dict`. Raise it when a reader of the old form would misread the new one."""


@dataclass(frozen=True)
class SideBySide(Contents):
    """Deployments and loads lined up (`found`), the runs, and reports in every form."""

    def to_text(self, extent: Extent = "summary", *, width: int | None = None) -> str:
        """For the terminal: the runs, what differs, then a table per figure with a column per run."""
        return render_text(self, extent, width=width)

    def to_html(self) -> str:
        """A self-contained page that opens offline."""
        return render_page(self)

    def to_dict(self) -> JSON:
        """What `bench report A B --json` prints: every figure in SI units, and how it differs from the reference."""
        found = self.found
        return {
            "schema": SIDE_BY_SIDE_SCHEMA,
            "runs": [
                {
                    "letter": letter, "path": str(run.path).encode(errors="replace").decode(),
                    "name": its.run.name, "created_at": its.run.created_at,
                    "enginebench": its.run.enginebench, "counts": plain(its.counts), "trust": its.conclusion.trust.level,
                    "sentence": its.sentence,
                }
                for letter, run, its in zip(found.letters, self.runs, found.runs, strict=True)
            ],
            "different_machines": found.moved,
            "differences": [{"of": each.of, "what": each.what, "values": list(each.values)} for each in found.differences],
            "lines": [_line_data(line) for line in found.lines],
        }  # fmt: skip


def side_by_side(runs: Sequence[Run], *, prices: Prices | None = None) -> SideBySide:
    """As `enginebench.side_by_side`, of runs that are open. UserError for fewer than two."""
    if len(runs) < 2:
        raise UserError(f"needs two runs or more, got {len(runs)}", advice="name their folders")
    judged = tuple(each.judged_by(prices=prices) for each in runs) if prices is not None else tuple(runs)
    return SideBySide(lines_of.side_by_side([run.analysis for run in judged]), judged)


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
