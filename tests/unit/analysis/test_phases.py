"""A load whose level steps within one cell: a row per step, each with its own window, figures and label."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.domain import Cell, Deployment, OpenLoop, Sample
from enginebench.domain.stepped_load import SteppedLoop
from enginebench.records.cell import CellRecord
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.report import render_table, to_csv, to_json, to_markdown
from enginebench.report.html import render_html
from enginebench.workload.arrivals import due_times

MS, S = 1_000_000, 1_000_000_000
STEPS = SteppedLoop(steps="4@20, 16@20", requests=0, output_tokens=10, seed=5)
TTFT_MS = {4: 20, 16: 90}
"""Rate of the step -> TTFT of the engine that is played."""


def played() -> Samples:
    """Requests at the due times of the steps, each with the TTFT of its step and 5 ms per token."""
    made = []
    for i, due_s in enumerate(due for due in due_times(STEPS, 1000) if due < 40):
        due = S + round(due_s * S)
        first = due + TTFT_MS[4 if due_s < 20 else 16] * MS
        events = array("q", [first + j * 5 * MS for j in range(10)])
        ones = array("i", [1] * 10)
        made.append(Sample(i, 128, 10, due, due, due, events[-1], events, ones, ones, input_tokens=128, output_tokens=10))
    return Samples.collect(made)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A stepped cell in two repeats, one that failed, and a constant rate beside them."""
    deployment = Deployment("fake", "m", "none", "m")
    cells = [Cell(deployment, STEPS, repeat) for repeat in range(3)]
    path: Path = tmp_path_factory.mktemp("stepped") / "run"
    made = Run.create(path, RunRecord("stepped", "", {}, "0", tuple(cell.id for cell in cells), {}, "0.1.0"), "")
    for cell in cells:
        record = CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, cell.repeat, "ok")
        if cell.repeat == 2:
            made.add_cell(replace(record, status="failed", reason="the engine ended"))
        else:
            made.add_cell(record, played())
    return Run(path)


@pytest.fixture(scope="module")
def analysis(run: Run) -> Analysis:
    return analyse(run)


def test_each_step_is_a_row_with_the_figures_of_its_own_time(analysis: Analysis) -> None:
    assert [row.load.level_text for row in analysis.rows] == ["4 req/s", "16 req/s"]
    for row in analysis.rows:
        found = row.figures["ttft_p50"]
        assert found is not None
        assert found.value * 1e3 == pytest.approx(TTFT_MS[round(row.load.level)], abs=0.01)
        assert found.n == 2
        rate = row.figures["request_throughput"]
        assert rate is not None
        assert rate.value == pytest.approx(row.load.level, rel=0.3)
        assert {cell.window.state for cell in row.cells if cell.window} == {"steady"}


def test_a_step_is_shown_as_the_open_loop_that_it_is(analysis: Analysis) -> None:
    assert [row.load for row in analysis.rows] == [
        OpenLoop(rate=rate, duration_s=20.0, requests=0, output_tokens=10, concurrency=STEPS.concurrency, seed=5) for rate in (4.0, 16.0)
    ]
    assert [row.labels["rate"] for row in analysis.rows] == ["4", "16"]


def test_a_cell_counts_once_however_many_steps_it_has(analysis: Analysis) -> None:
    assert analysis.counts == {"ok": 2, "failed": 1, "skipped": 0, "missing": 0}
    assert [len(row.cells) for row in analysis.rows] == [3, 3]


def test_every_output_has_a_line_per_step(run: Run, analysis: Analysis) -> None:
    for text in (render_table(analysis, width=200, color=False), to_markdown(analysis), to_csv(analysis), to_json(analysis)):
        assert "16" in text
    assert "16 req/s" in render_html(run, analysis)
