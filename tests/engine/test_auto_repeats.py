"""`repeats: auto` with the fake engine: a difference that is there is decided after 4 restarts, and the report says what that saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.metrics import hardware

SCENARIO = """
name: auto
deployments:
  - {engine: fake, model: any, precision: none, label: fast, options: {ttft_ms: 5, itl_ms: 2}}
  - {engine: fake, model: any, precision: none, label: slow, options: {ttft_ms: 5, itl_ms: 10}}
loads:
  - {concurrency: 2, input_tokens: 16, output_tokens: 8, requests: 8, warmup_requests: 0}
repeats: auto
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hardware, "_foreign", lambda *_: None)  # a busy machine would leave the question open
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return tmp_path


def test_a_difference_that_is_there_is_decided_after_four_restarts(folder: Path) -> None:
    done = CliRunner().invoke(bench, ["run", "s.yaml", "--json", "--no-html"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)["auto_repeats"]
    assert [(its["restarts"], its["decided"], its["outcome"]) for its in found["stops"]] == [(4, True, "leads")]
    assert found["spent_s"] < 0.4 * found["fixed_s"]
    shown = CliRunner().invoke(bench, ["report", "--table"]).stdout
    assert "1 of 1 load is decided, after 4 restarts; 12 restarts of all would have taken" in " ".join(shown.split())


def test_how_it_is_written(folder: Path) -> None:
    plan = CliRunner().invoke(bench, ["plan", "s.yaml"])
    assert "2 deployments x 1 load x 4 to 12 repeats" in plan.stdout
    fixed = CliRunner().invoke(bench, ["plan", "s.yaml", "--repeats", "2"])
    assert "x 2 repeats" in fixed.stdout
    (folder / "s.yaml").write_text(SCENARIO.replace("repeats: auto", "repeats: 2"))
    assert "x 4 to 12 repeats" in CliRunner().invoke(bench, ["plan", "s.yaml", "--repeats", "auto"]).stdout
    (folder / "s.yaml").write_text(SCENARIO.replace("repeats: auto", "repeats: {most: 24, budget_s: 60}"))
    assert "x 4 to 24 repeats" in CliRunner().invoke(bench, ["plan", "s.yaml"]).stdout


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("repeats: always", "s.yaml:8: repeats: is a whole number or `auto`, not 'always'"),
        ("repeats: {most: 3}", "s.yaml:8: repeats.most: must be at least 4, got 3"),
        ("repeats: {mots: 8}", "s.yaml:8: repeats.mots: is not a known key"),
        ("repeats: 0", "s.yaml:8: repeats: must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_meant_is_said_at_its_line(folder: Path, written: str, says: str) -> None:
    (folder / "s.yaml").write_text(SCENARIO.replace("repeats: auto", written))
    done = CliRunner().invoke(bench, ["plan", "s.yaml"])
    assert isinstance(done.exception, Exception)
    assert says in str(done.exception)
