"""What a prefix cache could reuse: against a plain search over all pairs, and the shares that prefix groups make by arithmetic."""

from __future__ import annotations

from array import array
from typing import get_args

import pytest
from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.checkpoints.vocabulary import Vocabulary, is_plain
from enginebench.domain import ClosedLoop, PrefixRule, Sample, plain_object
from enginebench.domain.prefix_rule import Since
from enginebench.workload import Prompt, make_prompts, reusable, shared_by
from enginebench.workload.reuse import common
from hypothesis import given
from hypothesis import strategies as st

PLAIN = tuple(i for i, token in enumerate(word_tokenizer().tokens) if token not in word_tokenizer().control and is_plain(token))
KNOWN = Vocabulary(PLAIN, (), word_tokenizer().tokenizer())
ids = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), max_size=8)


def prompt(tokens: tuple[int, ...]) -> Prompt:
    return Prompt(tokens, None, len(tokens), 1)


@given(ids, ids)
def test_it_is_the_longest_beginning_of_any_earlier_prompt(before: list[tuple[int, ...]], sent: list[tuple[int, ...]]) -> None:
    expected = 0
    for number, each in enumerate(sent):
        earlier = [*before, *sent[:number]]
        shared = [
            next((i for i, (a, b) in enumerate(zip(each, other, strict=False)) if a != b), min(len(each), len(other))) for other in earlier
        ]
        expected += min(max(shared, default=0), len(each) - 1)
    assert reusable(list(map(prompt, sent)), list(map(prompt, before))) == expected


def test_shared_prefixes_are_reused_by_all_but_the_first_of_a_group() -> None:
    load = ClosedLoop(input_tokens=48, prefix_groups=4, prefix_tokens=32, requests=20, prefix_cache="allowed")
    prompts = make_prompts(KNOWN, load, 24, salt="s")
    assert reusable(prompts[:20]) == (20 - 4) * 32
    assert reusable(prompts[:20], prompts[20:]) == 20 * 32, "one of each group was sent before"


def test_it_is_unknown_without_ids_and_for_later_turns() -> None:
    assert reusable([Prompt(None, "text", 1, 1)]) is None
    turns = ClosedLoop(input_tokens=8, turns=2, requests=4, prefix_cache="allowed")
    assert reusable(make_prompts(KNOWN, turns, 4, salt="s")) is None


def test_common_beginnings_by_halving() -> None:
    long = tuple(range(1000))
    assert [common(long, (*long[:n], -1)) for n in (0, 1, 511, 999)] == [0, 1, 511, 999]
    assert common(long, long) == 1000


def sample(index: int, sent: int, first: int, end: int, outcome: str = "ok") -> Sample:
    return Sample(index, 1, 1, sent_ns=sent, end_ns=end, event_ns=array("q", [first] if first else []), outcome=outcome)


START = tuple(range(40))
PROMPTS = [prompt((*START, *(100 + i for _ in range(8)))) for i in range(4)]
"""48 tokens each, of which the first 40 are the same."""


@pytest.mark.parametrize(
    ("rule", "tokens"),
    [
        (PrefixRule(), 3 * 40),
        (PrefixRule(16), 3 * 32),
        (PrefixRule(64), 0),
        (PrefixRule(since="computed"), 2 * 40),  # the second was sent before the first was computed
        (PrefixRule(since="answered"), 40),  # and the third before the first had ended
        (PrefixRule(16, "answered"), 32),
    ],
)
def test_the_rule_of_an_engine_says_what_it_shares_and_from_when_on(rule: PrefixRule, tokens: int) -> None:
    times = [sample(0, 10, 20, 40), sample(1, 15, 25, 80), sample(2, 30, 35, 90), sample(3, 50, 60, 95)]
    assert shared_by(rule, PROMPTS, times) == tokens
    assert shared_by(rule, PROMPTS, times[:1]) == 0, "only what was sent counts"
    assert shared_by(PrefixRule(since=rule.since), PROMPTS[:1], times[:1], PROMPTS[1:]) == 40, "what was sent ahead had ended"


def test_a_request_that_failed_before_its_first_output_was_never_computed() -> None:
    times = [sample(0, 10, 0, 12, "http_status"), sample(1, 20, 30, 40)]
    assert shared_by(PrefixRule(since="computed"), PROMPTS, times) == 0
    assert shared_by(PrefixRule(), [Prompt(None, "text", 1, 1)], times) is None


@given(ids, st.integers(1, 3))
def test_one_after_another_and_token_by_token_it_is_all_that_can_be_reused(sent: list[tuple[int, ...]], block: int) -> None:
    prompts = list(map(prompt, sent))
    times = [sample(i, 10 * i + 1, 10 * i + 2, 10 * i + 3) for i in range(len(sent))]
    for since in get_args(Since):
        assert shared_by(PrefixRule(since=since), prompts, times) == reusable(prompts)
        found = shared_by(PrefixRule(block, since), prompts, times)
        assert found is not None
        assert found % block == 0
        assert found <= (reusable(prompts) or 0)


@pytest.mark.parametrize("rule", [PrefixRule(), PrefixRule(128, "computed"), PrefixRule(1, "answered")])
def test_a_stored_rule_is_read_back(rule: PrefixRule) -> None:
    assert PrefixRule.of(plain_object(rule)) == rule
    assert PrefixRule.of(None) is PrefixRule.of({"block_tokens": 0, "since": "scheduled"}) is PrefixRule.of({"since": "never"}) is None
