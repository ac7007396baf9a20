"""`bench tune` as a user runs it, on the fake engine: what is listed, what is refused, and a tuning that is interrupted and goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.errors import UserError

from .bench import Bench

SCENARIO = """
name: demo
deployments:
  - {engine: fake, model: any, precision: none, options: {close: false}}
loads:
  - {concurrency: 4, input_tokens: 16, output_tokens: 32, requests: 64, warmup_requests: 0}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return tmp_path


def test_what_would_be_tried_is_listed(folder: Path) -> None:
    shown = CliRunner().invoke(bench, ["tune", "s.yaml", "--list"])
    assert shown.exit_code == 0, shown.stderr
    assert "fake: 9 combinations, of which 0 cannot run or do not fit" in shown.stdout
    assert "  itl_ms: 2.0, 10.0 (default: 5.0)" in shown.stdout
    data = json.loads(CliRunner().invoke(bench, ["tune", "s.yaml", "--list", "--json"]).stdout)
    assert [option["name"] for option in data[0]["options"]] == ["itl_ms", "tokens_per_event"]
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--goal", "ttfd"], "--goal ttfd: unknown figure"),
        (["--goal", "goodput"], "needs an `slo`"),
        (["--only", "engine=vllm"], "no cell has that"),
    ],
)
def test_what_cannot_be_meant_is_said(folder: Path, arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(bench, ["tune", "s.yaml", *arguments])
    assert isinstance(done.exception, UserError)
    assert says in str(done.exception)


@pytest.mark.long
def test_a_tuning_is_interrupted_and_goes_on_to_its_result(tmp_path: Path) -> None:
    its = Bench(tmp_path)
    (tmp_path / "s.yaml").write_text(SCENARIO)
    process = its.start("tune", "s.yaml", "--budget", "40s")
    limit = time.monotonic() + 60
    while len(list(tmp_path.glob("results/*/cells/*.json"))) < 3 and time.monotonic() < limit:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    stored = set(tmp_path.glob("results/*/cells/*.json"))
    assert len(stored) >= 3
    done = its("tune", "s.yaml", "--budget", "40s", "--json")
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    assert stored <= set(tmp_path.glob("results/*/cells/*.json"))
    (found,) = json.loads(done.stdout)
    assert found["settings"]["itl_ms"] == 2.0
    assert found["gain"]["relative"] > 0.2
