"""A ceiling with speculation is one: the bound of plain decoding times the tokens of a step where memory rules, less drafting."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from enginebench.domain import Deployment, Parallelism, Speculation
from enginebench.physics import Device, Machine, read_machine
from enginebench.physics.deployment_limits import MachineLimits
from enginebench.physics.memory_need import UnknownLimit

DENSE = "random:qwen3moe?layers=4&hidden=256&heads=4&kv_heads=2&head_dim=64&experts=2&top_k=2&expert_intermediate=256"
HALF = DENSE.replace("layers=4", "layers=2")
"""Every token takes both experts, so that every step reads the same."""
PLAIN = Deployment("vllm", "m", "bf16", DENSE, max_context=64)
PAPER = MachineLimits(Machine(Device("paper", 100e9, 1e9, {"bf16": math.inf}, cache=0.0)))
TOKENS = (1.0, 1e6)
"""A long output, beside which prefill takes no time, and no KV cache to speak of would be too short: the step is all there is."""


def ceiling(speculation: Speculation | None, accepted: float | None = None, tokens: tuple[float, float] = (1.0, 33.0)) -> float:
    return PAPER.of(replace(PLAIN, speculation=speculation)).ceiling(tokens, 1, None, accepted)


def steps_per_s(speculation: Speculation | None, accepted: float | None = None) -> float:
    """Tokens/s of decode alone: prefill of one token takes a step, as any."""
    long, short = (33.0 / ceiling(speculation, accepted, (1.0, 33.0)), 17.0 / ceiling(speculation, accepted, (1.0, 17.0)))
    return 16.0 / (long - short)


def test_tokens_of_a_step_times_the_plain_bound() -> None:
    plain = steps_per_s(None)
    assert steps_per_s(Speculation("ngram", 4, match=3)) == pytest.approx(5 * plain, rel=0.02), "at most all are accepted"
    assert steps_per_s(Speculation("ngram", 4, match=3), accepted=2.5) == pytest.approx(2.5 * plain, rel=0.02), "as counted"
    forced = Speculation("mtp", 2, acceptance=0.5)
    assert steps_per_s(forced) == pytest.approx((1 + 0.5 + 0.25) * plain, rel=0.02), "as forced"


def test_a_draft_model_takes_its_own_steps() -> None:
    """Half the layers take about half the time: 3 tokens of a step for one step of the model and two of the drafter."""
    plain, drafter = steps_per_s(None), PAPER.of(replace(PLAIN, checkpoint=HALF))
    small = 16.0 / (33.0 / drafter.ceiling((1.0, 33.0), 1) - 17.0 / drafter.ceiling((1.0, 17.0), 1))
    asked = Speculation("draft", 2, HALF, "bf16")
    assert steps_per_s(asked, accepted=3.0) == pytest.approx(3 / (1 / plain + 2 / small), rel=0.02)
    assert steps_per_s(asked, accepted=3.0) < 3 * plain


@pytest.mark.parametrize("accepted", [1.0, 1.7, 3.0, 5.0])
def test_more_accepted_tokens_never_lower_the_bound(accepted: float) -> None:
    asked = Speculation("draft", 4, HALF, "bf16")
    assert ceiling(asked, accepted) <= ceiling(Speculation("ngram", 4, match=3), accepted)
    assert ceiling(asked, accepted) >= ceiling(None) * 0.99


def test_speculation_in_the_engine_s_own_words_has_no_ceiling() -> None:
    options: dict[str, Any] = {"speculative": {"method": "ngram"}}
    with pytest.raises(UnknownLimit, match="the acceptance rate is unknown"):
        PAPER.of(replace(PLAIN, options=options)).ceiling((1.0, 33.0), 1)


def test_the_draft_s_weights_count_in_memory() -> None:
    tp2 = replace(PLAIN, model="llama-3.1-70b", checkpoint="", parallelism=Parallelism(tp=2), max_context=2048)
    limits = MachineLimits(read_machine("2xh100"))
    without = limits.of(tp2)._need(1, 2048).fit.budget
    with_draft = limits.of(replace(tp2, speculation=Speculation("draft", 4, "llama-3.1-8b", "bf16")))._need(1, 2048)
    weights, cache = 8.03e9 * 2, 2 * 32 * 8 * 128 * 2048 * 2
    assert with_draft.fit.budget.draft == pytest.approx((weights + cache) / 2, rel=0.01), "16.1 GB and its KV cache, over two GPUs"
    assert with_draft.fit.budget.needed == pytest.approx(without.needed + with_draft.fit.budget.draft)
    assert ", draft model 8.2, " in with_draft.text
    with pytest.raises(UnknownLimit, match="the size of the draft nowhere is unknown"):
        limits.of(replace(tp2, speculation=Speculation("draft", 4, "nowhere", "bf16")))
