"""LoRA adapters with random weights on real servers: every request of the load goes to the adapter whose turn it is, and is answered."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from enginebench.adapter import WORKERS
from enginebench.checkpoints import prepare
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover

from .random_lora import write_gguf, write_peft

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

TINY = """models:
  tiny: {random_weights: {architecture: llama, experts: 1, top_k: 1, layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32}}
"""
REFERENCE = "random:llama?experts=1&top_k=1&layers=2&hidden=128&heads=4&kv_heads=2&head_dim=32"
SAYS = """
import json, sys
import llamacpp_flags, llamacpp_worker, xllamacpp
flags = ["serve", "-m", sys.argv[1], "-c", "256", "-t", "1", "--lora", sys.argv[2], "--port", "0", "-lv", "0"]
args = llamacpp_flags.parser().parse_args(flags)
server = xllamacpp.Server(llamacpp_worker.common_params(args))
fields = {"prompt": [5, 6, 7, 8, 9], "max_tokens": 8, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
said = [server.handle_completions(fields | {"lora": [{"id": 0, "scale": scale}]})["choices"][0]["text"] for scale in (0.0, 1.0, 0.0)]
print("\\n" + json.dumps(said))
"""


def check(analysis: Any) -> None:
    assert [(row.load.loras, row.status) for row in analysis.rows] == [(0, "ok"), (2, "ok")]
    assert all(cell.record.counters.totals["output_tokens"] == 6 * 16 for row in analysis.rows for cell in row.cells)


def scenario(engine: str, precision: str, options: str, one: Path, two: Path) -> str:
    entry = f"{{engine: {engine}, model: tiny, precision: {precision}, options: {options}, loras: {{one: {one}, two: {two}}}}}"
    load = "{concurrency: 2, input_tokens: 24, output_tokens: 16, requests: 6, loras: [0, 2]}"
    return f"name: l\n{TINY}deployments: [{entry}]\nloads: [{load}]\n"


def test_llamacpp(need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path) -> None:
    need("llamacpp")
    for seed, name in enumerate(("one", "two")):
        write_gguf(tmp_path / f"{name}.gguf", layers=2, hidden=128, seed=seed)
    check(measure(scenario("llamacpp", "f32", "{threads: 1}", tmp_path / "one.gguf", tmp_path / "two.gguf"))[1])


def test_an_adapter_changes_what_llamacpp_says(need: Callable[[str], None], tmp_path: Path) -> None:
    need("llamacpp")
    write_gguf(tmp_path / "one.gguf", layers=2, hidden=128)
    model = prepare(REFERENCE, "f32", "gguf", tmp_path, print)
    (python,) = {each.python for each in installs_of(discover()["llamacpp"]) if each.variant == "xllamacpp"}
    command = [str(python), "-c", SAYS, model, str(tmp_path / "one.gguf")]
    done = subprocess.run(command, cwd=WORKERS, capture_output=True, text=True, timeout=120)
    without, adapted, again = json.loads(done.stdout.splitlines()[-1])
    assert without == again != adapted, done.stderr[-500:]


@pytest.mark.engines
def test_vllm(need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path) -> None:
    need("vllm")
    for seed, name in enumerate(("one", "two")):
        write_peft(tmp_path / name, layers=2, hidden=128, seed=seed)
    check(measure(scenario("vllm", "bf16", "{kv_gib: 0.2, enforce_eager: true}", tmp_path / "one", tmp_path / "two"))[1])
