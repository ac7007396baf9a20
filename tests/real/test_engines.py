"""llama.cpp and transformers, started for real: exact lengths, cold caches, parity, and both faces (served and offline).

One thread per engine: on two busy cores, two threads that wait for each other measure the machine's neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.real

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
BOTH = (
    "name: both\n"
    + MODEL
    + """
deployments:
  - {engine: llamacpp, model: tiny, precision: f32, options: {threads: 1}}
  - {engine: transformers, model: tiny, precision: f32, options: {threads: 1, experts_implementation: [eager, grouped_mm]}}
  - {engine: transformers, model: tiny, precision: f32, runtime: in-process, options: {threads: 1, experts_implementation: batched_mm}}
loads:
  - {concurrency: 2, input_tokens: 40, output_tokens: 16, requests: 6}
parity: {prompts: 3, input_tokens: 24, output_tokens: 16}
"""
)


def check_counts(stored: Any, *, input_tokens: int, output_tokens: int) -> None:
    """Every request of every cell: the server counted exactly what was asked, and nothing came from a cache."""
    cells = list(stored.cells())
    assert {cell.status for cell in cells} == {"ok"}
    for cell in cells:
        samples = stored.samples(cell.id)
        assert set(samples.outcome) == {"ok"}
        assert set(samples.input_tokens.tolist()) == {input_tokens}, cell.deployment
        assert set(samples.output_tokens.tolist()) == {output_tokens}, cell.deployment
        assert samples.cached_tokens.max() <= 0


def test_llamacpp_in_two_precisions_and_both_faces(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("llamacpp")
    stored, analysis = measure(LLAMACPP)
    check_counts(stored, input_tokens=40, output_tokens=24)
    launches = {(launch.deployment.runtime, launch.deployment.precision): launch for launch in stored.launches().values()}
    assert set(launches) == {("process", "f16"), ("process", "q8_0"), ("in-process", "f16")}
    for (runtime, precision), launch in launches.items():
        assert launch.resolved["precision"] == precision
        assert launch.resolved["slots"] == 3
        assert launch.differences == ()
        assert launch.identity == ("proven" if runtime == "process" else None)
    for row in analysis.rows:
        assert row.figures["output_throughput"] is not None
        assert (row.figures["ttft_p50"] is None) == (row.deployment.runtime == "in-process")
    served = [cell for cell in stored.cells() if cell.deployment.runtime == "process"]
    assert all(cell.counters["output_tokens"] == 6 * 24 for cell in served)


def test_transformers_on_the_same_weights_says_the_same(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("llamacpp")
    need("transformers")
    stored, analysis = measure(BOTH)
    check_counts(stored, input_tokens=40, output_tokens=16)
    ran = {
        launch.resolved["options"]["experts_implementation"]
        for launch in stored.launches().values()
        if launch.deployment.engine == "transformers"
    }
    assert {"eager", "grouped_mm"} <= ran
    served = [parity for parity in analysis.parity if "llamacpp" in (parity.a, parity.b) or "llamacpp" in parity.a]
    assert served
    assert all(parity.identical == 3 for parity in served), analysis.parity
