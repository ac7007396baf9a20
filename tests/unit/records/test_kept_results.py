"""A real run of every schema version there ever was is kept in tests/kept/, and today's code must read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from enginebench.analysis.analysis import analyse
from enginebench.records.run_folder import open_run
from enginebench.records.schema import SCHEMA
from enginebench.report import render_table, to_csv, to_json, to_markdown
from enginebench.report.html import render_html

KEPT = Path(__file__).parents[2] / "kept"


def test_there_is_one_for_every_version() -> None:
    assert {path.name for path in KEPT.iterdir()} >= {f"schema-{version}" for version in range(1, SCHEMA + 1)}


@pytest.mark.parametrize("folder", sorted(KEPT.glob("schema-*")), ids=lambda path: path.name)
def test_it_can_be_read_and_reported(folder: Path, tmp_path: Path) -> None:
    run = open_run(folder)
    analysis = analyse(run)
    assert analysis.counts == {"ok": 2, "failed": 2, "skipped": 0, "missing": 0}
    figures = [row.figures["ttft_p50"] for row in analysis.rows if row.status == "ok"]
    assert [round(found.value, 2) for found in figures if found] == [0.01, 0.01]
    cells = [cell for row in analysis.rows for cell in row.cells if cell.window]
    assert [(cell.window.state, cell.tokens) for cell in cells if cell.window] == [("too short to tell", "server usage")] * 2
    for render in (render_table, to_markdown, to_csv, to_json):
        assert render(analysis)
    assert len(render_html(run, analysis)) > 1_000_000
