"""Exports: the numbers are those of the target's definition, and what reads the format here reads them."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import enginebench
import numpy as np
import pandas as pd
import pytest
from enginebench.cli import main
from enginebench.errors import UserError
from enginebench.machine.folders import checkout
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.report.exporter import all_exporters
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

ROOT = checkout() or Path()
PUBLISHED = ROOT / "results" / "published" / "2026-11-22-cpu_all_engines"
KEPT = ROOT / "tests" / "kept" / "schema-2"


@pytest.fixture(scope="module")
def published() -> enginebench.Run:
    return enginebench.open_run(PUBLISHED)


@pytest.fixture(scope="module")
def synthetic(synthetic_run: Run) -> enginebench.Run:
    return enginebench.open_run(synthetic_run.path)


def samples_of(run: enginebench.Run, cell: str) -> Samples:
    found = run.folder.samples(cell)
    assert found is not None
    return found


def test_every_format_says_what_it_is() -> None:
    for name, each in all_exporters().items():
        assert each.title, name
        assert each.read_by, name
        assert each.definitions, name


def test_an_unknown_format_names_the_known_ones(published: enginebench.Run) -> None:
    with pytest.raises(UserError, match="unknown format 'parket'") as raised:
        enginebench.export(published, "parket")
    assert "did you mean 'parquet'?" in str(raised.value)


def test_csv_is_the_tidy_csv_of_the_report(published: enginebench.Run) -> None:
    assert enginebench.export(published, "csv").files == {"figures.csv": published.report("csv").encode()}


# -- tables ------------------------------------------------------------------------------------------------------------


def _parquet(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{name}.parquet")


def _sqlite(folder: Path, name: str) -> pd.DataFrame:
    with sqlite3.connect(folder / "run.sqlite") as opened:
        return pd.read_sql(f'SELECT * FROM "{name}"', opened)  # noqa: S608


def _duckdb(folder: Path, name: str) -> pd.DataFrame:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(folder / "run.duckdb"), read_only=True) as opened:
        frame: pd.DataFrame = opened.execute(f'SELECT * FROM "{name}"').df()  # noqa: S608
    return frame


@pytest.mark.parametrize(("form", "read"), [("parquet", _parquet), ("sqlite", _sqlite), ("duckdb", _duckdb)])
def test_tables_hold_every_row_and_figure(
    form: str, read: Callable[[Path, str], pd.DataFrame], published: enginebench.Run, tmp_path: Path
) -> None:
    if form == "duckdb":
        pytest.importorskip("duckdb")
    enginebench.export(published, form).write(tmp_path)
    if form != "parquet":
        enginebench.export(published, form).write(tmp_path / f"run.{form}")
    for name, expected in {"rows": published.rows, "cells": published.cells, "requests": published.requests}.items():
        found = read(tmp_path, name)
        assert len(found) == len(expected) > 10
        assert list(found.columns) == list(expected.columns)
        for column in ("output_throughput", "ttft_p50") if name != "requests" else ("ttft", "tpot", "sent_s"):
            np.testing.assert_array_equal(found[column].astype(float), expected[column].astype(float))
    figures = read(tmp_path, "figures")
    tidy = published.report("csv").splitlines()
    assert len(figures) == len(tidy) - 1
    assert set(read(tmp_path, "metrics")["metric"]) >= {"ttft", "output_throughput"}


def test_the_same_run_makes_the_same_parquet_and_sqlite(published: enginebench.Run) -> None:
    for form in ("csv", "parquet", "sqlite", "openmetrics", "vllm"):
        assert enginebench.export(published, form).files == enginebench.export(PUBLISHED, form).files, form


# -- OpenMetrics -------------------------------------------------------------------------------------------------------


def test_openmetrics_is_read_by_both_parsers(synthetic: enginebench.Run) -> None:
    (text,) = (content.decode() for content in enginebench.export(synthetic, "openmetrics").files.values())
    found = {sample.name: 0 for family in openmetrics(text) for sample in family.samples}
    for family in openmetrics(text):
        for sample in family.samples:
            found[sample.name] += 1
    assert {sample.name for family in prometheus(text) for sample in family.samples} == set(found)
    rows = [row for row in synthetic.analysis.rows if row.figures.get("ttft_p50")]
    values = {
        (sample.labels["deployment"], sample.labels["model"], sample.labels["load"], sample.labels["shape"]): sample.value
        for family in openmetrics(text)
        for sample in family.samples
        if sample.name == "enginebench_ttft_seconds" and sample.labels["percentile"] == "50" and "bound" not in sample.labels
    }
    assert len(values) == len(rows)
    for row in rows:
        estimate = row.figures["ttft_p50"]
        assert estimate is not None
        assert values[row.name, row.deployment.model, row.load.level_text, row.load.shape_text] == estimate.value
    assert found["enginebench_row_info"] == len(synthetic.analysis.rows)


# -- vLLM bench serve --------------------------------------------------------------------------------------------------


def by_hand(samples: Samples) -> dict[str, float]:
    """The metrics of `vllm bench serve`, computed request by request from the definitions in its source."""
    ttfts, tpots, itls, latencies, tokens = [], [], [], [], 0
    for i in range(len(samples)):
        events = samples.event_ns[samples.offsets[i] : samples.offsets[i + 1]].tolist()
        if samples.outcome[i] != "ok":
            continue
        n = int(samples.output_tokens[i])
        tokens += n
        ttft, latency = (events[0] - int(samples.sent_ns[i])) / 1e9, (events[-1] - int(samples.sent_ns[i])) / 1e9
        ttfts.append(ttft)
        latencies.append(latency)
        itls += [(b - a) / 1e9 for a, b in itertools.pairwise(events)]
        if n > 1:
            tpots.append((latency - ttft) / (n - 1))
    duration = (int(samples.end_ns.max()) - int(samples.sent_ns.min())) / 1e9
    out = {"duration": duration, "output_throughput": tokens / duration, "request_throughput": len(ttfts) / duration}
    for name, values in {"ttft": ttfts, "tpot": tpots, "itl": itls, "e2el": latencies}.items():
        out |= {f"mean_{name}_ms": 1e3 * float(np.mean(values)), f"median_{name}_ms": 1e3 * float(np.median(values))}
        out |= {f"std_{name}_ms": 1e3 * float(np.std(values)), f"p99_{name}_ms": 1e3 * float(np.percentile(values, 99))}
    return out


def results(run: enginebench.Run, form: str = "vllm", **wanted: object) -> list[dict[str, Any]]:
    files = enginebench.export(run, form).files
    found = [json.loads(content) for name, content in files.items() if not name.endswith((".pytorch.json", "summary.json"))]
    return [each for each in found if all(each.get(key) == value for key, value in wanted.items())]


def test_vllm_numbers_are_those_of_its_definitions(synthetic: enginebench.Run) -> None:
    found = results(synthetic)
    ran = [cell for row in synthetic.analysis.rows for cell in row.cells if cell.ran]
    assert len(found) == len(ran) > 80
    for result in found[::7]:
        expected = by_hand(samples_of(synthetic, result["enginebench_cell"]))
        for name, value in expected.items():
            assert result[name] == pytest.approx(value, rel=1e-9), name


def test_vllm_lists_give_the_timestamps_back(synthetic: enginebench.Run) -> None:
    result = results(synthetic)[0]
    samples = samples_of(synthetic, result["enginebench_cell"])
    zero = int(samples.sent_ns.min())
    for i, (start, ttft, itls) in enumerate(zip(result["start_times"], result["ttfts"], result["itls"], strict=True)):
        assert zero + round(start * 1e9) == samples.sent_ns[i]
        times = np.round((start + ttft) * 1e9 + np.concatenate(([0.0], np.cumsum(itls))) * 1e9).astype(int) + zero
        np.testing.assert_array_equal(times, samples.event_ns[samples.offsets[i] : samples.offsets[i + 1]])


def test_vllm_pytorch_records(synthetic: enginebench.Run) -> None:
    files = enginebench.export(synthetic, "vllm").files
    name = next(name for name in files if name.endswith(".pytorch.json"))
    records = json.loads(files[name])
    result = json.loads(files[name.replace(".pytorch", "")])
    assert len(records) == 12
    for record in records:
        (value,) = record["metric"]["benchmark_values"]
        assert value == result[record["metric"]["name"]]
        assert record["model"]["name"] == result["model_id"]


def test_imported_vllm_results_have_the_same_figures(synthetic: enginebench.Run, tmp_path: Path) -> None:
    """What is exported and imported again: per cell the same medians and throughput as the target states."""
    exported = enginebench.export(synthetic, "vllm")
    written = [path for path in exported.write(tmp_path / "x") if not path.name.endswith((".pytorch.json", "summary.json"))]
    for file in written[::20]:
        result = json.loads(file.read_text())
        again = enginebench.import_file(file, results=tmp_path / "runs")
        (cell,) = (cell for row in again.analysis.rows for cell in row.cells)
        for figure, name in {"ttft_p50": "median_ttft_ms", "tpot_p50": "median_tpot_ms", "e2e_p50": "median_e2el_ms"}.items():
            if cell.figures.get(figure) is not None:
                assert cell.figures[figure] == pytest.approx(result[name] / 1e3, rel=1e-6), figure
        assert cell.figures["output_throughput"] == pytest.approx(result["output_throughput"], rel=0.25)


def test_what_is_withheld_is_not_exported(published: enginebench.Run) -> None:
    """Latencies of an in-process batch mean nothing, whoever defines them."""
    exported = enginebench.export(published, "vllm")
    batches = [name for name in exported.files if name.startswith("llamacpp_in_process") and not name.endswith(".pytorch.json")]
    assert batches
    for name in batches:
        result = json.loads(exported.files[name])
        assert "median_ttft_ms" not in result
        assert result["output_throughput"] > 0
    assert any("is left out" in note or "not streamed" in note for note in exported.notes)


# -- the command -------------------------------------------------------------------------------------------------------


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_of("export") == 0
    assert "openmetrics" in capsys.readouterr().out
    assert code_of("export", str(PUBLISHED), "--to", "csv") == 0
    assert (tmp_path / f"{PUBLISHED.name}-csv.csv").is_file()
    assert code_of("export", str(PUBLISHED), "--to", "vllm") == 0
    assert (tmp_path / f"{PUBLISHED.name}-vllm" / "summary.json").is_file()
    capsys.readouterr()
    assert code_of("export", str(PUBLISHED), "--to", "csv", "-o", "-") == 0
    assert capsys.readouterr().out.startswith("deployment,")
    assert code_of("export", str(PUBLISHED), "--to", "vllm", "-o", "-") == 2
    assert "cannot go to stdout" in capsys.readouterr().err
    assert code_of("export", str(PUBLISHED), "--to", "nothing") == 2


def test_cells_that_did_not_run_are_counted(synthetic: enginebench.Run) -> None:
    notes = enginebench.export(synthetic, "vllm").notes
    assert "6 of 108 cells failed or were skipped: they are not in the export" in notes
    assert not math.isnan(len(notes))


def test_a_run_without_figures_has_nothing_to_export(tmp_path: Path, synthetic_run: Run) -> None:
    from dataclasses import replace

    folder = Run.create(tmp_path / "empty", replace(synthetic_run.record, probes={}), "name: empty\n")
    with pytest.raises(UserError, match="nothing to export to vllm"):
        enginebench.export(folder.path, "vllm")
