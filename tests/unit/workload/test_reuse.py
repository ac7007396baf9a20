"""What a prefix cache could reuse: against a plain search over all pairs, and the shares that prefix groups make by arithmetic."""

from __future__ import annotations

from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.checkpoints.vocabulary import Vocabulary, is_plain
from enginebench.domain import ClosedLoop
from enginebench.workload import Prompt, make_prompts, reusable
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
