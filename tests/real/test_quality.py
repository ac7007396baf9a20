"""Quality through real engines: they agree on the same weights, with transformers' logits by the rule written down a second time, and a
worse quantization is told apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from enginebench.analysis.quality import Quality
from enginebench.checkpoints import prepare
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.workload.texts import natural

from .conftest import Measure

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from smollm2 import make_smollm2

pytestmark = [pytest.mark.real, pytest.mark.engines, pytest.mark.timeout(600)]

WINDOWS, WINDOW = 4, 64
MOE = "random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}"
ENGINES = """
name: agree
models:
  moe: {MOE}
deployments:
  - {{label: llama.cpp f16, engine: llamacpp, model: moe, precision: f16, options: {{threads: 1}}}}
  - {{label: llama.cpp offline, engine: llamacpp, model: moe, precision: f16, runtime: in-process, options: {{threads: 1}}}}
  - {{label: transformers, engine: transformers, model: moe, precision: f32, options: {{threads: 1}}}}
  - {{label: transformers offline, engine: transformers, model: moe, precision: f32, runtime: in-process, options: {{threads: 1}}}}
{more}loads: [{{concurrency: 2, input_tokens: 16, output_tokens: 8, requests: 4}}]
quality:
  perplexity: {{windows: {WINDOWS}, window: {WINDOW}}}
  reference: transformers
  divergence: {{top: 10, places: 8, prompts: 2, output_tokens: 8}}
  under_load: true
"""
OTHERS = {
    "mlx": """  - {label: mlx, engine: mlx, model: moe, precision: f32}
  - {label: mlx offline, engine: mlx, model: moe, precision: f32, runtime: in-process}
""",
    "vllm": """  - {label: vllm, engine: vllm, model: moe, precision: f32, options: {enforce_eager: true, kv_gib: 1}}
  - {label: vllm offline, engine: vllm, model: moe, precision: f32, runtime: in-process, options: {enforce_eager: true, kv_gib: 1}}
""",
}
BY_HAND = """
import json, sys
import torch, transformers
job = json.load(sys.stdin)
model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
ids = transformers.AutoTokenizer.from_pretrained(job["model"])(job["text"], add_special_tokens=False)["input_ids"]
n, nll, count = job["window"], 0.0, 0
with torch.no_grad():
    for i in range(job["windows"]):  # llama-perplexity: chunks of n_ctx tokens, the predictions of tokens n_ctx/2 + 1 to n_ctx - 1
        chunk = torch.tensor([ids[i * n : (i + 1) * n]])
        logits = model(chunk).logits[0].double()
        for at in range(n // 2, n - 1):
            nll -= torch.log_softmax(logits[at], 0)[chunk[0, at + 1]].item()
            count += 1
print(json.dumps({"perplexity": torch.tensor(nll / count, dtype=torch.float64).exp().item(), "count": count}))
"""


def by_hand(checkpoint: Path, window: int, windows: int) -> float:
    """llama.cpp's rule written down once more, on transformers' logits."""
    python = installs_of(discover()["transformers"])[0].python
    job = {"model": str(checkpoint), "text": natural(), "window": window, "windows": windows}
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(python), "-c", BY_HAND], input=json.dumps(job), env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["count"] == windows * (window // 2 - 1)
    return float(found["perplexity"])


def value(its: Quality) -> float:
    assert its.perplexity is not None, its.record.missing
    return its.perplexity.value


def test_engines_agree_on_the_same_moe_within_half_a_percent(need: Callable[[str], None], measure: Measure) -> None:
    need("transformers")
    need("llamacpp")
    here = [name for name in OTHERS if installs_of(discover()[name])]
    _, found = measure(ENGINES.format(MOE=f"{{{MOE}}}", more="".join(OTHERS[name] for name in here), WINDOWS=WINDOWS, WINDOW=WINDOW))
    values = {its.deployment: value(its) for its in found.quality}
    print(values, {its.deployment: (its.divergence, its.record.missing) for its in found.quality})
    assert len(values) == 4 + 2 * len(here)
    folder = prepare(found.rows[0].deployment.checkpoint, "f32", "safetensors", Path(), lambda _: None)
    expected = by_hand(Path(folder), WINDOW, WINDOWS)
    assert values == pytest.approx(dict.fromkeys(values, expected), rel=0.005)
    assert values["transformers"] == pytest.approx(expected, rel=1e-4)
    for its in found.quality:
        assert its.deployment == "transformers" or (its.divergence is not None and its.divergence.kl.value < 1e-3)
        batched = its.deployment in ("llama.cpp f16", "vllm")
        assert (its.loaded is not None) == batched, its.record.missing
        assert its.loaded is None or abs(its.loaded.value) < 0.005
        greedy = "offline" not in its.deployment
        assert bool(its.record.continuations) == greedy, its.record.missing


TRAINED = """
name: trained
models:
  smollm2: {{checkpoints: {{f16: {folder}/f16.gguf, f32: {folder}/hf, q4_0: {folder}/q4_0.gguf}}}}
deployments:
  - {{label: f32, engine: transformers, model: smollm2, precision: f32, options: {{threads: 1}}}}
  - {{label: f16, engine: llamacpp, model: smollm2, precision: f16, options: {{threads: 1}}}}
  - {{label: q4_0, engine: llamacpp, model: smollm2, precision: q4_0, options: {{threads: 1}}}}
loads: [{{concurrency: 1, input_tokens: 16, output_tokens: 8, requests: 2}}]
quality: {{perplexity: {{windows: 8, window: 64, max_increase: 1%}}, reference: f32, divergence: {{prompts: 0}}}}
"""


def test_a_trained_model_has_the_perplexity_of_its_logits_and_a_worse_quantization_is_excluded(
    need: Callable[[str], None], measure: Measure, tmp_path: Path
) -> None:
    """SmolLM2-135M-Instruct: the weights of its Q4_1 GGUF, expanded to f32 and f16, and quantized once more to q4_0."""
    need("transformers")
    need("llamacpp")
    make_smollm2(tmp_path)
    _, found = measure(TRAINED.format(folder=tmp_path))
    values = {its.deployment: value(its) for its in found.quality}
    expected = by_hand(tmp_path / "hf", 64, 8)
    print(expected, values, [(its.deployment, its.increase, its.verdict, its.divergence) for its in found.quality])
    assert values["f32"] == pytest.approx(expected, rel=1e-4)
    assert values["f16"] == pytest.approx(expected, rel=0.005)
    assert 5 < expected < 60
    verdicts = {its.deployment: its.verdict for its in found.quality}
    assert verdicts == {"f32": "reference", "f16": "within", "q4_0": "breaks"}
    assert {row.name for row in found.rows if row.excluded} == {"q4_0"}  # whether its load is sound depends on what else runs here
    assert "q4_0" not in {row.name for row in found.rows if row.ranked}
    kl = {its.deployment: its.divergence.kl.value for its in found.quality if its.divergence is not None}
    assert kl["f16"] < 1e-3 < kl["q4_0"]


def test_the_example_of_the_docs_runs(need: Callable[[str], None], measure: Measure) -> None:
    need("llamacpp")
    page = (Path(__file__).parents[2] / "docs" / "quality.md").read_text()
    _, found = measure(page.partition("```yaml\n")[2].partition("```")[0])
    assert [its.deployment for its in found.quality] == ["f16", "q8_0", "q4_0"]
    assert all(its.perplexity is not None and its.loaded is not None and not its.record.missing for its in found.quality)
