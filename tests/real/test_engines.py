"""llama.cpp and transformers, started for real: exact lengths, cold caches, parity, and both faces (served and offline).

One thread per engine: on two busy cores, two threads that wait for each other measure the machine's neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.metrics.prefix_cache import cache_proof

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

MODEL = "models:\n  tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}\n"
LLAMACPP = (
    "name: real\n"
    + MODEL
    + """
deployments:
  - {engine: llamacpp, model: tiny, precision: [f16, q8_0], options: {threads: 1}}
  - {engine: llamacpp, model: tiny, precision: f16, runtime: in-process, options: {threads: 1}}
loads:
  - {concurrency: [1, 3], input_tokens: 40, output_tokens: 24, requests: 6}
"""
)
SAME = (
    "name: same\n"
    + MODEL
    + """
deployments:
  - {label: llamacpp, engine: llamacpp, model: tiny, precision: f32, options: {threads: 1}}
  - {label: llamacpp chat, engine: llamacpp, model: tiny, precision: f32, options: {threads: 1}}
  - {label: eager, engine: transformers, model: tiny, precision: f32, options: {threads: 1, experts_implementation: eager}}
  - {label: grouped chat, engine: transformers, model: tiny, precision: f32, options: {threads: 1, experts_implementation: grouped_mm}}
  - {label: ranks, engine: transformers, model: tiny, precision: f32, tp: 2, ep: 2, options: {threads: 1, device: cpu}}
  - label: ranks offline
    engine: transformers
    model: tiny
    precision: f32
    tp: 2
    runtime: in-process
    options: {threads: 1, device: cpu}
loads:
  - only: {label: [llamacpp, eager, ranks, ranks offline]}
    concurrency: 2
    input_tokens: 40
    output_tokens: 16
    requests: 6
  - only: {label: [llamacpp chat, grouped chat]}
    concurrency: 2
    input_tokens: 40
    output_tokens: 16
    requests: 4
    api: chat
    prompts: [random, text]
parity: {prompts: 3, input_tokens: 24, output_tokens: 16}
"""
)
"""One run with all ways to compute the same weights, because an import of transformers takes 5 s."""

OFFLOADED = (
    "name: offloaded\n"
    + MODEL
    + """
deployments:
  - engine: llamacpp
    model: tiny
    precision: f16
    max_context: 512
    options: {threads: 1, n_cpu_moe: 1, tensor_overrides: ['token_embd=CPU'], load_mode: none}
  - {engine: llamacpp, model: tiny, precision: f16, max_context: 512, options: {threads: 1, gpu_layers: 0, unified_kv: true}}
loads:
  - {concurrency: 2, input_tokens: 40, output_tokens: 24, requests: 4}
parity: {prompts: 2, input_tokens: 24, output_tokens: 8}
"""
)
FETCHED = """
name: fetched
models:
  tiny: {checkpoints: {f32: org/name}}
deployments:
  - {engine: transformers, model: tiny, precision: f32, options: {threads: 1}}
loads:
  - {concurrency: 2, input_tokens: 40, output_tokens: 8, requests: 4}
"""
MADE_UP = (
    "name: made-up\n"
    + MODEL
    + """
deployments:
  - engine: transformers
    model: tiny
    precision: bf16
    runtime: in-process
    options: {threads: 1, load_format: dummy, parallel_loading: false, experts_implementation: batched_mm}
loads:
  - {concurrency: 2, input_tokens: 40, output_tokens: 16, requests: 4}
"""
)
PYTHON = (
    "name: python\n"
    + MODEL
    + """
deployments:
  - {engine: llamacpp, model: tiny, precision: q8_0, runtime: in-process, options: {server: llama-cpp-python, threads: 1, gpu_layers: 0}}
  - {engine: llamacpp, model: tiny, precision: q8_0, runtime: in-process, options: {server: xllamacpp, threads: 1, gpu_layers: 0}}
loads:
  - {concurrency: 1, input_tokens: 40, output_tokens: 24, requests: 3}
