"""MLX on its CPU backend: exact lengths, cold prompts, the same text as llama.cpp, both faces, and a death that is noticed.

The CPU backend multiplies routed experts in f32 only, which is what the last test leans on. A cell's prompts are few: its first
request of each shape waits for a C++ compiler.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from enginebench.records.run_folder import open_run

pytestmark = [pytest.mark.real, pytest.mark.engines, pytest.mark.timeout(600)]

MODEL = "models:\n  tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}\n"
BOTH = (
    "name: mlx\n"
    + MODEL
    + """
deployments:
  - {engine: llamacpp, model: tiny, precision: f32, options: {threads: 1}}
  - {engine: mlx, model: tiny, precision: f32}
  - {engine: mlx, model: tiny, precision: f32, runtime: in-process}
loads:
  - {concurrency: [1, 3], input_tokens: 40, output_tokens: 24, requests: 6, temperature: [0, 0.7]}
parity: {prompts: 3, input_tokens: 24, output_tokens: 16}
"""
)
HALF = (
    "name: half\n"
    + MODEL
    + """
deployments: [{engine: mlx, model: tiny, precision: bf16}]
loads: [{input_tokens: 40, output_tokens: 24, requests: 2}]
"""
)


def test_mlx_counts_what_was_asked_and_says_what_llamacpp_says(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("llamacpp")
    need("mlx")
    stored, _ = measure(BOTH)
    cells = [cell for cell in stored.cells() if cell.deployment.engine == "mlx"]
    assert len(cells) == 8
    for cell in cells:
        samples = stored.samples(cell.id)
        assert set(samples.outcome) == {"ok"}, cell.reason
        assert set(samples.input_tokens.tolist()) == {40}
        assert set(samples.output_tokens.tolist()) == {24}
        assert samples.cached_tokens.max() <= 0
    launches = [launch for launch in stored.launches().values() if launch.deployment.engine == "mlx"]
    for launch in launches:
        assert launch.configuration.resolved["precision"] == "f32"
        assert (launch.configuration.resolved["slots"], launch.configuration.resolved["prefix_cache"]) == (3, False)
        assert launch.configuration.differences == ()
        assert launch.startup.identity == ("proven" if launch.deployment.runtime == "process" else None)
    said = {
        launch.deployment.engine: [str(answer["output"]).lstrip() for answer in launch.parity]  # mlx-lm drops the first space
        for launch in stored.launches().values()
        if launch.deployment.runtime == "process"
    }
    assert said["mlx"] == said["llamacpp"]
    assert all(said["mlx"])


@pytest.mark.skipif(sys.platform != "linux", reason="only the CPU backend lacks 16-bit experts")
def test_a_model_that_cannot_run_is_a_death_with_its_reason(need: Callable[[str], None], tmp_path: Path) -> None:
    need("mlx")
    (tmp_path / "s.yaml").write_text(HALF)
    command = [sys.executable, "-m", "enginebench", "run", "s.yaml", "--no-html"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=280, check=False)
    assert done.returncode == 3, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    (cell,) = open_run(folder).cells()
    assert cell.status == "failed"
    assert "float32" in "\n".join(cell.log_tail)
