"""A stored run as a user of Python sees it: data frames, analysis, and reports in every form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from enginebench.analysis.analysis import Analysis, analyse
from enginebench.analysis.conclusion import Conclusion
from enginebench.analysis.frames import cells_frame, requests_frame, rows_frame
from enginebench.analysis.tuning import Tuned, tuned_of
from enginebench.domain import JSON, plain_object
from enginebench.errors import UserError
from enginebench.metrics.costs import Prices
from enginebench.metrics.equivalence import read_margin
from enginebench.metrics.slo import read_slo
from enginebench.records import run_folder
from enginebench.records.files import write_atomically
from enginebench.records.remote.local import local
from enginebench.report.export import to_csv, to_json, to_markdown
from enginebench.report.summary import render_summary
from enginebench.report.summary_details import render_latencies, render_why
from enginebench.report.table import render_table
from enginebench.report.tuning import tuning_text

if TYPE_CHECKING:
    import pandas as pd

Form: TypeAlias = Literal["summary", "latency", "why", "text", "md", "csv", "json", "html", "svg", "tuning"]


@dataclass(frozen=True, eq=False)
class Run:
    """A stored run. Everything is computed from its raw samples when it is first asked for, and then kept."""

    folder: run_folder.Run
    prices: Prices | None = None
    """For the cost of tokens; None: rows have no cost."""
    equal_within: float | None = None
    """The share below which a difference is equal in practice; None: that of the scenario, else of each metric."""

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def name(self) -> str:
        return self.folder.record.name

    @cached_property
    def analysis(self) -> Analysis:
        """Its rows with figures and verdicts, the ranking, the parity of outputs, caveats. UserError when samples are damaged."""
        return analyse(self.folder, self.prices, equal_within=self.equal_within)

    @property
    def tuned(self) -> Sequence[Tuned]:
        """Of a run of `bench tune`: the default and the tuned row of each deployment, what changed and what mattered; else empty."""
        return tuned_of(self.analysis)

    @property
    def conclusion(self) -> Conclusion:
        """What may be concluded: leaders by regime, the load that each deployment holds within the SLO, trust, and what to run."""
        return self.analysis.conclusion

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row per deployment and load, its repeats folded.

        Columns: deployment (short name), engine, model, precision, load (text), level (streams, requests/s or replay speed), runtime,
        tp, pp, dp_replicas, attention_dp, ep, option.<name>, load.<field>, status, verdict, ranked, reasons, repeats; then for each
        figure <figure>, the median over the repeats, with <figure>_low and <figure>_high, its interval. Figures are in SI units (s,
        tok/s), see `rows.attrs["units"]`; a missing one is NaN.
        """
        return rows_frame(self.analysis)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per stored cell: a deployment under a load in one repeat.

        Columns: cell (id), those of `rows` from deployment to load.<field>, repeat, launch (id), status, reason, verdict, reasons, window
        (its state), window_s (its length in s), requests (in the window); then one column per figure, in SI units.
        """
        return cells_frame(self.analysis)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row per request of every measured cell.

        Columns: cell (id), deployment, engine, model, precision, load, level, repeat, index, conversation, turn, outcome, error,
        finish_reason, in_window (whether figures use it), asked_input_tokens and asked_output_tokens; input_tokens, output_tokens and
        cached_tokens as the server counted them; due_s, sent_s and end_s since the first send of the cell; then one column per metric of
        requests (ttft, tpot, e2e, ...), in SI units. What is undefined or was not counted is NaN.
        """
        return requests_frame(self.analysis, self.folder.samples)

    def judged_by(
        self, *, slo: str | Mapping[str, JSON] | None = None, prices: Prices | None = None, equal_within: str | float | None = None
    ) -> Run:
        """The same run with another SLO, with prices or another margin; what is stored does not change.

        slo: a preset ('mlperf/deepseek-r1'), 'ttft_ms=500,tpot_ms=50', or a mapping with these keys; None: the run's own.
        prices: see `price_list`. equal_within: the difference below which deployments are equal in practice, '3%' or 0.03.
        UserError for an unknown preset or key, and for an invalid margin.
        """
        margin = self.equal_within if equal_within is None else read_margin(equal_within)
        if slo is None:
            return Run(self.folder, prices or self.prices, margin)

        folder = run_folder.open_run(self.path)
        folder.record = replace(folder.record, slo=plain_object(read_slo(slo)))
        return Run(folder, prices or self.prices, margin)

    def report(self, form: Form = "text") -> str:
        """The run for a terminal: the answer ('summary'), the latencies at every load ('latency'), what the answer rests on ('why') or a
        table of all rows ('text'); as Markdown ('md'), tidy CSV, versioned JSON, an HTML page that opens offline, or a picture of the
        answer ('svg'). 'tuning': of a run of `bench tune` the default and the tuned rows.
        """
        if form == "summary":
            return render_summary(self.analysis, self.path)
        if form == "html":
            from enginebench.report.html import render_html

            return render_html(self.folder, self.analysis)
        if form == "svg":
            from enginebench.report.picture import render_picture

            return render_picture(self.folder, self.analysis)
        render = {
            "latency": render_latencies, "why": render_why, "text": render_table, "md": to_markdown, "csv": to_csv, "json": to_json,
            "tuning": tuning_text,
        }[form]  # fmt: skip
        return render(self.analysis)


def open_run(path: str | Path) -> Run:
    """Open a run folder or a capsule. UserError when it is neither, is damaged, or was written by a newer version."""
    return Run(run_folder.open_run(path))


def runs(folder: str | Path = "results") -> list[Run]:
    """Every readable run in a folder, oldest first."""
    return [Run(found) for found in run_folder.find_runs(folder)]


def latest_run(folder: str | Path = "results") -> Run:
    """The run in a folder that was started last. UserError when there is none."""
    files = sorted(local(folder).glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UserError("there is no run here yet", file=Path(folder), advice="make one: bench run quickstart")
    return open_run(files[-1].parent)


def write_text(file: Path, text: str) -> None:
    """Write the text; a pipe or terminal is written to, a file is replaced whole. UserError when that is not possible."""
    try:
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")
        else:
            write_atomically(file, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", file=file, advice="the folder must exist and be writable") from None
