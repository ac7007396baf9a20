"""Importing other tools' files: what `vllm bench serve --save-result` writes, and errors that say what is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import enginebench
import pytest
from click.testing import CliRunner
from enginebench.analysis.rows import Row
from enginebench.cli import bench
from enginebench.domain import ClosedLoop, Deployment, Load, OpenLoop
from enginebench.errors import UserError
from enginebench.metrics.registry import find
from enginebench.records import importer
from enginebench.records.dialect import CONCEPTS, Dialect, not_reported
from enginebench.runner import imports
from enginebench.runner.imports import all_importers

SAVED = Path(__file__).with_name("vllm_bench_serve.jsonl")
FIRST, SECOND = map(json.loads, SAVED.read_text().splitlines())


def imported(folder: Path, *results: dict[str, Any]) -> tuple[Row, ...]:
    """The rows of an imported file with these results."""
    file = folder / "serve.json"
    file.write_text("\n".join(map(json.dumps, results)))
    return enginebench.import_file(file, results=folder / "results").analysis.rows


def load_of(folder: Path, **changes: Any) -> Load:
    (row,) = imported(folder, FIRST | changes)
    return row.load


def value(row: Row, figure: str) -> float | None:
    found = row.figures.get(figure)
    return None if found is None else found.value


def test_figures_have_the_units_of_the_registry(tmp_path: Path) -> None:
    (row, _) = imported(tmp_path, FIRST, SECOND)
    stated = {"output_throughput": 400, "request_throughput": 6.25, "input_throughput": 800, "success_rate": 1}
    times = {"ttft_p50": 0.05, "ttft_p99": 0.0965, "tpot_p50": 0.04, "tpot_p99": 0.044, "itl_p50": 0.038, "itl_p99": 0.061}
    assert {name: value(row, name) for name in row.figures} == pytest.approx(stated | times)
    assert all(find(name) for name in row.figures)
    assert (row.deployment.engine, row.deployment.model, row.deployment.runtime) == ("vllm", "allenai/OLMoE-1B-7B-0924", "attach")
    assert row.deployment.label is None
    assert row.cells[0].record.wall_s == 64


def test_percentiles_without_enough_requests_are_left_out(tmp_path: Path) -> None:
    (row,) = imported(tmp_path, SECOND)
    assert "ttft_p50" in row.figures
    assert "ttft_p99" not in row.figures, "98 requests are too few"
    assert value(row, "itl_p99") == pytest.approx(0.018), "there are thousands of gaps"
    assert value(row, "success_rate") == pytest.approx(0.98)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ClosedLoop(concurrency=16)),
        ({"max_concurrency": None}, ClosedLoop(concurrency=400)),
        ({"request_rate": 4.0}, OpenLoop(rate=4.0, concurrency=16)),
        ({"request_rate": 4, "burstiness": float("inf"), "max_concurrency": None}, OpenLoop(rate=4.0, arrivals="constant")),
        ({"request_rate": 4, "burstiness": 0.5, "max_concurrency": None}, OpenLoop(rate=4.0, arrivals="gamma", burstiness=0.5)),
        ({"backend": "openai-chat"}, ClosedLoop(concurrency=16, api="chat")),
        ({"total_input_tokens": 51201}, ClosedLoop(concurrency=16, input_tokens="data")),
        ({"input_lens": [128] * 400, "output_lens": [64] * 400}, ClosedLoop(concurrency=16)),
        ({"input_lens": [100, 156] * 200}, ClosedLoop(concurrency=16, input_tokens="data")),
    ],
)
def test_the_load_is_the_one_that_was_sent(tmp_path: Path, changes: dict[str, Any], expected: Load) -> None:
    load = load_of(tmp_path, **changes)
    names = ("concurrency", "rate", "arrivals", "burstiness", "api", "input_tokens", "output_tokens")
    assert type(load) is type(expected)
    assert {name: load.value(name) for name in names} == {name: expected.value(name) for name in names}
    assert (load.requests, load.prompts, load.prefix_cache) == (400, "unknown", "allowed")


def test_the_same_result_twice_is_a_repeat(tmp_path: Path) -> None:
    (row,) = imported(tmp_path, FIRST, FIRST | {"output_throughput": 420.0})
    assert [cell.record.repeat for cell in row.cells] == [0, 1]
    assert value(row, "output_throughput") == 410


def test_without_streaming_there_are_no_latencies_and_without_success_the_cell_failed(tmp_path: Path) -> None:
    (row,) = imported(tmp_path, FIRST | dict.fromkeys(("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms"), 0.0))
    assert not {"ttft_p50", "tpot_p50"} & set(row.figures)
    (row,) = imported(tmp_path, FIRST | {"completed": 0, "failed": 400})
    assert (row.status, row.reasons) == ("failed", ("no request succeeded",))


def test_an_imported_run_is_an_ordinary_one(tmp_path: Path) -> None:
    run = enginebench.import_file(SAVED, results=tmp_path)
    assert run.name == "vllm_bench_serve"
    again = enginebench.open_run(run.path)
    assert [found.path for found in enginebench.runs(tmp_path)] == [run.path]
    assert again.rows["output_throughput"].tolist() == pytest.approx([400, 6272 / 41])
    assert any("have no raw samples" in said for said in again.analysis.caveats)
    assert "OLMoE" in again.report("html")
    assert "sha256" in (run.path / "scenario.yaml").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "vllm bench serve (docs"),
        ("some text\n", "serve.json: has no records"),
        ("", "has no records"),
        ('{"model_id": "m"', "is damaged: invalid JSON"),
        (json.dumps(FIRST | {"backend": None, "endpoint_type": None}), "it has no 'endpoint_type'"),
        (json.dumps(FIRST | {"completed": "many"}), "serve.json:1: completed: must be a number, not 'many'"),
        (json.dumps(FIRST | {"completed": 401, "failed": None}), "401 of 400 requests completed"),
        (json.dumps(FIRST | {"median_ttft_ms": float("nan")}), "median_ttft_ms: must be a number"),
        (json.dumps(FIRST | {"ramp_up_strategy": "linear"}), "ramp_up_strategy: "),
        (f"{json.dumps(FIRST)}\n{json.dumps({**SECOND, 'model_id': 7})}", "serve.json:2: model_id: must be a text, not 7"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "serve.json").write_text(content)
    with pytest.raises(UserError) as caught:
        enginebench.import_file(tmp_path / "serve.json", results=tmp_path / "results")
    assert message in str(caught.value)
    assert not (tmp_path / "results").exists(), "no run of a file that cannot be read"


def test_the_command_shows_the_run_and_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(bench, ["import", str(SAVED), "-o", "runs"])
    assert done.exit_code == 0, done.output
    assert "400" in done.stdout
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"saved 2 cells -> runs/{folder.name}" in done.stderr


def test_so_many_requests_that_their_figures_take_much_memory_are_only_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["enginebench.cli.import_file"], "_MOST_SHOWN", 39)
    file = Path(__file__).parents[1] / "records" / "imported" / "vllm" / "detailed.json"
    done = CliRunner().invoke(bench, ["import", str(file), "-o", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert not done.stdout
    assert "40 requests: too many to show" in done.stderr
    assert "saved 1 cells" in done.stderr


def test_an_unknown_figure_is_a_bug_of_the_importer() -> None:
    cell = importer.ImportedCell(Deployment("e", "m", "p", "m"), ClosedLoop(), {"speed": 1.0}, completed=1)
    with pytest.raises(ValueError, match="'speed', which is not a figure"):
        dict(imports._supported(cell, importer.Source(Path("a.json"), "a")))


def test_importers_are_declared_completely() -> None:
    assert all(each.tool and each.forms and each.read.__doc__ for each in all_importers())
    assert len({each.tool for each in all_importers()}) == len(all_importers())


def test_csv_and_lists_are_records_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,\n2,b\n")
    first, second = importer.Source(tmp_path / "a.csv", "").records()
    assert (first.line, first.whole("x"), first.has("y"), second.text("y")) == (2, 1, False, "b")
    (tmp_path / "a.json").write_text('[{"x": 1}, {"x": 2.5}]\n')
    records = list(importer.Source(tmp_path / "a.json", "").records())
    assert [record.number("x") for record in records] == [1, 2.5]
    with pytest.raises(UserError, match=r"a\.json:1: x: must be a whole number, not 2\.5"):
        records[1].whole("x")


def test_a_report_says_that_the_file_does_not_state_a_figure_and_does_not_blame_the_server(tmp_path: Path) -> None:
    """Figures that are there are not called nothing because the one that ranks is missing."""

    @importer.importer("rates", forms=(importer.Form("rates", ("rate",)),), dialect=Dialect(not_reported(*CONCEPTS)))
    def rates(source: importer.Source) -> Iterator[importer.ImportedCell]:
        yield importer.ImportedCell(Deployment("openai", "m", "f16", "m", runtime="attach"), ClosedLoop(), {"request_throughput": 2.5}, 10)

    (tmp_path / "rates.json").write_text('{"rate": 2.5}')
    with mock.patch.object(imports, "all_importers", return_value=(rates,)):
        text = enginebench.import_file(tmp_path / "rates.json", results=tmp_path / "results").report()
    shown = " ".join(text.split())
    assert "Nothing can be ranked: no row has an output throughput." in shown
    assert "output: not stated by rates, rates.json" in shown
    assert "TTFT p50: not stated by rates, rates.json;" in shown
