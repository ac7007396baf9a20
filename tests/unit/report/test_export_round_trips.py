"""What is exported and imported again has the same figures, as far as the format holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import enginebench
import numpy as np
import pytest
from enginebench.analysis.rows import CellResult
from enginebench.records.run_folder import Run
from enginebench.report.exporter import Material
from enginebench.report.measured import Measured

FIGURES = {
    "vllm": ("ttft", "tpot", "itl", "e2e"),
    "inferencex": ("ttft", "tpot", "itl", "e2e"),
    "llm-d": ("ttft", "tpot", "itl", "e2e"),
    "mlperf": ("ttft", "tpot"),
}
"""Format -> the latencies that it holds by a definition that an importer maps to ours."""


@pytest.fixture(scope="module")
def run(one_restart: Run) -> enginebench.Run:
    return enginebench.open_run(one_restart.path)


@pytest.fixture(scope="module")
def cells(run: enginebench.Run) -> dict[str, Measured]:
    """Some cells with enough requests for a p99, by id."""
    found = Material(run.analysis, run.folder).cells
    return {cell.record.id: cell for cell in found if len(cell.s) >= 300 and cell.cell.verdict != "invalid"}


def imported(file: Path, results: Path) -> list[CellResult]:
    run = enginebench.import_file(file, results=results)
    return [cell for row in run.analysis.rows for cell in row.cells]


def whole_load(cell: Measured, metric: str) -> Any:
    """The values of a metric over the whole load, in s."""
    return {"ttft": cell.ttft_s[cell.ok], "tpot": cell.tpot_s(), "itl": cell.all_gaps_s, "e2e": cell.e2e_s[cell.ok]}[metric]


def one_cell_files(run: enginebench.Run, form: str, folder: Path) -> list[Path]:
    written = enginebench.export(run, form).write(folder)
    return [file for file in written if file.suffix == ".json" and not file.name.endswith((".pytorch.json", "summary.json"))] or list(
        written
    )


@pytest.mark.parametrize("form", ["vllm", "llm-d", "mlperf"])
def test_a_file_per_cell(form: str, run: enginebench.Run, cells: dict[str, Measured], tmp_path: Path) -> None:
    """Medians and p99s of the whole load, and throughput, of cells that have samples in the file or figures only."""
    pattern = "*/result_summary.json" if form == "mlperf" else "*.json"
    enginebench.export(run, form).write(tmp_path / "x")
    checked = 0
    for id_, cell in list(cells.items())[:4]:
        (file,) = (f for f in (tmp_path / "x").glob(pattern) if id_ in str(f) and not f.name.endswith(".pytorch.json"))
        (again,) = imported(file, tmp_path / "runs")
        for metric in FIGURES[form]:
            for q in (50, 99):
                figure = again.figures.get(f"{metric}_p{q}")
                if figure is None:
                    continue
                method = "lower" if form == "mlperf" else "linear"
                expected = float(np.percentile(whole_load(cell, metric), q, method=method))
                assert figure == pytest.approx(expected, rel=0.02 if again.window is not None else 1e-3), (form, metric, q)
                checked += 1
        total = float(np.nansum(cell.output_tokens)) / cell.duration_s
        assert again.figures["output_throughput"] == pytest.approx(total, rel=0.05), form
    assert checked >= 8


SAME = ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99", "e2e_p50", "e2e_p99", "output_throughput")


@pytest.mark.parametrize("form", ["vllm", "aiperf"])
def test_requests_come_back_as_samples_with_the_same_figures(
    form: str, run: enginebench.Run, cells: dict[str, Measured], tmp_path: Path
) -> None:
    """Records of single requests hold enough to compute every latency of ours again, in the same steady window."""
    enginebench.export(run, form).write(tmp_path / "x")
    for id_, cell in list(cells.items())[:4]:
        (place,) = (f for f in (tmp_path / "x").iterdir() if f.stem.endswith(id_) and not f.name.endswith(".pytorch.json"))
        (again,) = imported(place, tmp_path / "runs")
        assert again.window is not None
        for figure in (*SAME, "itl_p50", "itl_p99"):
            assert again.figures[figure] == pytest.approx(cell.figures[figure], rel=1e-3), figure


def test_guidellm_requests_come_back(run: enginebench.Run, cells: dict[str, Measured], tmp_path: Path) -> None:
    """Its requests have their first and last token and nothing between, so tokens are attributed to the window less exactly."""
    (file,) = enginebench.export(run, "guidellm").write(tmp_path / "benchmarks.json")
    ids = [benchmark["config"]["id_"] for benchmark in json.loads(file.read_text())["benchmarks"]]
    found = dict(zip(ids, (cell for cell in by_order(file, tmp_path / "runs")), strict=True))
    for id_, cell in list(cells.items())[:6]:
        for figure in SAME:
            close = 0.05 if figure == "output_throughput" else 5e-3
            assert found[id_].figures[figure] == pytest.approx(cell.figures[figure], rel=close), figure


def by_order(file: Path, results: Path) -> list[CellResult]:
    """The imported cells in the order of the file."""
    run = enginebench.import_file(file, results=results)
    found = {cell.record.id: cell for row in run.analysis.rows for cell in row.cells}
    return [found[id_] for id_ in run.folder.record.cells]


def test_inferencex_rows(run: enginebench.Run, cells: dict[str, Measured], tmp_path: Path) -> None:
    (file,) = enginebench.export(run, "inferencex").write(tmp_path / "agg_bmk.json")
    rows = json.loads(file.read_text())
    again = {cell.record.deployment.options["recipe_fingerprint"]: cell for cell in imported(file, tmp_path / "runs")}
    assert len(again) == len(rows) > 30
    for id_, cell in list(cells.items())[:6]:
        found = again[id_].figures
        assert found["output_throughput"] == pytest.approx(float(cell.output_tokens.sum()) / cell.duration_s, rel=1e-9)
        for metric in FIGURES["inferencex"]:
            if found.get(f"{metric}_p50") is not None:
                assert found[f"{metric}_p50"] == pytest.approx(float(np.median(whole_load(cell, metric))), rel=1e-9), metric


def test_what_only_states_figures_is_exported_as_far_as_definitions_agree(run: enginebench.Run, tmp_path: Path) -> None:
    (file,) = enginebench.export(run, "inferencex").write(tmp_path / "agg_bmk.json")
    again = enginebench.import_file(file, results=tmp_path / "runs")
    found = {cell.record.id: cell for row in again.analysis.rows for cell in row.cells}
    exported = enginebench.export(again, "vllm")
    results = [json.loads(content) for name, content in exported.files.items() if name != "summary.json"]
    assert len(results) == len(found)
    stated = [(result, found[result["enginebench_cell"]].figures) for result in results]
    assert any(figures.get("ttft_p50") for _, figures in stated)
    for result, figures in stated:
        middle = figures.get("ttft_p50")
        assert result.get("median_ttft_ms") == (None if middle is None else pytest.approx(1e3 * middle))
        assert "ttfts" not in result
    with pytest.raises(enginebench.UserError, match="states only figures"):
        enginebench.export(again, "aiperf")
