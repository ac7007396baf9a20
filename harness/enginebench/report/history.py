"""Many nights as a user of Python sees them: trends with their changes; as text, Markdown, data and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from enginebench.analysis import history as analysis_history
from enginebench.analysis.history import Change, Trend, read_history
from enginebench.analysis.night_run import NightRun, night_run
from enginebench.analysis.nights import Point
from enginebench.analysis.run_index import OnRun, run_index
from enginebench.analysis.thresholds import read_figure
from enginebench.domain import JSON, plain
from enginebench.errors import UserError
from enginebench.metrics.equivalence import read_margin
from enginebench.metrics.registry import unit_of
from enginebench.report.columns import estimate_data
from enginebench.report.history_changes import sentence
from enginebench.report.history_summary import render_history, render_markdown, render_trends
from enginebench.report.run import Run

HISTORY_SCHEMA = 1
"""Version of `to_dict`. Raise it when a reader of the old form would misread the new one."""

FailIf: TypeAlias = Literal["worse", "changed"]


@dataclass(frozen=True)
class History:
    found: analysis_history.History
    """Every trend: its points, changes, outliers, and why it could not be judged."""
    folder: str = ""

    @property
    def runs(self) -> tuple[NightRun, ...]:
        """Oldest first."""
        return self.found.runs

    @property
    def trends(self) -> tuple[Trend, ...]:
        return self.found.trends

    @property
    def sentence(self) -> str:
        """What changed, when, by how much and with what."""
        return sentence(self.found)

    def failed(self, fail_if: FailIf, *, last: int | None = None) -> bool:
        """Whether something changed, or changed for the worse. last: only in so many of the newest nights."""
        days = sorted({point.night.day for trend in self.trends for point in trend.series.points})[-last if last else 0 :]
        found = (change for _, change in self.found.changes if change.at.night.day in days)
        return any(fail_if == "changed" or change.direction == "worse" for change in found)

    def to_summary(self, *, width: int | None = None) -> str:
        """For the terminal: the changes, then counts of what did not change."""
        return render_history(self.found, self.folder, width=width)

    def to_text(self, *, width: int | None = None) -> str:
        """The summary, then every trend."""
        return render_history(self.found, self.folder, width=width, all_shown=True) + "\n" + render_trends(self.found, width=width)

    def to_markdown(self) -> str:
        """The summary and the trends as GitHub-flavoured Markdown."""
        return render_markdown(self.found)

    def to_html(self) -> str:
        """A page with a chart of every trend: one file without scripts."""
        from enginebench.report.history_page import render_page

        return render_page(self.found)

    def to_dict(self) -> JSON:
        """What `bench history --json` prints, in SI units and shares."""
        return {
            "schema": HISTORY_SCHEMA,
            "sentence": self.sentence,
            "figures": list(self.found.figures),
            "runs": [{"run": run.id, "name": run.name, "at": run.created_at} for run in self.found.runs],
            "trends": [_trend_data(trend) for trend in self.trends],
        }


def history(
    folder: str | Path | Sequence[Run] | None = "results",
    *,
    metric: str | Sequence[str] = (),
    equal_within: str | float | None = None,
    index: str | None = None,
    on_run: OnRun = lambda _done, _all: None,
) -> History:
    """What changed over the runs of a folder: trends per deployment, load and figure, with change points.

    folder: of runs, or the URL of a store, or runs; None: all that `index` knows. They are read through the index over runs, of which
    `index` names a shared one, as for `run_index`. metric: figures such as 'ttft.p99', by default output tokens/s, TTFT p50 and TPOT p50.
    equal_within: the change that is not worth saying, '3%' or 0.03; by default that of each metric. on_run: called before each run that
    has to be read. UserError for an unknown figure, and without runs.
    """
    figures = [read_figure(each, f"--metric {each}") for each in ([metric] if isinstance(metric, str) else metric)]
    margin = None if equal_within is None else read_margin(equal_within)
    wanted = figures or analysis_history.FIGURES
    if folder is None or isinstance(folder, str | Path):
        opened = run_index(folder, index=index, on_run=on_run)
        name = opened.folder
        found = opened.nights(wanted, runs=None if folder is None else [run.id for run in opened.runs if "/" not in run.id])
    else:
        name, found = "", tuple(night_run(run.analysis, run.path.name) for run in folder)
    if not found:
        advice = "name a folder of runs: bench history results, or KEEP/SCENARIO of .ci/nightly"
        raise UserError("there is no run in this folder", file=Path(name) if name else None, advice=advice)
    return History(read_history(found, figures, equal_within=margin), name)


# -- data ----------------------------------------------------------------------------------------------------------------


def _trend_data(trend: Trend) -> JSON:
    series, used = trend.series, {id(point) for point in trend.series.used}
    return {
        "name": trend.name,
        "deployment": series.row.deployment.shown,
        "load": plain(series.row.load),
        "figure": series.figure,
        "unit": unit_of(series.figure),
        "not_judged": trend.not_judged or None,
        "noise": trend.noise,
        "points": [_point_data(point, used=id(point) in used) for point in series.points],
        "changes": [_change_data(change) for change in trend.changes],
        "outliers": [point.night.at for point in trend.outliers],
    }


def _point_data(point: Point, *, used: bool) -> JSON:
    found = estimate_data(point.found) if point.found is not None else {"value": None}
    return {"at": point.night.at, **found, "used": used, "doubt": point.doubt or None}


def _change_data(change: Change) -> JSON:
    kept = {name: value for name, value in vars(change).items() if name not in ("at", "earliest", "latest", "causes")}
    nights = {name: getattr(change, name).night.at for name in ("at", "earliest", "latest")}
    return {**kept, **nights, "causes": [plain(each) for each in change.causes]}
