"""The examples of docs/workloads.md, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from enginebench.machine.folders import checkout

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

PAGE = (checkout() or Path()) / "docs" / "workloads.md"
BLOCK = re.compile(r"(?:`(?P<file>[\w.]+)`:\n\n)?```text\n(?P<text>.*?)```", re.DOTALL)
FILES = {found["file"]: found["text"] for found in BLOCK.finditer(PAGE.read_text()) if found["file"]}
SCENARIOS = [found["text"] for found in BLOCK.finditer(PAGE.read_text()) if found["text"].startswith("name:")]


@pytest.mark.parametrize("text", SCENARIOS, ids=lambda text: text.split()[1])
def test_every_scenario_of_the_page_runs(tmp_path: Path, text: str) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "s.yaml").write_text(text)
    environment = {**os.environ, "ENGINEBENCH_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        bench_argv("run", "s.yaml", "--no-html"), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
