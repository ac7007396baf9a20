"""A cell that rests on the figures of another tool's file: it has them, did not fail, and says what could not be checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.domain import Cell, ClosedLoop, Deployment
from enginebench.records.cell import CellRecord, CellTraits, Stated
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.report import render_table, to_csv, to_json, to_markdown
from enginebench.report.html import render_html

STATED = Stated("vllm bench serve, serve.json", {"output_throughput": 1200.0, "ttft_p50": 0.05, "itl_p99": 0.02})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two stated cells, and one that was measured and has lost its samples."""
    cells = [
        Cell(Deployment("vllm", "olmoe", "bf16", "olmoe"), ClosedLoop(concurrency=n, requests=40, input_tokens=8), 0) for n in (1, 4, 16)
    ]
    made = Run.create(tmp_path / "run", RunRecord("imported", "", {}, "0", tuple(cell.id for cell in cells), {}, "0.1.0"), "")
    for cell in cells:
        record = CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, 0, "ok")
        made.add_cell(record if cell is cells[-1] else replace(record, stated=STATED))
    return Run(made.path)


@pytest.fixture
def analysis(run: Run) -> Analysis:
    return analyse(run)


def test_a_stated_cell_has_its_figures_and_did_not_fail(analysis: Analysis) -> None:
    assert [row.status for row in analysis.rows] == ["ok", "ok", "failed"]
    assert analysis.rows[0].cells[0].record.stated == STATED
    throughput = analysis.rows[0].figures["output_throughput"]
    assert throughput is not None
    assert throughput.value == 1200.0
    assert analysis.rows[0].verdict == "valid"
    assert analysis.rows[2].reasons == ("raw samples are missing",)


def test_what_could_not_be_checked_is_listed(analysis: Analysis) -> None:
    cell = analysis.rows[0].cells[0]
    assert "client_bound" in cell.not_checkable
    assert "random_routing" not in cell.not_checkable
    exported = json.loads(to_json(analysis))["rows"][0]["cells"][0]
    assert exported["stated_by"] == STATED.source
    assert "not_steady" in exported["not_checkable"]
    assert any(said.startswith(f"figures stated by {STATED.source} have no raw samples") for said in analysis.caveats)


def test_the_checks_that_need_only_the_record_apply(run: Run) -> None:
    (first, *_) = run.cells()
    run.add_cell(replace(first, traits=CellTraits(random_weights=True)))
    cell = analyse(run).rows[0].cells[0]
    assert (cell.verdict, [reason.check.id for reason in cell.reasons]) == ("scoped", ["random_routing"])


def test_every_output_shows_stated_figures(run: Run, analysis: Analysis) -> None:
    for text in (render_table(analysis, width=200, color=False), to_markdown(analysis), to_csv(analysis), render_html(run, analysis)):
        assert "1,200" in text or "1200.0" in text
    assert "event interval p99" in render_table(analysis, width=200, color=False), "the source does not say how many tokens an event has"
