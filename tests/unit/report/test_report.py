"""Every output of a report, from one synthetic run: its content, that nothing is cut, and that labels cannot inject anything."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from enginebench.adapter import Member
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.domain.formatting import number
from enginebench.metrics.statistics import Estimate
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.report import render_table, to_csv, to_json, to_markdown
from enginebench.report.blocks import Plots
from enginebench.report.columns import TTFT, full_text, intervals_text, shown, why_missing
from enginebench.report.export import REPORT_SCHEMA, escape_markdown
from enginebench.report.html import render_html, script_json
from enginebench.report.sample_summary import MAX_POINTS, points_per_curve
from enginebench.report.section import Context
from enginebench.report.sections import all_sections
from enginebench.report.sections.comparison_table import comparison_table
from enginebench.report.sections.frontier import pareto

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(synthetic_run: Run, synthetic_analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("html") / "report.html"
    file.write_text(render_html(synthetic_run, synthetic_analysis), encoding="utf-8")
    return file


@pytest.fixture
def empty(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "empty", RunRecord("empty", "2026-01-02T03:04:05+00:00", {}, "0", ("a",), {}, "0.1.0"), "")


def _same(golden: Path, text: str) -> None:
    """Compare with the golden file; `rm` the file and run again to accept a change, then read the diff."""
    if not golden.exists():
        golden.write_text(text, encoding="utf-8")
        pytest.fail(f"wrote {golden.name}: read it and run again")
    assert text == golden.read_text(encoding="utf-8")


def test_every_server_of_a_start_has_its_command_and_no_secret(synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    member = Member("prefill-0", ("engine", "--port", "9001"), 9001, {"SIDE": "p", "API_KEY": "do not show"})
    launches = {}
    for key, launch in synthetic_analysis.launches.items():
        assert launch.startup.command is not None
        command = dataclasses.replace(launch.startup.command, members=(member,))
        launches[key] = dataclasses.replace(launch, startup=dataclasses.replace(launch.startup, command=command))
    page = render_html(synthetic_run, dataclasses.replace(synthetic_analysis, launches=launches))
    assert "Command of prefill-0" in page
    assert "SIDE=p API_KEY=(hidden) engine --port 9001" in page
    assert "do not show" not in page


# -- figures -------------------------------------------------------------------------------------------------------------


def test_an_interval_has_the_precision_of_its_value() -> None:
    assert full_text(Estimate(0.0412, (0.0398, 0.0412, 0.10251), 0.0398, 0.10251), TTFT) == "41.2 [39.8-102.5]"
    assert full_text(Estimate(0.0412, (0.0412,)), TTFT) == "41.2"
    assert full_text(None, TTFT) == "-"


def test_a_missing_percentile_says_how_many_requests_it_needs(synthetic_analysis: Analysis) -> None:
    tail = next(column for column in shown(synthetic_analysis) if column.figure == "ttft_p99")
    reasons = {why_missing(row, tail) for row in synthetic_analysis.rows}
    assert reasons == {None, "TTFT p99 needs 300 requests"}


def test_itl_is_called_an_event_interval_unless_every_event_is_one_token(synthetic_analysis: Analysis) -> None:
    assert "ITL p99" in {column.label for column in shown(synthetic_analysis)}
    first, *rest = synthetic_analysis.rows
    bundled = dataclasses.replace(first, cells=tuple(dataclasses.replace(cell, one_token_per_event=False) for cell in first.cells))
    assert "event interval p99" in {c.label for c in shown(dataclasses.replace(synthetic_analysis, rows=(bundled, *rest)))}


def test_an_in_process_batch_does_not_decide_the_name_of_gaps(synthetic_analysis: Analysis) -> None:
    first, *rest = synthetic_analysis.rows
    cells = tuple(dataclasses.replace(cell, one_token_per_event=False) for cell in first.cells)
    batch = dataclasses.replace(first, cells=cells, deployment=dataclasses.replace(first.deployment, runtime="in-process"))
    assert "ITL p99" in {c.label for c in shown(dataclasses.replace(synthetic_analysis, rows=(batch, *rest)))}
    assert not {"TTFT p50", "ITL p99"} & {c.label for c in shown(dataclasses.replace(synthetic_analysis, rows=(batch,)))}


def test_the_meaning_of_the_intervals_is_stated(synthetic_analysis: Analysis) -> None:
    meaning = "range over n restarts; probability that it holds the true median: 75 % for n=3"
    assert intervals_text(synthetic_analysis) == meaning
    assert meaning in " ".join(render_table(synthetic_analysis, width=120, color=False).split())
    assert meaning in to_markdown(synthetic_analysis)


# -- content of the table --------------------------------------------------------------------------------------------------------------


def test_a_row_that_may_not_be_compared_is_never_best(synthetic_analysis: Analysis) -> None:
    table = comparison_table(synthetic_analysis)
    assert {line.state for line in table.lines} == {"valid", "suspect", "invalid", "failed", "skipped"}
    assert not any(line.best for line in table.lines if not line.row.ranked)
    assert len(table.lines) == len(synthetic_analysis.rows)


def test_the_same_reason_is_one_footnote(synthetic_analysis: Analysis) -> None:
    table = comparison_table(synthetic_analysis)
    assert len(table.notes) == 5
    assert sum(bool(line.notes) for line in table.lines) == 7
    assert all(1 <= note <= len(table.notes) for line in table.lines for note in line.notes)


# -- table ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_table_is_as_expected(synthetic_analysis: Analysis, golden: Path, width: int) -> None:
    text = render_table(synthetic_analysis, width=width, color=False)
    _same(golden / f"report-{width}.txt", text)


@pytest.mark.parametrize("width", [20, 60, 80, 100, 120, 160, 240])
def test_no_figure_is_cut_at_any_width(synthetic_analysis: Analysis, width: int) -> None:
    text = render_table(synthetic_analysis, width=width, color=False)
    assert max(map(len, text.splitlines())) <= max(width, 60)
    assert "…" not in text
    table = comparison_table(synthetic_analysis)
    for line in table.lines:
        if found := line.row.figures.get("output_throughput"):
            assert number(found.value) in text


def test_colour_only_when_asked_for(synthetic_analysis: Analysis) -> None:
    plain = render_table(synthetic_analysis, width=100)  # under pytest stdout is not a terminal
    coloured = render_table(synthetic_analysis, width=100, color=True)
    assert "\x1b[" not in plain
    assert re.sub(r" +(?=\n)", "", re.sub(r"\x1b\[[0-9;]*m", "", coloured)) == plain


# -- Markdown, CSV, JSON -------------------------------------------------------------------------------------------------


def test_markdown_is_as_expected(synthetic_analysis: Analysis, golden: Path) -> None:
    _same(golden / "report.md", to_markdown(synthetic_analysis))


def test_markdown_holds_no_markup_of_a_label(synthetic_analysis: Analysis) -> None:
    text = to_markdown(synthetic_analysis)
    assert "<script" not in text.replace("\\<script", "")
    assert escape_markdown("a|b\n*c* [d](javascript:e)") == r"a\|b \*c\* \[d\](javascript:e)"
    assert escape_markdown("\x1b]0;title\x07") == r"\\x1b\]0;title\\x07"


def test_csv_holds_every_figure_in_si_units(synthetic_analysis: Analysis) -> None:
    frame = pd.read_csv(
        io.StringIO(to_csv(synthetic_analysis)), keep_default_na=False, na_values={c: [""] for c in ("value", "low", "high", "n")}
    )
    expected = sum(max(1, sum(1 for found in row.figures.values() if found)) for row in synthetic_analysis.rows)
    assert len(frame) == expected
    assert set(synthetic_analysis.columns) <= set(frame.columns)
    assert set(frame["status"]) == {"ok", "failed", "skipped"}
    row = synthetic_analysis.rows[0]
    mine = frame[(frame["deployment"] == row.name) & (frame["model"] == row.deployment.model) & (frame["figure"] == "ttft_p50")]
    found = row.figures["ttft_p50"]
    assert found is not None
    first = mine[(mine["concurrency"] == row.load.concurrency) & (mine["input_tokens"] == row.load.input_tokens)].iloc[0]
    assert (first["value"], first["low"], first["high"], first["n"], first["unit"]) == (found.value, found.low, found.high, 3, "s")


def test_json_is_versioned_and_complete(synthetic_analysis: Analysis) -> None:
    document = json.loads(to_json(synthetic_analysis))
    assert document["schema"] == REPORT_SCHEMA
    assert document["counts"] == {"ok": 102, "failed": 3, "skipped": 3, "missing": 0}
    assert sum(len(row["cells"]) for row in document["rows"]) == 108
    assert {reason["check"] for row in document["rows"] for cell in row["cells"] for reason in cell["reasons"]} == {
        "client_bound",
        "length_mismatch",
        "option_not_honoured",
    }
    assert len(document["parity"]) == 6
    assert document["launches"][0]["version"] == "1.2.3"


# -- HTML ----------------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What a browser would load or run: sources of elements, the bodies of scripts, event handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "script":
            self._inside = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def test_page_is_one_small_file_that_loads_nothing(page: Path) -> None:
    assert page.stat().st_size < 2_200_000
    seen = _Page()
    seen.feed(page.read_text(encoding="utf-8"))
    assert all(target.startswith("#") for target in seen.loads)
    assert "url(" not in page.read_text(encoding="utf-8").split("</style>")[0]
    assert not seen.handlers
    assert len(seen.scripts) == 4  # data, folded data, Plotly, our own: no label has added another


def test_labels_are_harmless_everywhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "alert(1)" in text  # as text
    assert script_json({"a": "</script><!--&"}) == '{"a":"\\u003c/script\\u003e\\u003c!--\\u0026"}'
    data = json.loads(re.findall(r'<script type="application/json" id="plots">(.*?)</script>', text, re.DOTALL)[0])
    names = {trace.get("name", "") for panel in data for trace in panel["data"]}
    assert not any("<" in name for name in names)


def test_page_shows_what_is_recorded(page: Path) -> None:
    shown_text = page.read_text(encoding="utf-8")
    for text in (
        "Example 9654",
        "exit code 1 before it was ready",
        "engine core died",
        "do not fit 2 x 80 GB",
        "max_concurrency",
        "OMP_NUM_THREADS",
    ):
        assert text in shown_text, text


def test_plots_are_valid_plotly(synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    context = Context(synthetic_run, synthetic_analysis)
    made = {section.id: list(section.blocks(context)) for section in all_sections() if section.applies(synthetic_analysis)}
    plots = {id_: block for id_, blocks in made.items() for block in blocks if isinstance(block, Plots)}
    assert list(plots) == [
        "frontier", "ttft", "tpot", "throughput", "context", "distribution-ttft", "distribution-tpot", "distribution-itl",
        "engine-internals",
    ]  # fmt: skip
    for panel in (panel for block in plots.values() for panel in block.panels):
        go.Figure({"data": list(panel.traces), "layout": dict(panel.layout)})  # rejects properties that Plotly does not know


def test_no_point_is_better_than_the_pareto_points_in_both() -> None:
    points = [(1.0, 9.0), (2.0, 8.0), (1.5, 8.5), (1.0, 5.0), (3.0, 1.0), (2.0, 3.0)]
    assert pareto(points) == [(1.0, 9.0), (1.5, 8.5), (2.0, 8.0), (3.0, 1.0)]
    assert pareto([]) == []


def test_the_number_of_points_is_bounded() -> None:
    assert points_per_curve(1) == 101
    assert points_per_curve(1000) * 1000 <= MAX_POINTS


def test_a_run_without_cells_still_has_a_report(empty: Run) -> None:
    analysis = analyse(empty)
    assert "Nothing could be measured." in render_table(analysis, width=80)
    assert "Nothing could be measured." in render_html(empty, analysis)
    assert to_markdown(analysis).startswith("**Nothing could be measured.**")
    assert to_csv(analysis).count("\n") == 1
    assert json.loads(to_json(analysis))["counts"]["missing"] == 1