"""
)


def cached_tokens(cell: Any, samples: Any) -> int | None:
    """Prompt tokens out of a prefix cache, from whoever says so: None would leave it unproved."""
    proof = cache_proof(cell, samples)
    return proof.cached if proof.by else None


def check_counts(stored: Any, *, input_tokens: int, output_tokens: int) -> None:
    """Every request of every cell: the server counted exactly what was asked, and nothing came from a cache."""
    cells = list(stored.cells())
    assert {cell.status for cell in cells} == {"ok"}
    for cell in cells:
        samples = stored.samples(cell.id)
        assert set(samples.outcome) == {"ok"}
        assert set(samples.input_tokens.tolist()) == {input_tokens}, cell.deployment
        assert set(samples.output_tokens.tolist()) == {output_tokens}, cell.deployment
        assert cached_tokens(cell, samples) == 0, cell.deployment


def test_llamacpp_in_two_precisions_and_both_faces(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("llamacpp")
    stored, analysis = measure(LLAMACPP)
    check_counts(stored, input_tokens=40, output_tokens=24)
    assert stored.record.machine["memory_bandwidth"] > 0, "measured for the ceiling"
    launches = {(launch.deployment.runtime, launch.deployment.precision): launch for launch in stored.launches().values()}
    assert set(launches) == {("process", "f16"), ("process", "q8_0"), ("in-process", "f16")}
    for (runtime, precision), launch in launches.items():
        assert launch.configuration.resolved["precision"] == precision
        assert launch.configuration.resolved["slots"] == 3
        assert launch.configuration.differences == ()
        assert launch.startup.identity == ("proven" if runtime == "process" else None)
    for row in analysis.rows:
        assert row.figures["output_throughput"] is not None
        assert (row.figures["ttft_p50"] is None) == (row.deployment.runtime == "in-process")
    served = [cell for cell in stored.cells() if cell.deployment.runtime == "process"]
    assert all(cell.counters.totals["output_tokens"] == 6 * 24 for cell in served)


@pytest.fixture(scope="module")
def same(need: Callable[[str], None], measure: Callable[[str], Any]) -> Any:
    """The run and the analysis of SAME."""
    need("llamacpp")
    need("transformers")
    return measure(SAME)


def parity_of(analysis: Any, *labels: str) -> Any:
    """The comparison of the outputs of two deployments; in-process there is no text to compare."""
    (found,) = [parity for parity in analysis.parity if {parity.a, parity.b} == set(labels)]
    return found


@pytest.mark.engines
def test_transformers_on_the_same_weights_says_the_same(same: Any) -> None:
    stored, analysis = same
    check_counts(stored, input_tokens=40, output_tokens=16)
    ran = {
        launch.configuration.resolved["options"]["experts_implementation"]
        for launch in stored.launches().values()
        if launch.deployment.engine == "transformers"
    }
    assert {"eager", "grouped_mm"} <= ran
    assert parity_of(analysis, "llamacpp", "eager").identical == 3


@pytest.mark.engines
def test_a_chat_prompt_has_its_length_with_all_that_the_template_adds(same: Any) -> None:
    stored, analysis = same
    cells = [cell for cell in stored.cells() if cell.load.api == "chat"]
    assert sorted((cell.deployment.engine, cell.load.prompts) for cell in cells) == [
        ("llamacpp", "random"), ("llamacpp", "text"), ("transformers", "random"), ("transformers", "text"),
    ]  # fmt: skip
    # what is compared is the same text, whatever a template adds
    assert parity_of(analysis, "llamacpp chat", "grouped chat").identical == 3


@pytest.mark.engines
def test_what_an_engine_fetches_itself_has_exact_prompts(
    need: Callable[[str], None],
    measure: Callable[[str], Any],
    fetched_from_hub: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    need("transformers")
    fetched_from_hub(tmp_path / "hf")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    stored, _ = measure(FETCHED)
    check_counts(stored, input_tokens=40, output_tokens=8)
    for cell in stored.cells():
        assert cell.prompts.exact
        assert cell.counters.token_check["tokenizer"] > 0


def test_llamacpp_with_experts_in_host_memory_says_the_same(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("llamacpp")
    stored, analysis = measure(OFFLOADED)
    check_counts(stored, input_tokens=40, output_tokens=24)
    (parity,) = analysis.parity
    assert parity.identical == 2, analysis.parity
    pools = {
        launch.deployment.options.get("unified_kv", False): launch.configuration.resolved["kv_tokens"]
        for launch in stored.launches().values()
    }
    assert pools == {True: 1024, False: 1024}  # one pool, or an equal part for each of two slots


@pytest.mark.engines
def test_transformers_on_two_ranks_says_what_one_says(same: Any) -> None:
    stored, analysis = same
    launches = {launch.deployment.label: launch for launch in stored.launches().values()}
    assert {
        label: launch.configuration.resolved["raw"]["/enginebench"]["parallelism"]
        for label, launch in launches.items()
        if label in ("eager", "ranks", "ranks offline")
    } == {
        "eager": {"tp": 1, "ep": 1, "pp": 1},
        "ranks": {"tp": 2, "ep": 2, "pp": 1},
        "ranks offline": {"tp": 2, "ep": 1, "pp": 1},
    }
    assert all(launch.startup.identity in ("proven", None) for launch in launches.values())
    assert parity_of(analysis, "eager", "ranks").identical == 3


@pytest.mark.engines
def test_transformers_in_process_with_random_weights_is_marked(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("transformers")
    stored, _ = measure(MADE_UP)
    check_counts(stored, input_tokens=40, output_tokens=16)
    (launch,) = stored.launches().values()
    assert launch.configuration.differences == ()
    assert launch.configuration.resolved["precision"] == "bf16"
    assert launch.configuration.resolved["options"]["experts_implementation"] == "batched_mm"
    assert all(cell.traits.random_weights for cell in stored.cells())


def test_llama_cpp_python_in_process(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("llamacpp")
    if "llama-cpp-python" not in {install.variant for install in installs_of(discover()["llamacpp"])}:
        pytest.skip("llama-cpp-python is not installed: bench engines install llamacpp:python, which compiles it for minutes")
    stored, _ = measure(PYTHON)
    check_counts(stored, input_tokens=40, output_tokens=24)
    assert {launch.variant for launch in stored.launches().values()} == {"llama-cpp-python", "xllamacpp"}
