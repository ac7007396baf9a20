"""The page of a large run: its size, and that it grows slowly."""

from __future__ import annotations

from pathlib import Path

import pytest
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.records.run_folder import Run
from enginebench.report.html import render_html
from enginebench.report.run import open_run
from enginebench.report.summary_details import render_why

from ...large_run import cells, large_run  # noqa: TID252  # tests/ is no package


def test_the_page_of_360_cells_is_under_2_2_mb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_run: Run, synthetic_analysis: Analysis
) -> None:
    """The library alone is 1.69 MB; a cell is about 1.2 kB, with its row of the table, its part of the figures and its server start."""
    monkeypatch.setattr("enginebench.records.files._sync", lambda _: None)
    large, small = len(list(cells())), len(synthetic_run.record.cells)
    run = large_run(tmp_path / "large")
    page, other = (
        len(render_html(run_, analysis).encode()) for run_, analysis in ((run, analyse(run)), (synthetic_run, synthetic_analysis))
    )
    assert large == 360
    assert page < 2_200_000
    assert (page - other) / (large - small) < 1_300


def test_a_start_shows_of_its_configuration_what_its_first_did_not() -> None:
    """vLLM's configuration of 21 kB has a time and an identifier that are new at each of 12 starts; every start has two cells."""
    run = open_run(Path(__file__).parents[3] / "results" / "published" / "2026-11-30-cpu_all_engines")
    page = run.report("html")
    assert len(page.encode()) < 2_200_000
    assert page.count("Resolved configuration: lines unlike those of the first start") >= 9
    assert page.count("instance_id") == 12
    why = render_why(run.analysis, width=400)
    assert "sure at 1 of 2 loads" in why
    assert "sure at 1 of 2 loads; sure at" not in why
