"""Exports: the numbers are those of the target's definition, and what reads the format here reads them."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import enginebench
import numpy as np
import pandas as pd
import pytest
from enginebench.cli import main
from enginebench.domain import Cell, ClosedLoop, OpenLoop
from enginebench.errors import UserError
from enginebench.machine.folders import checkout
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.report.exporter import all_exporters
from enginebench.report.exporters.guidellm_statistics import concurrency, rate, spread
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

ROOT = checkout() or Path()
PUBLISHED = ROOT / "results" / "published" / "2026-11-30-cpu_all_engines"
KEPT = ROOT / "tests" / "kept" / "schema-2"


@pytest.fixture(scope="module")
def published() -> enginebench.Run:
    return enginebench.open_run(PUBLISHED)


@pytest.fixture(scope="module")
def synthetic(one_restart: Run) -> enginebench.Run:
    return enginebench.open_run(one_restart.path)


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
    assert len(found) == len(ran) > 30
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


# -- other tools' reports ----------------------------------------------------------------------------------------------


def test_aiperf_numbers_are_those_of_its_definitions(synthetic: enginebench.Run) -> None:
    files = enginebench.export(synthetic, "aiperf").files
    name = next(name for name in files if name.endswith(".json"))
    summary = json.loads(files[name])
    records = [json.loads(line) for line in files[name.replace("profile_export_aiperf.json", "profile_export.jsonl")].splitlines()]
    samples = samples_of(synthetic, summary["enginebench"]["cell"])
    expected = by_hand(samples)
    assert len(records) == len(samples) == summary["request_count"]["avg"]
    for tag, ours in {
        "time_to_first_token": "ttft",
        "inter_token_latency": "tpot",
        "inter_chunk_latency": "itl",
        "request_latency": "e2el",
    }.items():
        assert summary[tag]["avg"] == pytest.approx(expected[f"mean_{ours}_ms"], rel=1e-9), tag
        assert summary[tag]["p99"] == pytest.approx(expected[f"p99_{ours}_ms"], rel=1e-9), tag
        values = [record["metrics"][tag]["value"] for record in records]
        flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
        assert summary[tag]["count"] == len(flat)
        assert summary[tag]["sum"] == pytest.approx(sum(flat))
    assert summary["output_token_throughput"]["avg"] == pytest.approx(expected["output_throughput"], rel=1e-9)
    first = records[0]["metadata"]
    assert first["request_end_ns"] - first["request_start_ns"] == int(samples.end_ns[0] - samples.sent_ns[0])


def test_aiperf_records_have_the_pace_of_answers_that_came_at_once(published: enginebench.Run) -> None:
    """vLLM sent some answers in one event: their inter token latency is 0 in the summary and in the records."""
    files = enginebench.export(published, "aiperf").files
    summaries = {name: json.loads(content) for name, content in files.items() if name.endswith("profile_export_aiperf.json")}
    name, summary = next((name, its) for name, its in summaries.items() if its.get("inter_token_latency", {}).get("min") == 0)
    records = [json.loads(line) for line in files[name.replace("profile_export_aiperf.json", "profile_export.jsonl")].splitlines()]
    values = [its["metrics"]["inter_token_latency"]["value"] for its in records]
    assert summary["inter_token_latency"]["count"] == len(values)
    assert summary["inter_token_latency"]["avg"] == pytest.approx(np.mean(values))
    assert summary["output_token_throughput_per_user"]["count"] == sum(value > 0 for value in values) < len(values)


def test_inferencex_rows_are_made_of_vllm_results(synthetic: enginebench.Run) -> None:
    (rows,) = (json.loads(content) for content in enginebench.export(synthetic, "inferencex").files.values())
    theirs = {result["enginebench_cell"]: result for result in results(synthetic)}
    for row in rows:
        result = theirs[row["recipe_fingerprint"]]
        gpus = row["tp"] * row["pp"]
        assert row["tput_per_gpu"] == pytest.approx(result["total_token_throughput"] / gpus)
        assert row["median_ttft"] == pytest.approx(result["median_ttft_ms"] / 1e3)
        assert row["median_intvty"] == pytest.approx(1e3 / result["median_tpot_ms"])


def test_guidellm_statistics_by_hand() -> None:
    """Requests that end at 1, 2 and 4 s of 5: rates are 1 over half the time to the neighbours, weighted by that time."""
    found = rate([(1.0, 1.0), (2.0, 1.0), (4.0, 1.0)], 0.0, 5.0)
    lengths, rates = np.array([0.5, 1.0, 1.5, 1.5, 0.5]), np.array([0.0, 1.0, 1 / 1.5, 1 / 1.5, 0.0])
    assert found["mean"] == pytest.approx(float(rates @ lengths) / 5)
    assert found["count"] == 3
    assert (found["min"], found["max"]) == (0.0, 1.0)
    busy = concurrency([(0.0, 2.0, 1.0), (1.0, 4.0, 1.0)], 0.0, 5.0)
    assert busy["mean"] == pytest.approx((1 + 2 + 1 + 1 + 0) / 5)
    assert spread(np.array([1.0, 2.0, 3.0, 4.0]))["percentiles"]["p90"] == 4.0
    assert spread(np.empty(0))["mean"] == 0.0


def test_guidellm_requests_and_metrics_agree(synthetic: enginebench.Run) -> None:
    (report,) = (json.loads(content) for content in enginebench.export(synthetic, "guidellm").files.values())
    assert len(report["benchmarks"]) > 30
    for benchmark in report["benchmarks"][::13]:
        ttfts = [
            1e3 * (each["info"]["timings"]["first_token_iteration"] - each["info"]["timings"]["request_start"])
            for each in benchmark["requests"]["successful"]
        ]
        stated = benchmark["metrics"]["time_to_first_token_ms"]["successful"]
        assert stated["mean"] == pytest.approx(np.mean(ttfts))
        assert stated["percentiles"]["p90"] == pytest.approx(np.percentile(ttfts, 90, method="inverted_cdf"))


def test_llmd_reports_have_the_fields_of_the_schema(synthetic: enginebench.Run) -> None:
    """Its classes forbid other fields; they validate the whole in tests/contracts/exports.py."""
    for content in list(enginebench.export(synthetic, "llm-d").files.values())[::11]:
        report = json.loads(content)
        assert set(report) == {"version", "run", "scenario", "results"}
        assert report["version"] == "0.2"
        assert set(report["run"]) <= {"uid", "eid", "cid", "pid", "time", "user", "description", "keywords"}
        aggregate = report["results"]["request_performance"]["aggregate"]
        assert set(aggregate) == {"requests", "latency", "throughput"}
        units = {"request_rate": "queries/s"}
        assert all(its["units"] == units.get(name, "tokens/s") for name, its in aggregate["throughput"].items())
        (engine,) = report["scenario"]["stack"]
        assert set(engine["standardized"]) == {"kind", "tool", "tool_version", "role", "replicas", "model", "accelerator"}


@pytest.fixture
def troubled(one_restart: Run, tmp_path: Path) -> enginebench.Run:
    """An open loop in which every fifth request failed, and a closed loop whose tokens nobody counted."""
    found = next(cell for cell in one_restart.cells() if cell.status == "ok")
    samples = samples_of(enginebench.open_run(one_restart.path), found.id)
    bad = np.arange(len(samples)) % 5 == 0
    kept = [(a, b) for i, (a, b) in enumerate(itertools.pairwise(samples.offsets.tolist())) if not bad[i]]
    where = np.concatenate([np.arange(a, b) for a, b in kept])
    counts = np.where(bad, 0, samples.events)
    failed = replace(
        samples, outcome=tuple("timeout" if each else "ok" for each in bad), error=tuple("took too long" if each else None for each in bad),
        event_ns=samples.event_ns[where], event_tokens=samples.event_tokens[where], event_chars=samples.event_chars[where],
        offsets=np.concatenate(([0], np.cumsum(counts))), output_tokens=np.where(bad, -1, samples.output_tokens),
    )  # fmt: skip
    uncounted = replace(samples, output_tokens=np.full(len(samples), -1), event_tokens=np.full_like(samples.event_tokens, -1))
    loads = (
        OpenLoop(rate=5.0, input_tokens=128, output_tokens=32, requests=len(samples)),
        ClosedLoop(concurrency=2, requests=len(samples)),
    )
    cells = [Cell(found.deployment, load, 0) for load in loads]
    record = replace(one_restart.record, cells=tuple(cell.id for cell in cells), slo={"ttft_s": 1.0, "tpot_s": 0.1})
    folder = Run.create(tmp_path / "troubled", record, "name: troubled\n")
    for cell, its in zip(cells, (failed, uncounted), strict=True):
        folder.add_cell(replace(found, id=cell.id, load=cell.load, launch_id=cell.launch_id, samples_sha256=None), its)
    return enginebench.open_run(folder.path)


@pytest.mark.parametrize("form", ["aiperf", "csv", "guidellm", "inferencex", "llm-d", "mlperf", "openmetrics", "parquet", "sqlite", "vllm"])
def test_failed_requests_and_uncounted_tokens(form: str, troubled: enginebench.Run) -> None:
    if form == "inferencex":  # one cell is an open loop, the other has no tokens
        with pytest.raises(UserError, match=r"nothing to export to inferencex: .*no rows of open loops"):
            enginebench.export(troubled, form)
        return
    exported = enginebench.export(troubled, form)
    for name, content in exported.files.items():
        if name.endswith(".json"):
            json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} in {form}"))
    if form in ("aiperf", "llm-d", "vllm", "guidellm"):
        assert any("nobody counted" in note or "not counted" in note for note in exported.notes), exported.notes


def test_failures_are_failures_everywhere(troubled: enginebench.Run) -> None:
    good, bad = 32, 8
    result = next(each for each in results(troubled) if each["request_rate"] == 5.0)
    assert (result["completed"], result["failed"]) == (good, bad)
    assert result["errors"].count("took too long") == bad
    assert result["request_goodput"] == pytest.approx(result["request_throughput"])
    assert len(result["queue_times"]) == good + bad
    summary = next(
        json.loads(content) for name, content in enginebench.export(troubled, "aiperf").files.items() if name.endswith("aiperf.json")
    )
    assert (summary["request_count"]["avg"], summary["error_request_count"]["avg"]) == (good, bad)
    report = json.loads(next(iter(enginebench.export(troubled, "llm-d").files.values())))
    requests = report["results"]["request_performance"]["aggregate"]["requests"]
    assert (requests["total"], requests["failures"]) == (good + bad, bad)
    (guide,) = (json.loads(content) for content in enginebench.export(troubled, "guidellm").files.values())
    assert guide["benchmarks"][0]["metrics"]["request_totals"] == {"successful": good, "incomplete": 0, "errored": bad, "total": good + bad}
    mlperf = json.loads(next(iter(enginebench.export(troubled, "mlperf").files.values())))
    assert (mlperf["n_samples_completed"], mlperf["n_samples_failed"]) == (good, bad)
    assert mlperf["run_config"]["load_pattern"] == {"type": "poisson", "target_qps": 5.0, "target_concurrency": None}


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
    assert "2 of 36 cells failed or were skipped: they are not in the export" in notes
    assert not math.isnan(len(notes))


def test_a_run_without_figures_has_nothing_to_export(tmp_path: Path, one_restart: Run) -> None:
    folder = Run.create(tmp_path / "empty", replace(one_restart.record, probes={}), "name: empty\n")
    with pytest.raises(UserError, match="nothing to export to vllm"):
        enginebench.export(folder.path, "vllm")
