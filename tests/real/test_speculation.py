"""Speculation and prefix caches of real engines against what must come out: a model drafts for itself, a forced acceptance, prefixes.

Models with random weights: what is accepted follows from arithmetic, not from the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from enginebench.domain import Speculation

from .random_heads import write_eagle, write_mtp

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

TINY = """models:
  tiny: {random_weights: {architecture: llama, experts: 1, top_k: 1, layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32}}
"""
ITSELF = "{method: draft, draft: tiny, tokens: 3}"
LLAMACPP = f"""
name: real
{TINY}
deployments:
  - engine: llamacpp
    model: tiny
    precision: f32
    options: {{threads: 1}}
    speculation: [none, {ITSELF}, {{method: draft, draft: tiny, tokens: 3, acceptance: 0.7}}, {{method: ngram, tokens: 4, match: 2}}]
  - {{engine: llamacpp, model: tiny, precision: f32, runtime: in-process, options: {{threads: 1}}, speculation: {ITSELF}}}
loads: [{{concurrency: 1, input_tokens: 32, output_tokens: 121, requests: 12}}]
"""
OTHERS = f"""
name: others
{TINY}
deployments:
  - engine: transformers
    model: tiny
    precision: f32
    runtime: in-process
    options: {{threads: 1, device: cpu}}
    speculation: [{ITSELF}, {{method: ngram, tokens: 4, match: 2}}]
  - {{engine: mlx, model: tiny, precision: f32, speculation: {ITSELF}}}
loads: [{{concurrency: 1, input_tokens: 40, output_tokens: 32, requests: 3}}]
"""
PREFIXES = f"""
name: prefixes
{TINY}
deployments: [{{engine: llamacpp, model: tiny, precision: f32, options: {{threads: 1, prefix_cache: [false, true]}}}}]
loads: [{{input_tokens: 144, output_tokens: 4, requests: 10, prefix_groups: 1, prefix_tokens: 128, prefix_cache: [allowed, warm]}}]
"""


def figures(analysis: Any) -> Mapping[tuple[str, Speculation | None, str], Mapping[str, float | None]]:
    found = {}
    for row in analysis.rows:
        assert row.status == "ok", row.reasons
        key = row.deployment.engine + (" offline" if row.deployment.runtime == "in-process" else ""), row.deployment.speculation
        found[key[0], key[1] and Speculation(key[1].method, key[1].tokens, acceptance=key[1].acceptance), row.load.prefix_cache] = {
            name: its.values[0] if its is not None else None for name, its in row.figures.items()
        }
    return found


def test_llamacpp(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("llamacpp")
    found = figures(measure(LLAMACPP)[1])
    assert found["llamacpp", None, "cold"]["acceptance_length"] is None
    own = found["llamacpp", Speculation("draft", 3), "cold"]
    assert own["acceptance_rate"] == pytest.approx(1, abs=0.02), "a model proposes what it would have said itself"
    assert own["acceptance_length"] == pytest.approx(4, abs=0.1)
    offline = found["llamacpp offline", Speculation("draft", 3), "cold"]
    assert offline["acceptance_rate"] == pytest.approx(1, abs=0.02), "from the timings of its replies"
    forced = found["llamacpp", Speculation("draft", 3, acceptance=0.7), "cold"]
    assert forced["acceptance_length"] == pytest.approx(1 + 0.7 + 0.49 + 0.343, rel=0.1), "some 570 steps: three deviations are 0.15"
    assert forced["acceptance_at_1"] == pytest.approx(0.7, abs=0.08)
    assert forced["acceptance_at_2"] == pytest.approx(0.49, abs=0.08)
    ngram = found["llamacpp", Speculation("ngram", 4), "cold"]
    rate, length, at = ngram["acceptance_rate"], ngram["acceptance_length"], [ngram[f"acceptance_at_{i}"] for i in (1, 2, 3, 4)]
    assert rate is not None
    assert length is not None
    assert length == pytest.approx(1 + sum(each or 0.0 for each in at)), "the positions add up"


@pytest.mark.engines
def test_transformers_and_mlx(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    need("transformers")
    need("mlx")
    found = figures(measure(OTHERS)[1])
    for engine in ("transformers offline", "mlx"):
        own = found[engine, Speculation("draft", 3), "cold"]
        assert own["acceptance_rate"] == pytest.approx(1, abs=0.02), engine
        assert own["acceptance_length"] == pytest.approx(4, abs=0.2), engine
    length = found["transformers offline", Speculation("ngram", 4), "cold"]["acceptance_length"]
    assert length is None or 1 <= length <= 5


def test_the_hit_rate_is_that_of_the_shared_prefixes(need: Callable[[str], None], measure: Callable[[str], Any]) -> None:
    """Within 2 %, on an engine that keeps whole prefixes: 9 of 10 requests share 128 of 144 tokens, or all 10 do."""
    need("llamacpp")
    rows = measure(PREFIXES)[1].rows
    found = {(bool(row.deployment.options["prefix_cache"]), row.load.prefix_cache): row.figures for row in rows}
    for load, expected in (("allowed", 9 * 128 / (10 * 144)), ("warm", 128 / 144)):
        assert found[True, load]["reusable_share"].values[0] == pytest.approx(expected, rel=0.02)
        assert found[True, load]["prefix_hit_rate"].values[0] == pytest.approx(expected, rel=0.02)
        assert found[False, load]["prefix_hit_rate"].values[0] == 0
    checks = {
        load: {reason.check.id for row in rows if row.load.prefix_cache == load for cell in row.cells for reason in cell.reasons}
        for load in ("allowed", "warm")
    }
    assert ("cache_misses" in checks["warm"], "cache_misses" in checks["allowed"]) == (True, False)


VLLM = """
name: heads
models:
  tiny: {{random_weights: {{architecture: llama, experts: 1, top_k: 1, layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32}}}}
  head: {{checkpoint: {head}}}
  glm: {{checkpoint: {glm}}}
deployments:
  - engine: vllm
    model: tiny
    precision: bf16
    options: {{kv_gib: 0.2, enforce_eager: true}}
    speculation: {{method: eagle, draft: head, tokens: 2}}
  - engine: vllm
    model: glm
    precision: bf16
    options: {{kv_gib: 0.2, enforce_eager: true, load_format: dummy}}
    speculation: {{method: mtp, tokens: 2}}
loads: [{{concurrency: 1, input_tokens: 32, output_tokens: 64, requests: 4}}]
"""


@pytest.mark.engines
@pytest.mark.long
def test_vllm_with_an_eagle_head_and_with_mtp(need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path) -> None:
    need("vllm")
    write_eagle(tmp_path / "head")
    write_mtp(tmp_path / "glm")
    analysis = measure(VLLM.format(head=tmp_path / "head", glm=tmp_path / "glm"))[1]
    for row in analysis.rows:
        assert row.status == "ok", row.reasons
        (cell,) = row.cells
        totals = cell.record.counters.totals
        assert totals["output_tokens"] == 4 * 64
        assert 0 < 2 * totals["drafts"] - 8 <= totals["draft_tokens"] <= 2 * totals["drafts"], "the last step of a request has less room"
        assert totals["accepted_tokens"] == totals["accepted_at_1"] + totals["accepted_at_2"]
        assert row.figures["acceptance_length"].value == pytest.approx(1 + totals["accepted_tokens"] / totals["drafts"])
    eagle = next(row for row in analysis.rows if row.deployment.speculation.method == "eagle")
    assert eagle.figures["acceptance_at_1"].value > 0.2, "it proposes one of two likely tokens"
