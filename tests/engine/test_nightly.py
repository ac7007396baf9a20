"""The script that a nightly job is: equal nights pass, a slowed one fails, and both leave their reports."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from enginebench.machine.folders import checkout

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

SCRIPT = (checkout() or Path()) / ".ci" / "nightly"
SCENARIO = """
name: s
deployments:
  - {engine: fake, model: any, precision: none, options: {ttft_ms: 30, itl_ms: ITL}}
loads:
  - {concurrency: 2, input_tokens: 16, output_tokens: 8, requests: 6, warmup_requests: 1}
"""
THRESHOLD = "tpot.p50 > +50%"
"""Above what a busy machine does to the fake engine's pace, and far below what the slowed one is."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a `bench` to put on PATH."""
    command = tmp_path / "bin" / "bench"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.join(bench_argv())} "$@"\n')
    command.chmod(0o755)
    return tmp_path


def night(folder: Path, itl_ms: float, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "s.yaml").write_text(SCENARIO.replace("ITL", str(itl_ms)))
    ours = {
        "FAIL_IF": THRESHOLD,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "KEEP": f"{folder}/keep",
        "ENGINEBENCH_HOME": f"{folder}/home",
        **env,
    }
    command = [str(SCRIPT), "s.yaml", "--repeats", "4"]  # the fewest that can differ surely
    return subprocess.run(command, cwd=folder, env={**os.environ, **ours}, text=True, capture_output=True, timeout=250)


def test_nights(folder: Path) -> None:
    first = night(folder, 10)
    assert first.returncode == 0, first.stderr
    assert "nothing to compare with" in first.stdout
    (one,) = (folder / "keep" / "s").iterdir()
    equal = night(folder, 10, GITHUB_STEP_SUMMARY=f"{folder}/summary.md")
    assert equal.returncode == 0, equal.stderr
    assert f"{THRESHOLD.replace('>', chr(92) + '>')}: not broken in 1 of 1 pairs" in (folder / "summary.md").read_text()
    posted = (folder / "summary.md").read_text()
    assert "## History\n\n**Nothing can be said yet: " in posted
    assert "| deployment | output tok/s |" in posted.split("## History")[1]
    slowed = night(folder, 30, BASE=str(one))
    assert slowed.returncode == 1, slowed.stderr
    assert "**FAIL**" in slowed.stdout
    index = json.loads((folder / "keep" / "site" / "data" / "index.json").read_text())
    assert [run["name"] for run in index["runs"]] == ["s"] * 3, "the site has every night"
    data = json.loads((folder / "nightly" / "compare.json").read_text())
    assert [(c["what"], c["base"], c["candidate"]) for c in data["changed"]] == [("asked.options.itl_ms", "10.0", "30.0")]
    assert data["base"]["created_at"] == json.loads((one / "run.json").read_text())["created_at"]
    assert json.loads((folder / "nightly" / "tonight.json").read_text())["rows"]
    history = json.loads((folder / "nightly" / "history.json").read_text())
    assert len(history["runs"]) == 3
    assert "<h1>Nothing can be said yet: " in (folder / "nightly" / "history.html").read_text()
