"""Speculation that says nothing about the engine is said so: random prompts, none at all, another acceptance than the forced one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from enginebench.analysis.rows import result_of
from enginebench.domain import Cell, ClosedLoop, Deployment, Load, Speculation
from enginebench.records.cell import CellRecord, CellTraits, EngineCounters, PromptFacts

from ...small_runs import two_token_samples  # noqa: TID252  # tests/ is no package

NGRAM = Speculation("ngram", 4, match=3)
FORCED = Speculation("draft", 3, "small", "bf16", acceptance=0.5)
COUNTED = {"drafts": 200.0, "draft_tokens": 800.0, "accepted_tokens": 700.0}
TEXT, RANDOM = ClosedLoop(prompts="text", requests=4), ClosedLoop(requests=4)


def found(
    speculation: Speculation | None = None, totals: Mapping[str, float] | None = None, load: Load = TEXT, cached: int | None = 0,
    prompts: PromptFacts = PromptFacts(), **traits: Any,  # noqa: B008  # frozen
) -> dict[str, str]:  # fmt: skip
    """Check -> severity and detail, of what this file is about."""
    cell = Cell(Deployment("vllm", "m", "bf16", "m", speculation=speculation), load)
    record = CellRecord(
        cell.id, "", cell.deployment, load, 0, "ok", traits=CellTraits(**traits), counters=EngineCounters(totals or {}), prompts=prompts
    )
    ours = ("random_acceptance", "never_speculated", "acceptance_off", "uneven_routing", "cache_misses", "cache_hits")
    reasons = result_of(record, two_token_samples(cached=cached)).reasons
    return {each.check.id: f"{each.severity}: {each.detail}" for each in reasons if each.check.id in ours}


def test_random_prompts_under_speculation_are_suspect() -> None:
    said = "suspect: speculation on random prompts, and 87.5 % of the proposed tokens were accepted"
    assert found(NGRAM, COUNTED, RANDOM) == {"random_acceptance": said}
    assert found(None, COUNTED, RANDOM) == {"random_acceptance": said}, "an attached server that counts proposed tokens speculates as well"
    assert found(NGRAM, COUNTED, TEXT, random_weights=True)["random_acceptance"].startswith("suspect: speculation on random weights")
    assert found(NGRAM, COUNTED, TEXT) == {}
    assert found(None, {"draft_tokens": 0.0}, RANDOM) == {}


def test_a_forced_acceptance_does_not_depend_on_the_text() -> None:
    forced = {"drafts": 200.0, "draft_tokens": 600.0, "accepted_tokens": 200 * (0.5 + 0.25 + 0.125)}
    assert found(FORCED, forced, RANDOM) == {}


def test_another_acceptance_than_the_forced_one() -> None:
    off = {"drafts": 200.0, "draft_tokens": 600.0, "accepted_tokens": 400.0}
    assert found(FORCED, off, RANDOM) == {"acceptance_off": "suspect: steps yielded 3 tokens, 1.88 were forced (limit 5 %)"}
    few = {name: value / 10 for name, value in off.items()}
    assert found(FORCED, few, RANDOM) == {}, "20 steps say little of a mean"


def test_speculation_that_never_was() -> None:
    assert found(NGRAM, {"draft_tokens": 0.0}) == {"never_speculated": "suspect: speculation by ngram: 0 proposed tokens"}
    assert found(NGRAM, {}) == {}, "an engine that counts nothing proves nothing"


def test_forced_routing_that_is_not_even_is_never_ranked() -> None:
    why = "eplb moves experts between ranks after round_robin has dealt the tokens"
    assert found(random_weights=True, forced_routing=True, uneven_routing=why) == {"uneven_routing": f"invalid: {why}"}
    assert found(random_weights=True, forced_routing=True) == {}


@pytest.mark.parametrize(("cached", "said"), [(8, {}), (3, "30 % of the prompt tokens were cached, 80 % could be (limit 50 % of that)")])
def test_a_cache_that_should_be_warm(cached: int, said: object) -> None:
    warm = replace(TEXT, prefix_groups=1, prefix_tokens=8, prefix_cache="warm")
    expected = {"cache_misses": f"suspect: {said}"} if said else {}
    assert found(load=warm, cached=cached, prompts=PromptFacts(tokens=40, reusable_tokens=32)) == expected


def test_unexpected_hits_stay_invalid() -> None:
    assert found(cached=8)["cache_hits"].startswith("invalid: 32 of 40 prompt tokens")
