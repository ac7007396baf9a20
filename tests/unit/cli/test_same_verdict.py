"""The progress line, the table, the page, JSON, the comparison of runs and a search see one verdict and one reason for it."""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.adapter import Difference
from enginebench.analysis.analysis import analyse
from enginebench.analysis.rows import meets
from enginebench.cli.progress import _outcome
from enginebench.domain import Cell, Sample, SteppedLoop
from enginebench.metrics.slo import Slo
from enginebench.records.cell import CellRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.report import render_table
from enginebench.report.comparison import compare
from enginebench.report.export import to_json
from enginebench.report.html import render_html
from enginebench.runner.events import CellEnded


@pytest.fixture
def doubtful(synthetic_run: Run, tmp_path: Path) -> Run:
    """One cell whose engine reports another precision than the deployment's, which only its launch record says."""
    record = next(record for record in synthetic_run.cells() if record.status == "ok")
    launch = synthetic_run.launches()[record.launch_id]
    fell_back = replace(launch.configuration, differences=(Difference("precision", "fp8", "bf16"),))
    run = Run.create(tmp_path / "run", replace(synthetic_run.record, cells=(record.id,), searches={}), "name: doubtful\n")
    run.add_launch(replace(launch, configuration=fell_back))
    run.add_cell(record, synthetic_run.samples(record.id))
    return run


def test_all_outputs_give_one_verdict(doubtful: Run) -> None:
    detail = "asked for precision fp8, the engine reports bf16"
    analysis = analyse(doubtful)
    ((row,), (record,)) = analysis.rows, doubtful.cells()
    launch, samples = doubtful.launches()[record.launch_id], doubtful.samples(record.id)
    event = CellEnded(Cell(record.deployment, record.load, record.repeat), record, 1, samples, analysis.slo, launch)
    assert _outcome(event).endswith(f"invalid: {detail}")
    assert event.result is not None
    assert row.verdict == event.result.verdict == "invalid"
    table, page = render_table(analysis, width=160, color=False), render_html(doubtful, analysis)
    assert re.search(r"\d  invalid \[1\]\n", table)
    assert f"[1] {detail}: another precision was measured" in table
    assert '<span class="tag invalid">invalid</span>' in page
    assert detail in page
    (shown,) = json.loads(to_json(analysis))["rows"]
    assert (shown["verdict"], shown["cells"][0]["reasons"][0]["check"]) == ("invalid", "precision_fallback")
    assert meets(row.cells[0], Slo(ttft_s=100.0)) is None, "a search does not go by it"
    compared = compare(doubtful.path, doubtful.path)
    assert f"not comparable: the base is invalid: {detail}" in compared.to_text()
    (pair,) = json.loads(json.dumps(compared.to_dict()))["pairs"]
    assert [pair["verdicts"][side]["verdict"] for side in ("base", "candidate")] == ["invalid", "invalid"]


def test_a_comparison_says_that_a_side_is_suspect(doubtful: Run) -> None:
    launch = next(iter(doubtful.launches().values()))
    doubtful.add_launch(replace(launch, configuration=replace(launch.configuration, differences=(Difference("kv_dtype", "f16", "q8_0"),))))
    (row,) = analyse(doubtful).rows
    assert row.verdict == "suspect"
    compared = compare(doubtful.path, doubtful.path)
    for text in (compared.to_text(), compared.to_markdown()):
        for side in ("base", "candidate"):
            assert f"the {side} is suspect: asked for kv_dtype f16, the engine reports q8_0" in text


def test_the_steps_of_a_load_are_judged_as_the_rows_are(synthetic_run: Run, tmp_path: Path) -> None:
    """The load lasts long enough, and neither of its two steps does."""
    deployment = next(synthetic_run.cells()).deployment
    cell = Cell(deployment, SteppedLoop(steps="40@0.4, 40@0.4", input_tokens=8, output_tokens=4))
    made = []
    for i in range(32):
        sent = 10**9 + i * 25_000_000
        events, counts = array("q", [sent + 10**7 + j * 10**7 for j in range(4)]), array("i", [1] * 4)
        made.append(Sample(i, 8, 4, sent, sent, sent, events[-1], events, counts, counts, input_tokens=8, output_tokens=4))
    samples, record = Samples.collect(made), replace(CellRecord.of(cell, "ok"), identity="proven")
    run = Run.create(tmp_path / "run", replace(synthetic_run.record, cells=(cell.id,), searches={}), "name: steps\n")
    run.add_cell(record, samples)
    rows = analyse(run).rows
    assert [{reason.check.id for reason in row.cells[0].reasons} for row in rows] == [{"short_window"}] * 2
    result = CellEnded(cell, record, 1, samples).result
    assert result is not None
    assert (result.verdict, {reason.check.id for reason in result.reasons}) == ("suspect", {"short_window"})
