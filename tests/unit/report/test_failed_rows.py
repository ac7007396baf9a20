"""Cells that were not measured: the reason with the engine's log, once for all that share it, in the table and on the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.analysis.analysis import analyse
from enginebench.records.run_folder import Run
from enginebench.report import render_table
from enginebench.report.html import render_html

from ...conftest import MODELS  # noqa: TID252  # tests are no package that has a name

WHY = "exited with code 2 before it was ready: RuntimeError: NIXL is not available"


@pytest.fixture
def failed(synthetic_run: Run, tmp_path: Path) -> Run:
    """Twelve cells of three server starts, all of which ended alike."""
    cells = [cell for cell in synthetic_run.cells() if (cell.deployment.engine, cell.deployment.model) == ("vllm", MODELS[0])][:12]
    run = Run.create(tmp_path / "run", replace(synthetic_run.record, cells=tuple(cell.id for cell in cells)), "")
    for i, cell in enumerate(cells):
        why = WHY.replace("ready", f"ready on port {41000 + i}")
        run.add_cell(replace(cell, launch_id=f"start-{i % 3}", status="failed", reason=why, log_tail=("INFO x", "NIXL is not available")))
    for start in range(3):
        run.log(f"start-{start}").write_text("INFO x\nNIXL is not available\n")
    return run


def test_one_line_for_one_cause(failed: Run) -> None:
    table = render_table(analyse(failed), width=400, color=False)
    lines = [line for line in table.splitlines() if "NIXL" in line]
    assert len(lines) == 1
    assert sum(" failed [1]" in line for line in table.splitlines()) == 1
    assert "vllm: 6 loads" in table
    assert lines[0].startswith("[1] failed: exited with code 2 before it was ready on port 41000: RuntimeError: NIXL is not available")
    assert "(12 cells)" in lines[0]
    assert f"(log: {failed.log('start-0')} and 2 more)" in lines[0]


def test_the_page_says_it_once_in_the_table_and_once_per_start(failed: Run) -> None:
    page = render_html(failed, analyse(failed))
    table = page[page.index('<table class="compare">') :].partition("</table>")[0]
    assert table.count("NIXL") == 1
    assert table.count("<tr") == 2, "the head, and one line for all rows"
    assert "vllm: 6 loads" in table
    assert page.count("<pre>INFO x\nNIXL is not available</pre>") == 3
    assert f"(log: {failed.log('start-2')})" in page
