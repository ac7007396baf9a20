"""Each engine starts on a GPU, answers with the asked length, takes GPU memory, and is below the bound of the device."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import enginebench
import pytest
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.machine.accelerators import Gpu

pytestmark = [pytest.mark.gpu, pytest.mark.engines, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
MODEL = """
name: gpu
models:
  moe:
    random_weights:
      {layers: 4, hidden: 1024, heads: 16, kv_heads: 4, head_dim: 64, experts: 16, top_k: 4, expert_intermediate: 768, distinct_layers: 1}
deployments:
"""
LOADS = """
loads:
  - {concurrency: [1, 8], input_tokens: 64, output_tokens: 32, requests: 8}
"""
DEPLOYMENTS: dict[str, tuple[str, ...]] = {
    "vllm": ("{engine: vllm, model: moe, precision: bf16}",),
    "sglang": ("{engine: sglang, model: moe, precision: bf16}",),
    "trtllm": ("{engine: trtllm, model: moe, precision: bf16}",),
    "exllamav3": ("{engine: exllamav3, model: moe, precision: bf16}",),
    "transformers": (
        "{engine: transformers, model: moe, precision: bf16, options: {experts_implementation: [eager, batched_mm, grouped_mm]}}",
        "{engine: transformers, model: moe, precision: bf16, runtime: in-process}",
    ),
    "llamacpp": (
        "{engine: llamacpp, model: moe, precision: [bf16, q8_0, mxfp4, q4_k_m]}",
        "{engine: llamacpp, model: moe, precision: mxfp4, options: {n_cpu_moe: 2}}",
    ),
    "ollama": ("{engine: ollama, model: moe, precision: q8_0}",),
}


@pytest.mark.parametrize("engine", DEPLOYMENTS)
def test_an_engine_serves_on_the_gpu(engine: str, measure: Callable[[str, str], Any]) -> None:
    stored, analysis = measure(engine, MODEL + "".join(f"  - {each}\n" for each in DEPLOYMENTS[engine]) + LOADS)
    cells = list(stored.cells())
    assert {(cell.status, cell.reason) for cell in cells} == {("ok", None)}
    for cell in cells:
        samples = stored.samples(cell.id)
        assert set(samples.outcome) == {"ok"}
        if cell.traits.length_control == "exact":
            assert set(samples.output_tokens.tolist()) == {32}, cell.deployment
    for row in analysis.rows:
        assert row.figures["gpu_memory"] is not None, "telemetry saw the engine's device"
        share = row.figures["share_of_ceiling"]
        assert share is None or share.value <= 1.02, f"{row.name} is above the bound"


def test_what_nvml_says_of_a_known_load(gpu: Gpu, tmp_path: Path) -> None:
    """benchmarks/gpu/machine_check.py with the Python of an installed engine that has torch."""
    pythons = [install.python for install in installs_of(discover()["transformers"]) if install.python is not None]
    if not pythons:
        pytest.skip("needs an engine with torch: bench engines use transformers PYTHON")
    out = tmp_path / "machine.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(enginebench.__file__).resolve().parents[1])}
    command = [str(pythons[0]), str(ROOT / "benchmarks" / "gpu" / "machine_check.py"), "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"{pythons[0]} lacks what enginebench needs to read NVML: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(check["ok"] for check in json.loads(out.read_text())["checks"])
