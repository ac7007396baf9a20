"""Acceptance and hit rate as figures: from counters as engines have them, from replies, and undefined where nothing says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from enginebench.dialects.replies import accepted_per_position
from enginebench.domain import Cell, ClosedLoop, Deployment
from enginebench.metrics.context import Context
from enginebench.metrics.registry import figures_of, metrics
from enginebench.records.cell import CellRecord, EngineCounters, PromptFacts

from ...small_runs import two_token_samples  # noqa: TID252  # tests/ is no package

VLLM_TOTALS = {
    "drafts": 100.0, "draft_tokens": 400.0, "accepted_tokens": 210.0, "accepted_at_1": 90.0, "accepted_at_2": 60.0, "accepted_at_3": 40.0,
    "accepted_at_4": 20.0,
}  # fmt: skip

NO_FACTS = PromptFacts()


def context(
    totals: Mapping[str, float] | None = None,
    timings: Mapping[str, float] | None = None,
    *,
    cached: int | None = None,
    prompts: PromptFacts = NO_FACTS,
) -> Context:  # frozen
    cell = Cell(Deployment("fake", "m", "none", "m"), ClosedLoop(requests=4))
    record = CellRecord(cell.id, "", cell.deployment, cell.load, 0, "ok", prompts=prompts, counters=EngineCounters(totals or {}))
    return Context(two_token_samples(cached=cached, timings=timings), record)


def test_acceptance_from_counters() -> None:
    found = figures_of(context(VLLM_TOTALS))
    assert found["acceptance_rate"] == pytest.approx(210 / 400)
    assert found["acceptance_length"] == pytest.approx(1 + 210 / 100), "vLLM's own formula: 1 + accepted / drafts"
    positions = [found[f"acceptance_at_{i}"] for i in range(1, 9)]
    assert positions == [0.9, 0.6, 0.4, 0.2, None, None, None, None]
    assert 1 + sum(each for each in positions if each is not None) == pytest.approx(found["acceptance_length"])


def test_acceptance_from_replies() -> None:
    """llama.cpp's timings have two of the counts, our own workers all."""
    found = figures_of(context(timings={"draft_n": 8.0, "draft_n_accepted": 6.0, "predicted_ms": 4.0}))
    assert (found["acceptance_rate"], found["acceptance_length"], found["acceptance_at_1"]) == (0.75, None, None)
    found = figures_of(context(timings={"drafts": 2.0, "draft_tokens": 8.0, "accepted_tokens": 6.0, "accepted_at_1": 2.0}))
    assert (found["acceptance_length"], found["acceptance_at_1"]) == (4.0, 1.0)


def test_undefined_without_speculation() -> None:
    found = figures_of(context({"prompt_tokens": 4.0, "draft_tokens": 0.0}))
    assert {found[name] for name in metrics() if name.startswith("acceptance")} == {None}


def test_hit_rates() -> None:
    found = figures_of(context(cached=8, prompts=PromptFacts(tokens=40, reusable_tokens=33)))
    assert (found["prefix_hit_rate"], found["reusable_share"]) == (0.8, 33 / 40)
    counted = figures_of(context({"cached_tokens": 36.0}, cached=8))
    assert (counted["prefix_hit_rate"], counted["reusable_share"]) == (0.9, None), "counters see more requests than replies"
    assert figures_of(context())["prefix_hit_rate"] is None
    aborted = figures_of(context({"cached_tokens": 60.0, "prompt_tokens": 80.0}, cached=8))
    assert aborted["prefix_hit_rate"] == 0.75, "of the prompts of aborted requests as well, as far as the engine counts them"


def test_the_hit_rate_by_rule_is_that_of_the_prompts_that_were_sent() -> None:
    found = figures_of(context(prompts=PromptFacts(tokens=40, reusable_tokens=33, rule_tokens=24)))
    assert found["rule_hit_rate"] == pytest.approx(24 / int(two_token_samples().asked_input_tokens.sum()))
    assert figures_of(context(prompts=PromptFacts(tokens=40, reusable_tokens=33)))["rule_hit_rate"] is None


def test_counters_by_position_as_vllm_and_llamacpp_write_them() -> None:
    text = (
        "# TYPE vllm:spec_decode_num_accepted_tokens_per_pos_total counter\n"
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 7.0\n'
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",model_name="m",position="0"} 2.0\n'
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="1"} 3.0\n'
        'vllm:spec_decode_num_accepted_tokens_per_pos_created{engine="0",model_name="m",position="1"} 1.7e9\n'
    )
    assert accepted_per_position(text, "vllm:spec_decode_num_accepted_tokens_per_pos_total") == {"accepted_at_1": 9.0, "accepted_at_2": 3.0}
    assert accepted_per_position('x{position="0"} 4', "x") == {"accepted_at_1": 4.0}
    assert accepted_per_position('x{position="a"} 4\nx{} 3\nx 2', "x") == {}
