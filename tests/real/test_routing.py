"""Routers of real models in a real engine: what is counted, in every family, and what a sigmoid router with groups must keep to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from enginebench.adapter import WORKERS
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.physics.routing_files import read

pytestmark = pytest.mark.real

FAMILIES = {
    "qwen3moe": "experts: 16, top_k: 4",
    "deepseek_v3": "kv_heads: 4, experts: 16, top_k: 4, layers: 3",
    "llama4": "experts: 8, top_k: 1",
    "gpt_oss": "experts: 8, top_k: 2",
}
SCENARIO = """
name: routed
models:
{models}
deployments: [{{engine: transformers, model: [{names}], precision: f32}}]
loads: [{{output_tokens: 4}}]
"""


def python_of(engine: str) -> Path:
    python = installs_of(discover()[engine])[0].python
    assert python is not None
    return python


def test_every_token_of_every_layer_chose_as_many_experts_as_the_model_says(need: Callable[[str], None], tmp_path: Path) -> None:
    need("transformers")
    size = "hidden: 128, heads: 4, head_dim: 32, expert_intermediate: 64, context: 256"
    models = "\n".join(f"  {name}: {{random_weights: {{architecture: {name}, {size}, {own}}}}}" for name, own in FAMILIES.items())
    (tmp_path / "routed.yaml").write_text(SCENARIO.format(models=models, names=", ".join(FAMILIES)))
    asked = ["--requests", "5", "--input-tokens", "12", "--output-tokens", "6", "--batch", "4", "--json"]
    command = [sys.executable, "-m", "enginebench", "routing", "routed.yaml", *asked]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr
    told = {each["model"]: each for each in json.loads(done.stdout)}
    assert set(told) == set(FAMILIES)
    for name, each in told.items():
        routing = read(tmp_path / "results" / "routing" / f"{name}.npz")
        assert routing.choices is not None
        tokens = 5 * (12 + 6 - 1)  # the last token is never put through the model
        assert routing.choices.experts.shape == (tokens, len(routing.layers), each["top_k"])
        assert routing.choices.decoded.sum() == 5 * 5
        assert all(len(set(row)) == each["top_k"] for row in routing.choices.experts[:, 0].tolist())
        assert each["top_k"] <= each["steps"][0]["distinct"] <= min(each["experts"], 4 * each["top_k"])
    deepseek = read(tmp_path / "results" / "routing" / "deepseek_v3.npz")
    assert deepseek.layers == (1, 2)
    assert deepseek.choices is not None
    groups = deepseek.choices.experts // 4
    assert max(len(set(row)) for layer in range(2) for row in groups[:, layer].tolist()) <= 2


def test_batches_change_nothing_about_the_choices(need: Callable[[str], None], tmp_path: Path) -> None:
    need("transformers")
    from enginebench.checkpoints import RandomMoE
    from enginebench.checkpoints.hf_folder import write_hf_folder

    write_hf_folder(RandomMoE(), "f32", tmp_path / "m")
    job = {"name": "m", "model": str(tmp_path / "m"), "dtype": "float32", "output_tokens": 6}
    prompts = [[300 + 7 * row + place for place in range(9)] for row in range(4)]
    found = []
    for batch in (1, 4):
        line = json.dumps({**job, "prompts": prompts, "batch": batch, "out": str(tmp_path / f"{batch}.npz")})
        command = [str(python_of("transformers")), str(WORKERS / "transformers_routing.py")]
        done = subprocess.run(command, input=line + "\n", text=True, capture_output=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        choices = read(tmp_path / f"{batch}.npz").choices
        assert choices is not None
        found.append(np.sort(choices.experts, axis=2))
    assert np.array_equal(*found)


RECORDED = """
import sys, torch
folder = sys.argv[1]
steps = torch.tensor([[[1, 2, 3]], [[4, 5, 6]]])
torch.save({"rank": 0, "logical_count": steps, "average_utilization_rate_over_window": None}, folder + "/stat.pt")
owners = torch.tensor([[0, 1, 2, 0]])  # the first expert has a second copy
for rank in range(2):
    record = {"forward_pass_id": 0, "rank": rank, "global_physical_count": torch.tensor([[1, 2, 3, 4]])}
    torch.save({"records": [record, record], "last_physical_to_logical_map": owners}, f"{folder}/pass{rank}.pt")
"""


def test_recorder_files_of_sglang(need: Callable[[str], None], tmp_path: Path) -> None:
    """Files made after SGLang's source, read with a real torch; no SGLang ran."""
    need("transformers")
    python, script = str(python_of("transformers")), str(WORKERS / "sglang_routing.py")
    subprocess.run([python, "-c", RECORDED, str(tmp_path)], check=True)
    for files, counts in ((["stat.pt"], [[5, 7, 9]]), (["pass0.pt", "pass1.pt"], [[20, 8, 12]])):
        first, *others = (str(tmp_path / file) for file in files)
        subprocess.run([python, script, first, str(tmp_path / "out.npz"), *others], check=True)
        assert read(tmp_path / "out.npz").counts.tolist() == counts
