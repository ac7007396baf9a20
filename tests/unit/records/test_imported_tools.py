"""Files of other tools become what the tools themselves state: each tool, each metric, in our units.

The files in imported/ were written by the tools (llama-bench b11434, llama-benchy 0.4.0, evalscope 1.14.1, genai-bench 0.0.5, MLPerf
LoadGen 6.0.17) and cut to what is read; those of trtllm-bench, InferenceX,
llm-d and MLPerf Endpoints were made with the keys and formulas of
their code.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import enginebench
import numpy as np
import pytest
from click.testing import CliRunner
from enginebench.analysis.rows import Row
from enginebench.cli import bench
from enginebench.errors import UserError
from enginebench.records.importer import ImportedCell, is_json
from enginebench.records.json_stream import paths_in
from enginebench.runner import imports
from enginebench.runner.import_facts import known_hardware
from enginebench.runner.imports import all_importers, recognise

FILES = Path(__file__).with_name("imported")
Json = dict[str, Any]


def cells(path: Path) -> list[ImportedCell]:
    found = recognise(path)
    assert found is not None
    return list(found.importer.read(found.source))


def rows(path: Path, folder: Path) -> tuple[Row, ...]:
    return enginebench.import_file(path, results=folder).analysis.rows


def shown(row: Row) -> dict[str, float]:
    return {name: figure.value for name, figure in row.figures.items() if figure is not None}


def read(name: str) -> Any:
    return json.loads((FILES / name).read_text())


def changed(folder: Path, name: str, **changes: Any) -> Path:
    """A copy of a JSON file in which values are replaced; a key is a path with '__' for '.', and ... deletes."""
    data = read(name)
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = data
        for key in parents:
            at = at[int(key) if key.isdigit() else key]
        if value is ...:
            del at[last]
        else:
            at[last] = value
    file = folder / Path(name).name
    file.write_text(json.dumps(data))
    return file


# -- llama-bench ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "sql"])
def test_llama_bench_rows_are_loads_in_every_format(form: str) -> None:
    found = cells(FILES / "llama_bench" / f"rows.{form}")
    shapes = [(c.load.input_tokens, c.load.output_tokens, c.load.prefix_tokens) for c in found]
    assert shapes == [(32, 0, 0), (0, 8, 0), (16, 4, 0), (96, 0, 64), (64, 8, 64), (80, 4, 64)]
    pp, tg, pg = found[:3]
    assert set(pp.figures) == {"input_throughput"}
    assert set(tg.figures) == {"output_throughput"}
    assert pp.figures["input_throughput"] == pp.own["avg_ts"]
    assert tg.figures["output_throughput"] == tg.own["avg_ts"]
    assert pg.figures["output_throughput"] == pytest.approx(4 / pg.own["avg_ns"] * 1e9)
    assert pg.figures["input_throughput"] == pytest.approx(16 / pg.own["avg_ns"] * 1e9)
    its = tg.deployment
    assert (its.engine, its.model, its.precision, its.runtime) == ("llamacpp", "SmolLM2-135M-Instruct.Q4_1", "q4_1", "in-process")
    assert str(its.options["n_batch"]) == "2048"
    assert (tg.version, tg.facts["hardware"]) == ("b11434", "Intel(R) Xeon(R) Processor")
    assert tg.completed == (3 if form in ("json", "jsonl") else 1), "only JSON lists the repetitions"


def test_llama_bench_states_what_the_tool_states() -> None:
    for theirs, ours in zip(read("llama_bench/rows.json"), cells(FILES / "llama_bench" / "rows.json"), strict=True):
        assert ours.own["avg_ts"] == theirs["avg_ts"]
        assert np.mean(theirs["samples_ts"]) == pytest.approx(theirs["avg_ts"], rel=1e-4)


def test_a_sqlite_database_of_llama_bench_is_the_same(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "bench.sqlite") as connection:
        connection.executescript((FILES / "llama_bench" / "rows.sql").read_text())
    text, database = cells(FILES / "llama_bench" / "rows.sql"), cells(tmp_path / "bench.sqlite")
    assert [each.figures for each in text] == [each.figures for each in database]
    assert [each.load for each in text] == [each.load for each in database]


@pytest.mark.parametrize(
    ("model_type", "precision"),
    [
        ("llama 8B Q4_K - Medium", "q4_k_m"), ("qwen3moe 30B.A3B Q8_0", "q8_0"), ("llama 7B mostly F16", "f16"),
        ("gpt-oss 20B MXFP4 MoE", "mxfp4"),
        ("llama 1B all F32", "f32"), ("llama 1B BF16", "bf16"), ("llama 70B IQ2_XXS - 2.0625 bpw", "iq2_xxs"), ("llama 7B Q3_K - Small",
        "q3_k_s"),
        ("llama 7B Q6_K", "q6_k"), ("something else", "unknown"),
    ],
)  # fmt: skip
def test_llama_bench_precisions(tmp_path: Path, model_type: str, precision: str) -> None:
    assert cells(changed(tmp_path, "llama_bench/rows.json", **{"0__model_type": model_type}))[0].deployment.precision == precision


def test_sql_texts_with_quotes_are_read(tmp_path: Path) -> None:
    text = (FILES / "llama_bench" / "rows.sql").read_text()
    (tmp_path / "a.sql").write_text(text.replace("models/SmolLM2-135M", "models/bob's SmolLM2-135M"))
    assert cells(tmp_path / "a.sql")[0].deployment.model == "bob's SmolLM2-135M-Instruct.Q4_1"
    (tmp_path / "b.sql").write_text(text.replace("models/SmolLM2-135M", "models/bob''s SmolLM2-135M"))
    assert cells(tmp_path / "b.sql")[0].deployment.model == "bob's SmolLM2-135M-Instruct.Q4_1"


def test_llama_bench_hardware_is_counted(tmp_path: Path) -> None:
    two = changed(tmp_path, "llama_bench/rows.json", **{"0__gpu_info": "NVIDIA GeForce RTX 4090, NVIDIA GeForce RTX 4090"})
    assert known_hardware({cells(two)[0].facts["hardware"]}) == "2xrtx-4090-24gb"
    cpu = changed(tmp_path, "llama_bench/rows.json", **{"0__gpu_info": "NVIDIA GeForce RTX 4090", "0__n_gpu_layers": 0})
    assert cells(cpu)[0].facts["hardware"] == "Intel(R) Xeon(R) Processor"


# -- llama-benchy --------------------------------------------------------------------------------------------------------------


def test_llama_benchy_percentiles_are_those_of_its_values(tmp_path: Path) -> None:
    for theirs, ours in zip(read("llama_benchy/benchy.json")["benchmarks"], cells(FILES / "llama_benchy" / "benchy.json"), strict=True):
        ttft, speed = theirs["e2e_ttft"]["values"], theirs["tg_req_throughput"]["values"]
        assert ours.figures["ttft_p50"] == pytest.approx(np.percentile(ttft, 50) / 1e3)
        assert ours.figures["tpot_p90"] == pytest.approx(np.percentile([1 / v for v in speed], 90))
        for name in ("e2e_ttft", "ttfr", "est_ppt", "tg_throughput", "pp_throughput", "peak_throughput"):
            assert ours.own[f"{name}.mean"] == theirs[name]["mean"]
        assert (ours.load.concurrency, ours.completed) == (theirs["concurrency"], len(ttft))
        assert ours.load.input_tokens == theirs["context_size"] + theirs["prompt_size"]
    first, second, _ = rows(FILES / "llama_benchy" / "benchy.json", tmp_path)
    assert "ttft_p50" in shown(first)
    assert "ttft_p90" not in shown(first), "8 requests are too few"
    assert "ttft_p90" in shown(second), "32 requests are enough"
    assert "output_throughput" not in shown(second), "its throughput leaves out prefill"


def test_llama_benchy_csv_has_means_only() -> None:
    found = cells(FILES / "llama_benchy" / "benchy.csv")
    assert [(c.load.concurrency, c.load.input_tokens, c.load.output_tokens) for c in found] == [
        (1, 64, 32),
        (2, 64, 32),
        (1, 192, 32),
        (2, 192, 32),
    ]
    assert found[0].own["e2e_ttft.mean"] == pytest.approx(68.06843366454511)
    assert found[0].own["tg_throughput.mean"] == pytest.approx(99.69683441263662)
    assert not any(c.figures for c in found)


def test_figures_without_an_equal_are_named_and_in_the_json(tmp_path: Path) -> None:
    run = enginebench.import_file(FILES / "llama_benchy" / "benchy.csv", results=tmp_path)
    (note,) = (text for text in run.analysis.caveats if "no equal here" in text)
    assert "pp_throughput.mean" in note
    assert "and 12 more" in note
    (first, *_) = json.loads(run.report("json"))["rows"]
    assert first["cells"][0]["imported"]["own"]["e2e_ttft.mean"] == pytest.approx(68.06843366454511)
    assert first["verdict"] == "valid", "how many requests there were is unknown, and not one"


# -- evalscope -----------------------------------------------------------------------------------------------------------------


def test_evalscope_requests_are_samples_and_the_summary_is_its_own(tmp_path: Path) -> None:
    (row,) = rows(FILES / "evalscope_perf", tmp_path)
    summary = read("evalscope_perf/benchmark_summary.json")
    with sqlite3.connect(FILES / "evalscope_perf" / "benchmark_data.db") as connection:
        single = connection.execute("SELECT first_chunk_latency, latency, completion_tokens FROM result").fetchall()
    ttft = [first for first, _, _ in single]
    assert shown(row)["ttft_p50"] == pytest.approx(np.percentile(ttft, 50), rel=1e-6)
    assert np.mean(ttft) * 1e3 == pytest.approx(summary["Avg TTFT (ms)"], abs=0.01)
    assert shown(row)["tpot_p50"] == pytest.approx(np.percentile([(end - first) / (n - 1) for first, end, n in single], 50), rel=0.01)
    record = row.cells[0].record
    assert record.imported is not None
    assert record.imported.own["Avg TTFT (ms)"] == summary["Avg TTFT (ms)"]
    assert record.imported.own["TTFT (ms).p50"] == next(
        at["TTFT (ms)"] for at in read("evalscope_perf/benchmark_percentile.json") if at["Percentiles"] == "50%"
    )
    assert (row.deployment.model, row.load.api, row.load.concurrency, row.load.requests) == ("truth", "completions", 4, 40)


def test_evalscope_without_its_database_states_percentiles(tmp_path: Path) -> None:
    for name in ("benchmark_summary.json", "benchmark_percentile.json", "benchmark_args.json"):
        shutil.copy(FILES / "evalscope_perf" / name, tmp_path)
    (cell,) = cells(tmp_path / "benchmark_percentile.json")
    summary = read("evalscope_perf/benchmark_summary.json")
    at = {row["Percentiles"]: row for row in read("evalscope_perf/benchmark_percentile.json")}
    assert cell.figures["output_throughput"] == summary["Output Throughput (tok/s)"]
    assert cell.figures["request_throughput"] == summary["Req Throughput (req/s)"]
    for q in ("50", "90", "99"):
        assert cell.figures[f"ttft_p{q}"] == pytest.approx(at[f"{q}%"]["TTFT (ms)"] / 1e3)
        assert cell.figures[f"tpot_p{q}"] == pytest.approx(at[f"{q}%"]["TPOT (ms)"] / 1e3)
        assert cell.figures[f"itl_p{q}"] == pytest.approx(at[f"{q}%"]["ITL (ms)"] / 1e3)
        assert cell.figures[f"e2e_p{q}"] == at[f"{q}%"]["Latency (s)"]
    assert cell.deployment.model == "truth"
    (row,) = rows(tmp_path / "benchmark_summary.json", tmp_path / "results")
    assert "ttft_p99" not in shown(row), "40 requests are too few"


def test_evalscope_percentiles_without_their_number_of_requests_are_refused(tmp_path: Path) -> None:
    shutil.copy(FILES / "evalscope_perf" / "benchmark_percentile.json", tmp_path)
    with pytest.raises(UserError, match="does not say of how many requests"):
        cells(tmp_path / "benchmark_percentile.json")


def test_evalscope_old_names_mean_the_same(tmp_path: Path) -> None:
    old = {
        "Time taken for tests (s)": 4.19, "Number of concurrency": 4, "Total requests": 40, "Succeed requests": 39, "Failed requests": 1,
        "Output token throughput (tok/s)": 305.5, "Total token throughput (tok/s)": 785.1, "Request throughput (req/s)": 9.54,
        "Average latency (s)": 0.41, "Average time to first token (s)": 0.09, "Average time per output token (s)": 0.0102,
        "Average input tokens per request": 64.0, "Average output tokens per request": 32.0,
    }  # fmt: skip
    (tmp_path / "benchmark_summary.json").write_text(json.dumps(old))
    (tmp_path / "benchmark_percentile.json").write_text(
        json.dumps([{"Percentiles": "50%", "TTFT (s)": 0.088, "TPOT (s)": 0.01, "Latency (s)": 0.4}])
    )
    (cell,) = cells(tmp_path / "benchmark_summary.json")
    assert cell.figures["ttft_p50"] == 0.088
    assert cell.figures["output_throughput"] == 305.5
    assert cell.figures["success_rate"] == pytest.approx(39 / 40)


def test_evalscope_old_tables_call_gaps_tpot(tmp_path: Path) -> None:
    """Before 0.17 the table is one object of columns; with a column `Percentile` its TPOT is the gaps between events."""
    shutil.copy(FILES / "evalscope_perf" / "benchmark_summary.json", tmp_path)
    table = tmp_path / "benchmark_percentile.json"
    table.write_text(
        json.dumps({"Percentile": ["50%", "90%"], "TTFT (s)": [0.08, 0.1], "TPOT (s)": [0.01, 0.02], "Latency (s)": [0.4, 0.5]})
    )
    (cell,) = cells(tmp_path / "benchmark_summary.json")
    assert {name: cell.figures[name] for name in ("ttft_p50", "itl_p50", "itl_p90", "e2e_p90")} == {
        "ttft_p50": 0.08, "itl_p50": 0.01, "itl_p90": 0.02, "e2e_p90": 0.5,
    }  # fmt: skip
    assert "tpot_p50" not in cell.figures
    table.write_text(table.read_text().replace("Percentile", "Percentiles"))
    (cell,) = cells(tmp_path / "benchmark_summary.json")
    assert cell.figures["tpot_p50"] == 0.01


def test_evalscope_old_databases_list_the_times_of_chunks(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "benchmark_data.db") as connection:
        connection.execute(
            "CREATE TABLE result (request TEXT, start_time REAL, chunk_times TEXT, success INTEGER, latency REAL, "
            "first_chunk_latency REAL, prompt_tokens INTEGER, completion_tokens INTEGER)"
        )
        connection.execute("INSERT INTO result VALUES ('{\"model\": \"m\"}', 7.0, '[7.05, 7.06, 7.08]', 1, 0.08, 0.05, 10, 3)")
        connection.execute("INSERT INTO result (request, start_time, success) VALUES ('', 8.0, 0)")
    (cell,) = cells(tmp_path / "benchmark_data.db")
    assert cell.requests is not None
    samples = cell.requests.samples()
    assert (cell.deployment.model, cell.completed, samples.outcome) == ("m", 1, ("ok", "error"))
    assert [round(gap / 1e6) for gap in np.diff(samples.event_ns)] == [10, 20]


# -- genai-bench ---------------------------------------------------------------------------------------------------------------


def test_genai_bench_requests_are_samples_and_rates_are_stated(tmp_path: Path) -> None:
    data = read("genai_bench/D64_32_text-to-text_num_concurrency_4_time_5s.json")
    (row,) = rows(FILES / "genai_bench", tmp_path)
    stats, whole = data["aggregated_metrics"]["stats"], data["aggregated_metrics"]
    for ours, theirs in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2e_latency")):
        assert shown(row)[f"{ours}_p50"] == pytest.approx(stats[theirs]["p50"], rel=1e-6)
        assert shown(row)[f"{ours}_p90"] == pytest.approx(stats[theirs]["p90"], rel=1e-6)
    assert shown(row)["output_throughput"] == pytest.approx(whole["mean_output_throughput_tokens_per_s"])
    assert shown(row)["request_throughput"] == pytest.approx(whole["requests_per_second"])
    assert (row.deployment.engine, row.deployment.model) == ("vllm", "truth")
    assert (row.load.input_tokens, row.load.output_tokens, row.load.concurrency) == (64, 32, 4)
    imported = row.cells[0].record.imported
    assert imported is not None
    assert imported.version == "0.0.5"


def test_genai_bench_in_milliseconds_is_the_same(tmp_path: Path) -> None:
    name = "D64_32_text-to-text_num_concurrency_4_time_5s.json"
    data = read(f"genai_bench/{name}")
    for part in (*data["individual_request_metrics"], *data["aggregated_metrics"]["stats"].values()):
        for key in part:
            if part is not None and isinstance(part[key], float) and (key in ("ttft", "tpot", "e2e_latency", "output_latency")):
                part[key] *= 1e3
    for metric in ("ttft", "tpot", "e2e_latency", "output_latency"):
        stats = data["aggregated_metrics"]["stats"][metric]
        data["aggregated_metrics"]["stats"][metric] = {key: value * 1e3 for key, value in stats.items()}
    (tmp_path / name).write_text(json.dumps(data | {"_time_unit": "ms"}))
    (plain,), (scaled,) = cells(FILES / "genai_bench" / name), cells(tmp_path / name)
    assert scaled.figures == pytest.approx(dict(plain.figures))
    assert scaled.requests is not None
    assert plain.requests is not None
    assert np.allclose(scaled.requests.samples().event_ns, plain.requests.samples().event_ns, atol=2)


# -- MLPerf --------------------------------------------------------------------------------------------------------------------


def log_of(name: str) -> Json:
    lines = (FILES / "mlperf_loadgen" / name).read_text().splitlines()
    return {entry["key"]: entry["value"] for entry in (json.loads(line.split(" ", 1)[1]) for line in lines)}


def test_mlperf_server_counts_from_the_schedule_and_says_that_it_is_invalid(tmp_path: Path) -> None:
    log, (cell,) = log_of("server_tokens.txt"), cells(FILES / "mlperf_loadgen" / "server_tokens.txt")
    for q in ("50", "90", "99"):
        assert cell.figures[f"ttft_due_p{q}"] == pytest.approx(log[f"result_first_token_{q}.00_percentile_latency_ns"] / 1e9)
        assert cell.figures[f"tpot_p{q}"] == pytest.approx(log[f"result_time_per_output_token_{q}.00_percentile_ns"] / 1e9)
        assert cell.figures[f"e2e_due_p{q}"] == pytest.approx(log[f"result_{q}.00_percentile_latency_ns"] / 1e9)
    assert cell.figures["output_throughput"] == log["result_completed_tokens_per_second"]
    assert cell.figures["request_throughput"] == log["result_completed_samples_per_sec"]
    assert (cell.load.level_text, cell.completed, cell.version) == ("40 req/s", 400, "6.0.17")
    assert cell.rejected == "LoadGen calls this run INVALID (early stopping)"
    (row,) = rows(FILES / "mlperf_loadgen" / "server_tokens.txt", tmp_path)
    assert row.verdict == "invalid"
    assert any("INVALID (early stopping)" in str(reason) for reason in row.reasons)


def test_mlperf_scenarios_are_loads() -> None:
    (single,), (offline,) = cells(FILES / "mlperf_loadgen" / "single.txt"), cells(FILES / "mlperf_loadgen" / "offline_tokens.txt")
    log = log_of("single.txt")
    assert (single.load.level_text, single.rejected) == ("1 stream", "")
    assert single.figures["e2e_p90"] == pytest.approx(log["result_90.00_percentile_latency_ns"] / 1e9)
    assert single.figures["request_throughput"] == log["result_qps_with_loadgen_overhead"]
    assert offline.load.concurrency == offline.completed == 55, "all at once"
    assert offline.figures["output_throughput"] == log_of("offline_tokens.txt")["result_tokens_per_second"]
    (broken,) = cells(FILES / "mlperf_loadgen" / "server_invalid.txt")
    assert "INVALID (latency limits, early stopping; TTFT constrain not met" in broken.rejected


def test_a_batch_of_many_requests_is_not_called_too_few(tmp_path: Path) -> None:
    """Offline hands all samples over at once: one request a stream, but 55 of them."""
    (row,) = rows(FILES / "mlperf_loadgen" / "offline_tokens.txt", tmp_path)
    assert row.verdict == "valid"


def test_mlperf_accuracy_logs_hold_no_result(tmp_path: Path) -> None:
    text = (FILES / "mlperf_loadgen" / "single.txt").read_text()
    for name, kept in (("run", text), ("accuracy", "".join(line + "\n" for line in text.splitlines() if "result_" not in line))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlperf_log_detail.txt").write_text(
            kept.replace("PerformanceOnly", "AccuracyOnly") if name == "accuracy" else kept
        )
    (row,) = rows(tmp_path, tmp_path / "results")
    assert row.load.requests == 120, "the log of the accuracy run is passed over"
    with pytest.raises(UserError, match="it is the log of an accuracy run"):
        cells(tmp_path / "accuracy" / "mlperf_log_detail.txt")


def test_mlperf_endpoints_states_what_the_summary_states(tmp_path: Path) -> None:
    report, (cell,) = read("mlperf_endpoints/result_summary.json"), cells(FILES / "mlperf_endpoints" / "result_summary.json")
    for q in ("50.0", "90.0", "99.0"):
        for ours, theirs in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "latency")):
            assert cell.figures[f"{ours}_p{float(q):.0f}"] == pytest.approx(report[theirs]["percentiles"][q] / 1e9)
    assert (cell.figures["request_throughput"], cell.figures["output_throughput"]) == (report["qps"], report["tps"])
    assert (cell.load.level_text, cell.load.input_tokens, cell.load.output_tokens) == ("14.75 req/s", 512, 128)
    assert any("leaves out one request" in caveat for caveat in cell.caveats)
    (row,) = rows(changed(tmp_path, "mlperf_endpoints/result_summary.json", state="interrupted", complete=False), tmp_path / "results")
    assert row.verdict == "invalid"


# -- trtllm-bench --------------------------------------------------------------------------------------------------------------


def test_trtllm_bench_states_what_the_report_states() -> None:
    report, (cell,) = read("trtllm_bench/report.json"), cells(FILES / "trtllm_bench" / "report.json")
    for q in ("p50", "p90", "p99"):
        assert cell.figures[f"ttft_{q}"] == pytest.approx(report["streaming_metrics"]["ttft_percentiles"][q] / 1e3)
        assert cell.figures[f"tpot_{q}"] == pytest.approx(report["streaming_metrics"]["tpot_percentiles"][q] / 1e3)
        assert cell.figures[f"e2e_{q}"] == pytest.approx(report["performance"]["request_latency_percentiles_ms"][q] / 1e3)
    assert cell.figures["output_throughput"] == report["performance"]["system_output_throughput_tok_s"]
    assert cell.figures["request_throughput"] == report["performance"]["request_throughput_req_s"]
    assert cell.own["avg_ttft_ms"] == report["streaming_metrics"]["avg_ttft_ms"]
    its = cell.deployment
    assert (its.engine, its.precision, its.parallelism.tp, its.runtime, cell.version) == ("trtllm", "fp8", 2, "in-process", "1.2.1")
    assert known_hardware({cell.facts["hardware"]}) == "2xh100-sxm-80gb"


def test_trtllm_bench_requests_give_the_figures_of_the_report(tmp_path: Path) -> None:
    (cell,) = cells(FILES / "trtllm_bench" / "requests.json")
    assert cell.requests is not None
    samples, single = cell.requests.samples(), read("trtllm_bench/requests.json")
    assert list(samples.edge(last=False) - samples.sent_ns) == pytest.approx([each["time_to_first_token"] for each in single], abs=2)
    (row,) = rows(FILES / "trtllm_bench" / "requests.json", tmp_path)
    performance = read("trtllm_bench/report.json")["performance"]
    assert shown(row)["output_throughput"] == pytest.approx(performance["system_output_throughput_tok_s"], rel=1e-6)
    assert shown(row)["tpot_p50"] == pytest.approx(np.percentile([each["intertoken_latency"] for each in single], 50) / 1e9, rel=1e-6)


def test_trtllm_bench_without_streaming_has_no_ttft(tmp_path: Path) -> None:
    (cell,) = cells(changed(tmp_path, "trtllm_bench/report.json", streaming_metrics=..., machine=None))
    assert not {"ttft_p50", "tpot_p50"} & set(cell.figures)
    assert "e2e_p50" in cell.figures
    assert "hardware" not in cell.facts


# -- InferenceX ----------------------------------------------------------------------------------------------------------------


def test_inferencex_rows_state_throughput_of_all_gpus(tmp_path: Path) -> None:
    single, disaggregated, old = read("inferencex/agg_bmk.json")
    found = cells(FILES / "inferencex" / "agg_bmk.json")
    for theirs, ours in zip((single, disaggregated, old), found, strict=True):
        for metric, name in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2e", "e2el")):
            assert ours.figures[f"{metric}_p50"] == theirs[f"median_{name}"]
            assert ours.figures[f"{metric}_p99"] == theirs[f"p99_{name}"]
        assert ours.figures["user_throughput"] == theirs["median_intvty"]
        assert ours.own["tput_per_gpu"] == theirs["tput_per_gpu"]
    assert found[0].figures["output_throughput"] == 600.0 * 8
    assert found[1].figures["output_throughput"] == 900.0 * 8, "of the decode GPUs"
    assert found[1].figures["input_throughput"] == 7100.0 * 8, "of the prefill GPUs"
    assert [c.deployment.engine for c in found] == ["vllm", "trtllm", "sglang"]
    assert [c.deployment.parallelism.devices for c in found] == [8, 8, 8]
    assert found[1].own["joules_per_output_token"] == 0.77
    (oldest,) = cells(changed(tmp_path, "inferencex/agg_bmk.json", **{"0__framework": ..., "0__precision": ...}))[:1]
    assert (oldest.deployment.engine, oldest.deployment.precision) == ("unknown", "unknown")
    made = rows(FILES / "inferencex" / "agg_bmk.json", tmp_path / "results")
    assert ["ttft_p99" in shown(row) for row in made] == [False, True, False], "64 and 4 requests are certain, and 512"


# -- llm-d ---------------------------------------------------------------------------------------------------------------------


def test_llmd_reports_of_both_versions() -> None:
    (old,), (new,) = cells(FILES / "llmd_report" / "v0_1.yaml"), cells(FILES / "llmd_report" / "v0_2.yaml")
    assert (old.version, old.completed, old.load.level_text, old.wall_s) == ("0.1", 317, "1.34 req/s", 100.5)
    assert old.figures["ttft_p50"] == pytest.approx(0.801)
    assert old.figures["tpot_p50"] == pytest.approx(0.0837)
    assert old.figures["itl_p99"] == pytest.approx(83.6 * 1.6 / 1e3)
    assert (old.figures["output_throughput"], old.figures["request_throughput"]) == (100.9, 3.154)
    assert (old.deployment.engine, old.deployment.precision, old.deployment.parallelism.tp) == ("vllm", "fp8", 8)
    assert (new.version, new.completed, new.wall_s, new.load.input_tokens, new.load.output_tokens) == ("0.2", 500, 49.5, 2148, "data")
    assert new.figures["ttft_p50"] == 0.0362
    assert new.figures["itl_p50"] == 0.0081
    assert new.own["normalized_time_per_output_token.p50 (s/token)"] == 0.0085
    assert (new.deployment.parallelism.tp, new.deployment.parallelism.dp_replicas) == (4, 2)
    assert known_hardware({new.facts["hardware"]}) == "8xh100-sxm-80gb"


@pytest.mark.parametrize(
    ("tool", "itl", "tpot"),
    [
        ("vllm-benchmark", "itl", "tpot"),
        ("inferencemax", "itl", "tpot"),
        ("aiperf", "tpot", None),
        ("guidellm", "tpot", None),
        ("other", None, None),
    ],
)
def test_llmd_names_mean_what_the_tool_of_the_load_means(tmp_path: Path, tool: str, itl: str | None, tpot: str | None) -> None:
    path = "results__request_performance__aggregate__latency__time_per_output_token"
    changes = {"scenario__load__standardized__tool": tool, path: {"units": "s/token", "mean": 0.02, "p50": 0.02}}
    (cell,) = cells(changed(tmp_path, "llmd_report/v0_2_aiperf.json", **changes))
    expected = {**({f"{itl}_p50": 0.0081} if itl else {}), **({f"{tpot}_p50": 0.02} if tpot else {})}
    assert {name: value for name, value in cell.figures.items() if name in ("itl_p50", "tpot_p50")} == expected
    assert cell.own["time_per_output_token.p50 (s/token)"] == 0.02
    assert any(f"measured by {tool}" in caveat for caveat in cell.caveats)


# -- damage --------------------------------------------------------------------------------------------------------------------

ALL = sorted(path for path in FILES.rglob("*") if path.is_file())


@pytest.mark.parametrize("file", ALL, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_two_tools_claim_a_file(file: Path) -> None:
    seen = frozenset[str]().union(*(paths_in(file) if is_json(file) else imports._keys(file)))
    assert len({each.tool for each in all_importers() for form in each.forms if form.found_in(seen, file.name)}) <= 1


@pytest.mark.parametrize("file", ALL, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_truncated_and_altered_files_get_a_sentence(tmp_path: Path, file: Path) -> None:
    """Cut anywhere, or with a byte changed, a file is imported or refused with a sentence."""
    raw, rng = file.read_bytes(), np.random.default_rng(0)
    copy = tmp_path / file.name
    for _ in range(12):
        copy.write_bytes(raw[: rng.integers(len(raw))])
        attempt(copy)
        altered = bytearray(raw)
        altered[rng.integers(len(raw))] = rng.integers(256)
        copy.write_bytes(altered)
        attempt(copy)


def attempt(file: Path) -> None:
    try:
        found = recognise(file)
        for cell in found.importer.read(found.source) if found is not None else ():
            assert all(np.isfinite(list(cell.figures.values())))
            if cell.requests is not None:
                cell.requests.samples()
    except UserError as error:
        assert "\n" not in str(error).strip()


def variants() -> Iterator[tuple[str, str, object]]:
    """(file, path of a number, wrong value)."""
    wanted: Mapping[str, tuple[str, ...]] = {
        "llama_bench/rows.json": ("0__avg_ns", "0__n_prompt"),
        "llama_benchy/benchy.json": ("benchmarks__0__concurrency", "benchmarks__0__e2e_ttft__values"),
        "mlperf_endpoints/result_summary.json": ("n_samples_completed", "ttft__median"),
        "trtllm_bench/report.json": ("request_info__num_requests", "performance__total_latency_ms"),
        "inferencex/agg_bmk.json": ("0__conc", "0__median_ttft"),
        "llmd_report/v0_2_aiperf.json": ("results__request_performance__aggregate__requests__total",),
    }
    wrong: tuple[object, ...] = (float("nan"), "many", {}, True)
    yield from ((file, path, value) for file, paths in wanted.items() for path in paths for value in wrong)


@pytest.mark.parametrize(("file", "path", "value"), list(variants()))
def test_a_value_that_cannot_be_is_named(tmp_path: Path, file: str, path: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        cells(changed(tmp_path, file, **{path: value}))
    assert path.split("__")[-1] in str(caught.value)


def _tenfold(a: str, b: str) -> str:
    return f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"


HOSTILE = {
    "bomb.yaml": f"version: '0.2'\na: &a [{', '.join('x' * 9)}]\n" + "".join(_tenfold(a, b) for a, b in zip("abcdefgh", "bcdefghi",
    strict=True)),
    "self.yaml": "version: '0.2'\na: &a\n  b: *a\n",
    "tag.yaml": "version: '0.2'\na: !!python/object/apply:os.system ['true']\n",
    "deep.yaml": "version: " + "[" * 2000 + "\n",
    "cut.sql": "CREATE TABLE llama_bench (a TEXT);\nINSERT INTO llama_bench (a) VALUES ('1'",
    "spaces.sql": f"INSERT INTO llama_bench (a) VALUES ({' ' * 1_000_000}'1;\n",  # noqa: S608 -- parsed, not run
    "brackets.sql": f"INSERT INTO llama_bench (a) VALUES ({')' * 1_000_000}1;\n",  # noqa: S608
    "lines.yaml": "version: '0.2'\nx:\n" + "- 1\n" * 400_001,
    "few.sql": "INSERT INTO llama_bench (a, b) VALUES ('1');\n",
    "line.txt": ":::MLLOG {\"key\": \"loadgen_version\", \"value\": \"6\"}\n:::MLLOG not json\n",
    "text.db": "SQLite format 3\0 and nothing else",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_the_command_with_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(HOSTILE[name])
    done = CliRunner().invoke(bench, ["import", str(tmp_path / name), "-o", str(tmp_path / "results")])
    assert isinstance(done.exception, UserError), done.output  # exit code 2
    assert name in str(done.exception)
    assert "\n" not in str(done.exception).strip()
    assert not (tmp_path / "results").exists()


def test_a_database_without_the_tables_is_unknown(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE other (x INTEGER)")
        connection.execute("INSERT INTO other VALUES (1)")
    with pytest.raises(UserError, match="unknown format"):
        enginebench.import_file(tmp_path / "a.db", results=tmp_path / "results")


@pytest.mark.parametrize(
    ("text", "known"),
    [("8xh100", "8xh100"), ("1xNVIDIA GeForce RTX 4090", "1xrtx-4090-24gb"), ("4xquantum-9", None), ("1xcpu", None), ("0xh100", None)],
)
def test_hardware_of_a_file_is_what_the_catalogue_calls_it(text: str, known: str | None) -> None:
    assert known_hardware({text}) == known
    assert known_hardware({text, "1xa100"}) is None, "several"
