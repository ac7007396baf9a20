"""Every importer on files that its tool wrote: imported figures are the tool's own, and damaged or hostile files are one sentence.

The files in imported/ were made by `benchmarks/dialects.py` against truthserver, without texts and host names; that of GenAI-Perf by its
own exporter from made-up requests, because its load generator could not be installed.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from enginebench.errors import UserError
from enginebench.records.dialect import CONCEPTS, Caveat, Dialect, Term, not_reported
from enginebench.records.importer import Form, importer
from enginebench.records.json_stream import paths_in
from enginebench.runner import imports
from enginebench.runner.import_facts import read_facts
from enginebench.runner.imports import all_importers, import_run

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import dialects

FILES = Path(__file__).with_name("imported")
TOOLS = {
    "vllm": ("detailed.json", dialects.serving_figures("detailed.json")),
    "sglang": ("rust_client.jsonl", dialects.serving_figures("rust_client.jsonl")),
    "aiperf": ("profile_export_aiperf.json", dialects.aiperf_figures),
    "guidellm": ("v0.8.json", lambda folder: dialects.guidellm_figures(folder, "v0.8.json")),
    "inference-perf": ("stage_0_lifecycle_metrics.json", dialects.inference_perf_figures),
}
MADE_HERE = ("aiperf", "genai-perf", "guidellm", "inference-perf", "sglang", "vllm")
ALL = sorted(path.relative_to(FILES).as_posix() for tool in MADE_HERE for path in (FILES / tool).rglob("*.json*"))
HOSTILE: tuple[Any, ...] = (None, "x", -1, 1e300, [], {}, [{}], True)
STEPS = ("guidellm",)
"""Tools whose percentiles are a value of the sample, next to which ours interpolate."""


@pytest.mark.parametrize("name", ALL)
def test_a_file_is_recognised_by_one_importer(name: str) -> None:
    *_, seen = paths_in(FILES / name)
    by = {each.tool for each in all_importers() for form in each.forms if form.found_in(seen, Path(name).name)}
    assert len(by) == 1, by


@pytest.mark.parametrize("tool", TOOLS)
def test_imported_figures_are_those_of_the_tool(tool: str, tmp_path: Path) -> None:
    name, own = TOOLS[tool]
    expected = own(FILES / tool)
    run = import_run([FILES / tool / name], tmp_path)
    (cell,) = run.cells()
    assert cell.imported is not None
    dialect = next(each for each in all_importers() if each.tool == cell.imported.tool).dialect
    unlike = dialect.differs(samples=False)
    found = dialects.imported_figures(run)
    for figure, value in expected.items():
        rate = figure.endswith("throughput")  # theirs over the time of the tool, ours from the first request to the last reply
        tolerance = 0.05 if rate else 0.02 if figure.rpartition("_p")[0] in unlike or tool in STEPS else 1e-4
        assert found.get(figure) == pytest.approx(value, rel=tolerance), figure


@pytest.mark.parametrize("name", ALL)
def test_every_figure_is_in_the_dialect_table(name: str, tmp_path: Path) -> None:
    (cell, *_) = import_run([FILES / name], tmp_path).cells()
    assert cell.imported is not None
    dialect = next(each for each in all_importers() if each.tool == cell.imported.tool).dialect
    assert not dialect.undeclared()
    declared = {term.theirs for term in dialect.terms}
    assert {own.split(".")[0] for own in cell.imported.own} <= declared
    metrics = {term.becomes for term in dialect.terms if term.becomes} | {"success_rate", "input_throughput"}
    assert cell.stated is not None
    assert {figure.rpartition("_p")[0] if figure.rpartition("_p")[2].isdigit() else figure for figure in cell.stated.figures} <= metrics


def test_an_importer_without_an_entry_in_its_table_fails() -> None:
    declare = importer("mytool", forms=(Form("a", ("b",)),), dialect=Dialect(not_reported(*CONCEPTS[1:])))
    with pytest.raises(ValueError, match="the dialect of mytool says nothing of TTFT"):
        declare(lambda _: ())
    with pytest.raises(KeyError, match="has no entry for 'ttft'"):
        Dialect(not_reported(*CONCEPTS)).figures("ttft", {"median": 1.0})


def test_what_has_no_equal_is_kept_under_its_own_name() -> None:
    dialect = Dialect((Term("TPOT", "tpot", "E2E / n"), Term("TTFT", "ttft", "...", "ttft", 1e-3)))
    assert dialect.figures("tpot", {"p50": 3.0}) == ({}, {"tpot.p50": 3.0})
    assert dialect.figures("ttft", {"p50": 3.0, "mean": 4.0}) == ({"ttft_p50": 0.003}, {"ttft.mean": 4.0})


def test_known_faults_apply_from_their_load_and_to_their_versions() -> None:
    fault = Caveat("late", from_streams=256, before="0.9.2")
    assert fault.applies(256, "0.9.1")
    assert fault.applies(None, None)
    assert not fault.applies(255, "0.9.1")
    assert not fault.applies(256, "0.9.2")
    assert not fault.applies(256, "0.10.0rc1")


def test_a_folder_is_read_once_and_single_requests_belong_to_their_summary(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    for streams in (4, 8):
        shutil.copytree(FILES / "aiperf", folder / f"concurrency{streams}")
        file = folder / f"concurrency{streams}" / "profile_export_aiperf.json"
        file.write_text(file.read_text().replace('"concurrency": 4', f'"concurrency": {streams}'))
    (folder / "notes.json").write_text("not json")
    cells = list(import_run([folder], tmp_path / "runs").cells())
    assert [cell.load.concurrency for cell in cells] == [4, 8]
    assert all(cell.samples_sha256 for cell in cells)
    (stage,) = import_run([FILES / "inference-perf"], tmp_path / "runs").cells()
    assert stage.samples_sha256
    assert stage.imported is not None
    assert stage.imported.file == "stage_0_lifecycle_metrics.json"


def test_a_sweep_of_vllm_is_its_runs_without_warm_up_and_summaries(tmp_path: Path) -> None:
    result = json.loads((FILES / "vllm" / "result.json").read_text())
    for streams in (4, 8):
        folder = tmp_path / "sweep" / f"BENCH--max_concurrency={streams}"
        folder.mkdir(parents=True)
        runs = [result | {"max_concurrency": streams, "run_number": number} for number in range(2)]
        for number, run in enumerate(runs):
            (folder / f"run={number}.json").write_text(json.dumps(run, indent=4))
        (folder / "summary.json").write_text(json.dumps(runs, indent=4))
        (folder / "warmup.json").write_text(json.dumps(runs[0]))
    row = {name: value for name, value in result.items() if not isinstance(value, list)}
    (tmp_path / "sweep" / "summary.csv").write_text(f"{','.join(row)}\n{','.join(str(value) for value in row.values())}\n")
    cells = list(import_run([tmp_path / "sweep"], tmp_path / "runs").cells())
    assert sorted((cell.load.concurrency, cell.repeat) for cell in cells) == [(4, 0), (4, 1), (8, 0), (8, 1)]
    (alone, _) = import_run([folder / "summary.json"], tmp_path / "runs").cells()
    assert alone.load.concurrency == 8


def test_results_of_another_tool_are_no_repeat(tmp_path: Path) -> None:
    cells = list(import_run([FILES / "guidellm"], tmp_path).cells())
    assert [cell.repeat for cell in cells] == [0, 0]
    assert cells[1].deployment.label == "openai by guidellm 0.8.1"


def test_facts_are_stored_as_stated_by_the_importer(tmp_path: Path) -> None:
    facts = read_facts(["engine=vllm", "hardware=4xh100", "precision=fp8", "tp=4", "engine_version=0.11"])
    run = import_run([FILES / "vllm" / "result.json"], tmp_path, facts)
    (cell,) = run.cells()
    assert (cell.deployment.engine, cell.deployment.precision, cell.deployment.parallelism.tp) == ("vllm", "fp8", 4)
    assert run.record.scenario["hardware"] == "4xh100"
    assert cell.imported is not None
    assert cell.imported.told == facts
    assert cell.imported.missing == ("flags",)
    for bad, message in (
        ("engine", "is no fact"),
        ("colour=red", "unknown fact 'colour'"),
        ("tp=x", "tp: "),
        ("hardware=9xnothing", "nothing"),
    ):
        with pytest.raises(UserError, match=message):
            read_facts([bad])


# -- damage and malice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_is_cut_off_is_one_sentence(name: str, tmp_path: Path) -> None:
    content = (FILES / name).read_bytes()
    file = tmp_path / name.rpartition("/")[2]
    for share in (0.02, 0.3, 0.7, 0.99):
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError) as caught:
            import_run([file], tmp_path / "runs")
        assert "\n" not in caught.value.message
    assert not (tmp_path / "runs").exists()


def changed(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value of a document, but of lists only the first items."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value[:2])) if isinstance(value, list) else []
    for key, item in items:
        yield value, key
        if depth < 7:
            yield from changed(item, depth + 1)


@pytest.mark.parametrize("name", ALL)
def test_a_hostile_value_is_an_error_or_is_read_but_never_a_crash(name: str, tmp_path: Path) -> None:
    file = tmp_path / name.rpartition("/")[2]
    text = (FILES / name).read_text()
    first = json.loads(text.splitlines()[0]) if name.endswith(".jsonl") else json.loads(text)
    places = list(changed(first))
    for i in random.Random(0).sample(range(len(places)), min(len(places), 25)):
        for bad in HOSTILE:
            document = copy.deepcopy(first)
            container, key = list(changed(document))[i]
            container[key] = bad
            file.write_text(json.dumps(document))
            with suppress(UserError):
                read(file)


def read(file: Path) -> list[object]:
    """The cells of a file with their samples."""
    out: list[object] = []
    for one in imports._found(file):
        cells = [(one, cell) for cell in imports.cells_of(one)]
        out += [imports._records([each], {}) for each in cells]
        out += [cell.requests.samples(open_loop=False) for _, cell in cells if cell.requests is not None]
    return out


def test_a_result_of_which_a_script_kept_only_the_latencies_is_read(tmp_path: Path) -> None:
    """As github.com/zhangxinyuehfad/vllm-benchmarks stores results of vLLM 0.7: Llama 3 8B at 4 requests/s, no counts and no duration."""
    kept = {
        "date": "20250217-104315", "backend": "vllm", "model_id": "Meta-Llama-3-8B-Instruct", "num_prompts": 200, "request_rate": 4.0,
        "burstiness": 1.0, "max_concurrency": None, "mean_ttft_ms": 189.12, "median_ttft_ms": 181.01, "p99_ttft_ms": 336.85,
        "median_tpot_ms": 87.87, "p99_tpot_ms": 139.68, "median_itl_ms": 69.18, "p99_itl_ms": 263.0,
    }  # fmt: skip
    file = tmp_path / "serving_qps_4.json"
    file.write_text(json.dumps(kept))
    (cell,) = import_run([file], tmp_path / "results").cells()
    assert cell.stated is not None
    assert cell.imported is not None
    assert cell.stated.figures["ttft_p50"] == pytest.approx(0.18101)
    assert not {"ttft_p99", "output_throughput", "success_rate"} & set(cell.stated.figures)  # 200 requests support no p99
    assert cell.wall_s is None
    assert [said for said in cell.imported.caveats if "how many requests succeeded" in said]
    assert not [said for said in cell.imported.caveats if "at 256 streams" in said]  # 200 requests are never 256 in flight
