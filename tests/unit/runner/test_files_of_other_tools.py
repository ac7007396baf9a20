"""`bench compare`, `report`, `audit` and `rerun` on files of other tools, and the checks that look for the traces of their faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import enginebench
import pytest
import yaml
from click.testing import CliRunner
from enginebench.analysis.likeness import unlike_definitions
from enginebench.cli import bench
from enginebench.errors import UserError
from enginebench.runner import on_the_fly

FILES = Path(__file__).parents[1] / "records" / "imported"
VLLM, SGLANG = FILES / "vllm" / "detailed.json", FILES / "sglang" / "rust_client.jsonl"
RESULT = json.loads((FILES / "vllm" / "result.json").read_text())
ALIKE = ("model=m", "hardware=4xh100", "precision=fp8")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))


def result(folder: Path, **changes: Any) -> Path:
    """A file of `vllm bench serve` without single requests."""
    file = folder / f"serve{len(list(folder.glob('serve*')))}.json"
    file.write_text(json.dumps(RESULT | changes))
    return file


def reasons(file: Path) -> set[str]:
    (row,) = enginebench.open_run(file).analysis.rows
    return {reason.check.id for cell in row.cells for reason in cell.reasons}


# -- on the fly ----------------------------------------------------------------------------------------------------------------


def test_a_file_is_imported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = enginebench.open_run(VLLM)
    monkeypatch.setattr(on_the_fly, "import_run", lambda *_: pytest.fail("imported twice"))
    assert enginebench.open_run(VLLM).path == first.path
    with pytest.raises(pytest.fail.Exception):
        enginebench.open_run(VLLM, facts=["engine=vllm"])


def test_a_folder_of_files_is_a_run_and_another_folder_is_not(tmp_path: Path) -> None:
    assert len(enginebench.open_run(FILES / "inference-perf").analysis.rows) == 1
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "is not a run"), (tmp_path / "none", "is not a run")):
        with pytest.raises(UserError, match=message):
            enginebench.open_run(path)
    (tmp_path / "cut.json").write_text(VLLM.read_text()[:9000])
    with pytest.raises(UserError, match="ends too early"):
        enginebench.open_run(tmp_path / "cut.json")
    assert len(list((tmp_path / "home" / "imported").glob("*"))) == 1, "nothing is kept of a damaged file"


# -- comparison ----------------------------------------------------------------------------------------------------------------


def test_engines_are_compared_where_everything_else_is_alike() -> None:
    found = enginebench.compare(VLLM, SGLANG, facts=ALIKE)
    (pair,) = found.pairs.pairs
    assert {pair.base.deployment.engine, pair.candidate.deployment.engine} == {"openai", "vllm"}
    assert {"ttft_p50", "tpot_p50", "output_throughput"} <= set(pair.figures)
    assert not found.warning


@pytest.mark.parametrize(
    ("changes", "facts", "reason", "remedy"),
    [
        ({"model_id": "other"}, (), "the model differs: truth in ", "measure both with one model"),
        ({"max_concurrency": 8}, (), "the load differs: 4 streams in ", "at one load"),
        ({"total_output_tokens": 1280, "output_throughput": 1000.0}, (), "the length of the replies differs: ", "with the same lengths"),
    ],
)
def test_what_is_unlike_is_refused_with_what_would_make_it_possible(
    tmp_path: Path, changes: dict[str, Any], facts: tuple[str, ...], reason: str, remedy: str
) -> None:
    base, candidate = result(tmp_path), result(tmp_path, **changes)
    with pytest.raises(UserError, match=reason) as caught:
        enginebench.compare(base, candidate, facts=facts)
    assert caught.value.advice is not None
    assert remedy in caught.value.advice
    found = enginebench.compare(base, candidate, facts=facts, anyway=True)
    assert reason in found.warning
    assert found.to_summary().startswith("compared although it should not be: ")
    assert found.to_markdown().startswith("**compared although")


def test_what_one_file_does_not_state_is_asked_for(tmp_path: Path) -> None:
    base = enginebench.open_run(result(tmp_path), facts=["hardware=4xh100"])
    with pytest.raises(UserError, match=r"the hardware of serve1\.json .* is not stated") as caught:
        enginebench.compare(base, result(tmp_path))
    assert "--set hardware=4xh100" in (caught.value.advice or "")


def test_a_client_at_its_limit_is_no_basis_for_a_comparison(tmp_path: Path) -> None:
    one, other = (result(tmp_path, max_concurrency=1024, num_prompts=4096, completed=4096, median_ttft_ms=ttft) for ttft in (50.0, 60.0))
    with pytest.raises(UserError, match=r"the client of serve0\.json .* is its limit: .*801 of 1,024 streams"):
        enginebench.compare(one, other)
    assert "client_of_tool" in reasons(one)


def test_metrics_that_are_defined_in_another_way_are_withheld() -> None:
    stated = enginebench.open_run(FILES / "genai-perf" / "profile_export_genai_perf.json").analysis.rows[0]
    samples = enginebench.open_run(FILES / "guidellm" / "v0.8.json").analysis.rows[0]
    assert not unlike_definitions(samples, samples)
    assert not unlike_definitions(samples, stated), "single requests have our definitions"


def test_the_command_says_it_in_two_lines_and_exits_with_2(tmp_path: Path) -> None:
    base, candidate = result(tmp_path), result(tmp_path, max_concurrency=8)
    with pytest.raises(UserError):  # the command line prints it: see test_cli
        CliRunner().invoke(bench, ["compare", str(base), str(candidate)], catch_exceptions=False)
    done = CliRunner().invoke(bench, ["compare", str(base), str(candidate), "--anyway", "--limit", "off"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith("compared although it should not be: the load differs")


# -- audit and rerun -----------------------------------------------------------------------------------------------------------


def test_a_file_is_held_against_the_bound() -> None:
    facts = ["model=gpt-oss-20b", "precision=mxfp4", "hardware=1xh100", "engine=vllm"]
    (finding,) = enginebench.audit_claims(VLLM, facts=facts).findings
    assert finding.ceiling is not None
    assert 0 < (finding.share or 0) < 1


def test_a_scenario_measures_the_same_again(tmp_path: Path) -> None:
    facts = ["model=olmoe-1b", "precision=bf16", "hardware=1xh100", "engine=vllm", "tp=1", "flags=--enforce-eager"]
    found = enginebench.rerun(VLLM, only="doubtful", facts=facts)
    scenario = yaml.safe_load(found.scenario)
    assert scenario["deployments"] == [{"engine": "vllm", "model": "olmoe-1b", "precision": "bf16"}]
    assert scenario["loads"] == [{"concurrency": 4, "input_tokens": 64, "output_tokens": 16, "requests": 40}]
    assert scenario["hardware"] == "1xh100"
    assert "# flags, as stated: --enforce-eager" in found.scenario
    with pytest.raises(UserError, match="the engine and the precision"):
        enginebench.rerun(VLLM)
    with pytest.raises(UserError, match=r"no row of .* is doubtful"):
        enginebench.rerun(FILES / "inference-perf", only="doubtful", facts=facts)


# -- traces of faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"median_itl_ms": 0.001, "median_tpot_ms": 5.0}, "stated_bursts"),
        ({"request_rate": 40.0}, "stated_rate"),
        ({"total_output_tokens": 40 * 16, "output_throughput": 1000.0}, "stated_lengths"),
        ({"num_prompts": 4, "completed": 4, "total_input_tokens": 256, "total_output_tokens": 64}, "stated_few"),
    ],
)
def test_stated_figures_show_traces_of_faults(tmp_path: Path, changes: dict[str, Any], check: str) -> None:
    assert check in reasons(result(tmp_path, **changes))


def test_cached_prompts_are_seen_in_single_requests(tmp_path: Path) -> None:
    data = json.loads(SGLANG.read_text())
    file = tmp_path / "cached.jsonl"
    file.write_text(json.dumps(data | {"cached_tokens": [0] * len(data["ttfts"])}))
    assert "cached_prompts" not in reasons(file)
    file.write_text(json.dumps(data | {"cached_tokens": [48] * len(data["ttfts"])}))
    assert "cached_prompts" in reasons(file)
