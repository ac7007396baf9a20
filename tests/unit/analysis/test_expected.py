"""What is expected of a cell: in its figures and exports, in the note on a slow row, and learnt from stored runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.caveats import slower_than_usual
from enginebench.analysis.own_points import expectations
from enginebench.cli import bench
from enginebench.cli.progress import ProgressLines
from enginebench.errors import UserError
from enginebench.metrics.statistics import Estimate
from enginebench.physics.expectation import OWN, PhysicalEstimate, published
from enginebench.records.counters import Gauge
from enginebench.records.run_folder import Run
from enginebench.report import to_json
from enginebench.runner.events import RunOpened
from enginebench.scenario.capacity import PlanTime

PUBLISHED = Path(__file__).parents[3] / "results" / "published" / "2026-11-30-cpu_all_engines"
SPARK = PhysicalEstimate(1000.0, "dgx-spark-128gb", "single stream", bound=1000.0)


def slow(row: Row, share: float, estimate: PhysicalEstimate = SPARK, **cell: object) -> Row:
    """The row as if it had reached this share of what is expected of it."""
    figures = {**row.figures, "share_of_expected": Estimate(share, (share,))}
    return replace(row, figures=figures, cells=tuple(replace(each, estimate=estimate, **cell) for each in row.cells))


@pytest.fixture
def row(synthetic_analysis: Analysis) -> Row:
    return next(row for row in synthetic_analysis.rows if row.deployment.engine == "llamacpp" and row.sound and row.load.concurrency == 4)


def test_a_row_under_half_of_its_expectation_is_said_to_be_slow(row: Row) -> None:
    usual = published().expected("llamacpp", SPARK)
    assert usual is not None
    (said,) = slower_than_usual([slow(row, 0.3)])
    assert said.startswith(f"{row.name} on {row.deployment.model} is slower than this engine usually is here: 30% of ")
    assert "llamacpp on dgx-spark-128gb, single stream: " in said
    assert "Likely causes: " in said
    assert "a power or clock limit of the device" in said
    assert list(slower_than_usual([slow(row, 0.55)])) == []
    assert list(slower_than_usual([slow(row, 0.3, replace(SPARK, device="mi210-64gb"))])) == [], "nothing is known of that device"
    assert list(slower_than_usual([replace(slow(row, 0.3), verdict="invalid")])) == []
    (few,) = slower_than_usual([slow(row, 0.3, gauges={"running": Gauge(1.5, 2.0, 10)})])
    assert "only 1.5 of 4 requests ran at once" in few


def test_causes_are_those_of_the_regime(row: Row) -> None:
    (offloaded,) = slower_than_usual([slow(row, 0.05, PhysicalEstimate(1000.0, "rtx-4090-24gb", "single stream, offloaded"))])
    assert "host memory" in offloaded


def test_json_has_what_is_expected_of_a_cell(synthetic_analysis: Analysis, row: Row) -> None:
    (exported,) = json.loads(to_json(replace(synthetic_analysis, rows=(slow(row, 0.3),))))["rows"]
    found = exported["cells"][0]["expected"]
    assert found["low"] < found["tokens_per_s"] < found["high"]
    assert found["basis"].startswith("llamacpp on dgx-spark-128gb, single stream: ")
    assert exported["figures"]["share_of_expected"]["value"] == 0.3


def test_own_runs_are_learnt_from(synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    cell = next(cell for row in synthetic_analysis.rows for cell in row.cells if cell.estimate is not None and cell.verdict == "valid")
    assert cell.estimate is not None
    for path in (synthetic_run.path, synthetic_run.path.parent):
        found = expectations([path]).expected(cell.record.deployment.engine, cell.estimate)
        assert found is not None
        assert found.efficiency.sources == (OWN,)
        rate = cell.figures["output_throughput"]
        assert rate is not None
        assert found.low < rate < found.high
    assert expectations() is published()


def test_what_is_known_of_nothing_else_is_learnt_from_a_stored_run() -> None:
    estimate = PhysicalEstimate(1663.0, "cpu", "single stream")
    assert expectations().expected("llamacpp", estimate) is None, "of CPUs nothing is published"
    found = expectations([PUBLISHED]).expected("llamacpp", estimate)
    assert found is not None
    assert found.low < 537 < found.high, "537 tok/s in a process and 564 in a batch, medians of four"
    assert found.basis == "llamacpp on cpu, single stream: 8 points of own runs"


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, synthetic_run: Run) -> None:
    with pytest.raises(UserError, match="holds no run"):
        expectations([tmp_path])
    empty = Run.create(tmp_path / "empty", replace(synthetic_run.record, cells=()), "name: empty\n")
    with pytest.raises(UserError, match="no cell has a known bound"):
        expectations([empty.path])
    empty.path.rename(tmp_path.parent / "elsewhere")


def test_a_calibrated_ceiling_rests_on_the_run(synthetic_run: Run) -> None:
    words = ["ceiling", "llama4-scout", "--hardware", "2xh100", "--precision", "fp8", "--engine", "vllm", "--batch", "4"]
    before, after = (CliRunner().invoke(bench, each).output for each in (words, [*words, "--calibrate", str(synthetic_run.path)]))
    assert OWN not in before
    assert f"points of {OWN}" in after


@pytest.mark.parametrize(
    ("time_needed", "line"),
    [
        (PlanTime(720, 1860, 0), "about 31 min of load left (expected), at least 12 min; warm-up and server starts come on top\n"),
        (PlanTime(720, None, 9), "at least 12 min of load left; warm-up and server starts come on top\n"),
        (PlanTime(0, None, 9), ""), (None, ""),
    ],
)  # fmt: skip
def test_a_run_begins_with_the_time_it_is_expected_to_take(
    time_needed: PlanTime | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = ProgressLines(None if time_needed is None else lambda: time_needed)
    progress(RunOpened(Path(), 8, 0))
    assert capsys.readouterr().err == line


def test_a_resumed_run_expects_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressLines(lambda: PlanTime(720, 1860, 0))(RunOpened(Path(), 8, 4))
    assert capsys.readouterr().err.startswith("about 15.5 min of load left (expected), at least 6 min")
