"""Prompts are exact, reproducible and share nothing but what they are asked to share; ids and text are the same prompt."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import pytest
from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.checkpoints.vocabulary import Vocabulary, is_plain
from enginebench.domain import ClosedLoop, Load, OpenLoop
from enginebench.errors import UserError
from enginebench.workload import Prompt, TextScale, make_prompts
from enginebench.workload.corpus import passages
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

PLAIN = tuple(i for i, token in enumerate(word_tokenizer().tokens) if token not in word_tokenizer().control and is_plain(token))
KNOWN = Vocabulary(PLAIN, (), word_tokenizer().tokenizer())
IDS_ONLY = Vocabulary(PLAIN)
WITH_BOS = replace(KNOWN, prefix_ids=(1021,))
Kind = Literal["random", "text"]
KINDS: tuple[Kind, ...] = ("random", "text")

loads = st.builds(ClosedLoop, input_tokens=st.integers(2, 300), seed=st.integers(0, 9), prompts=st.sampled_from(KINDS))


def encoded(vocabulary: Vocabulary, prompt: Prompt) -> tuple[int, ...]:
    assert vocabulary.tokenizer is not None
    prefix = () if prompt.turn else vocabulary.prefix_ids
    return (*prefix, *vocabulary.tokenizer.encode(prompt.text, add_special_tokens=False).ids)


def ids_of(prompt: Prompt) -> tuple[int, ...]:
    assert prompt.ids is not None
    return prompt.ids


def sentencepiece(characters: str = "") -> Vocabulary:
    """As in Llama 2 and Mixtral: '▁' for a space, one put before the text, and no split before BPE."""
    words = ["the", "cat", "sat"]
    letters = sorted({letter for word in words for letter in word} | {"▁", *characters})
    tokens, merges = ["<unk>", *letters], []
    for word in words:
        grown = "▁"
        for letter in word:
            merges.append((grown, letter))
            grown += letter
            tokens.append(grown)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, unk_token=tokens[0]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return Vocabulary(tuple(range(1, len(tokens))), (), tokenizer)


@settings(max_examples=60, deadline=None)  # the first prompt waits for the words to be confirmed
@given(loads, st.integers(1, 40), st.sampled_from([KNOWN, WITH_BOS]), st.text(max_size=5))
def test_ids_and_text_are_one_prompt_of_exactly_the_length_asked(load: Load, count: int, vocabulary: Vocabulary, salt: str) -> None:
    for prompt in make_prompts(vocabulary, load, count, salt=salt):
        assert prompt.ids == encoded(vocabulary, prompt)
        assert len(prompt.ids) == prompt.tokens == load.input_tokens


@settings(max_examples=40, deadline=None)
@given(loads, st.sampled_from([KNOWN, None]), st.text(max_size=5), st.integers(0, 20))
def test_a_prompt_depends_on_seed_salt_and_index_alone(load: Load, vocabulary: Vocabulary | None, salt: str, more: int) -> None:
    few = make_prompts(vocabulary, load, 5, salt=salt)
    assert make_prompts(vocabulary, load, 5 + more, salt=salt)[:5] == few
    other_seed = make_prompts(vocabulary, replace(load, seed=load.seed + 1), 5, salt=salt)
    assert not set(other_seed) & set(few) or few[0].tokens < 16
    assert not set(make_prompts(vocabulary, load, 5, salt=salt + "x")) & set(few) or few[0].tokens < 16


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_differ_from_the_first_token_then_the_second(kind: Kind) -> None:
    load = ClosedLoop(input_tokens=2, prompts=kind)
    prompts = make_prompts(KNOWN, load, 1000, salt="")
    assert len({prompt.ids[0] for prompt in prompts[:300] if prompt.ids}) == 300
    assert len({prompt.ids for prompt in prompts}) == 1000


def test_only_ids_when_only_the_engine_knows_the_tokenizer() -> None:
    prompts = make_prompts(IDS_ONLY, ClosedLoop(input_tokens=64), 500, salt="")
    assert all(prompt.text is None and prompt.ids is not None and set(prompt.ids) <= set(PLAIN) for prompt in prompts)
    assert len({prompt.ids[0] for prompt in prompts if prompt.ids}) == 500
    with pytest.raises(UserError, match="exact length need the checkpoint's tokenizer"):
        make_prompts(IDS_ONLY, ClosedLoop(prompts="text"), 1, salt="")


def test_an_unknown_server_gets_words_and_an_estimate() -> None:
    prompts = make_prompts(None, ClosedLoop(input_tokens=100), 50, salt="")
    assert all(prompt.ids is None and prompt.tokens == 100 and prompt.text for prompt in prompts)
    assert {len((prompt.text or "").split()) for prompt in prompts} == {75}
    assert len({(prompt.text or "").split()[0] for prompt in prompts}) == 50


def test_a_tokenizer_that_puts_the_first_space_itself() -> None:
    vocabulary = sentencepiece()
    assert vocabulary.tokenizer is not None
    prompts = make_prompts(vocabulary, ClosedLoop(input_tokens=9), 20, salt="")
    for prompt in prompts:
        assert prompt.text is not None
        assert not prompt.text.startswith(" ")
        assert vocabulary.tokenizer.encode(prompt.text).ids == list(prompt.ids or ())
        assert len(prompt.ids or ()) == 9


def test_a_tokenizer_whose_words_do_not_stand_alone_yields_ids_only() -> None:
    across = ["▁", "a", "b", "▁a", "▁b", "▁a▁b"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(across)}, [("▁", "a"), ("▁", "b"), ("▁a", "▁b")]))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    prompts = make_prompts(Vocabulary(tuple(range(6)), (), tokenizer), ClosedLoop(input_tokens=8), 4, salt="")
    assert all(prompt.text is None and prompt.ids is not None and len(prompt.ids) == 8 for prompt in prompts)


def test_a_tokenizer_without_words_yields_ids_only() -> None:
    letters = Tokenizer(models.BPE({letter: i for i, letter in enumerate("abcdef")}, []))
    prompts = make_prompts(Vocabulary(tuple(range(6)), (), letters), ClosedLoop(input_tokens=8), 4, salt="")
    assert all(prompt.text is None and prompt.ids is not None and len(prompt.ids) == 8 for prompt in prompts)


def test_a_prefix_that_fills_the_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="is too short"):
        make_prompts(WITH_BOS, ClosedLoop(input_tokens=1), 1, salt="")


def test_text_is_what_people_wrote_in_whole_passages_none_twice() -> None:
    vocabulary = sentencepiece("".join(map(chr, range(33, 127))))
    for known in (KNOWN, vocabulary, None):
        (prompt,) = make_prompts(known, ClosedLoop(input_tokens=3000, prompts="text"), 1, salt="")
        text = prompt.text or ""
        found = [passage for passage in passages() if passage in text]
        assert sum(map(len, found)) > 0.8 * len(text)  # all but the opening words, the last passage, which is cut, and the filling
        assert all(text.count(passage) == 1 for passage in found)
        assert known is None or ids_of(prompt) == encoded(known, prompt)


def test_text_longer_than_there_is_begins_again() -> None:
    (prompt,) = make_prompts(None, ClosedLoop(input_tokens=60_000, prompts="text"), 1, salt="")
    assert len((prompt.text or "").split()) == 45_000
    assert all((prompt.text or "").count(passage) >= 2 for passage in passages())


def test_what_is_drawn_is_always_the_same() -> None:
    """A change of these is a change of every published prompt; numpy and the seed promise that they stay."""
    (prompt,) = make_prompts(None, ClosedLoop(input_tokens=8), 1, salt="")
    assert prompt.text == "box press seem than but paper"


groups = st.builds(
    ClosedLoop,
    input_tokens=st.integers(40, 90),
    prefix_groups=st.integers(1, 5),
    prefix_tokens=st.integers(2, 39),
    prefix_cache=st.just("allowed"),
    prompts=st.sampled_from(KINDS),
)


@settings(max_examples=40, deadline=None)
@given(groups, st.sampled_from([KNOWN, WITH_BOS]))
def test_a_prefix_is_shared_within_its_group_and_nothing_else_is(load: Load, vocabulary: Vocabulary) -> None:
    prompts = make_prompts(vocabulary, load, 12, salt="")
    bos = len(vocabulary.prefix_ids)
    for i, left in enumerate(prompts):
        assert left.ids == encoded(vocabulary, left)
        assert len(ids_of(left)) == left.tokens == load.input_tokens
        for j, right in enumerate(prompts[:i]):
            together = (i - j) % load.prefix_groups == 0
            assert shared(left, right) == (load.prefix_tokens if together else bos)


def shared(left: Prompt, right: Prompt) -> int:
    pairs = zip(ids_of(left), ids_of(right), strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(left.tokens, right.tokens))


def test_a_prefix_is_shared_in_words_where_the_tokenizer_is_unknown() -> None:
    load = ClosedLoop(input_tokens=40, prefix_groups=2, prefix_tokens=20, prefix_cache="allowed")
    texts = [(prompt.text or "").split() for prompt in make_prompts(None, load, 4, salt="", scale=TextScale(1.0, 10.0))]
    assert {len(text) for text in texts} == {30}
    assert texts[0][:10] == texts[2][:10]
    assert texts[0][10] != texts[2][10]
    assert texts[0][0] != texts[1][0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_chat_template_adds_takes_from_the_text(kind: Kind) -> None:
    load = ClosedLoop(input_tokens=40, turns=2, prompts=kind, api="chat", prefix_cache="allowed")
    bare, chat = (make_prompts(WITH_BOS, load, 4, salt="", scale=scale) for scale in (TextScale(), TextScale(overhead=9.0)))
    assert [prompt.tokens for prompt in chat] == [40] * 4, "as the server counts"
    assert [len(ids_of(b)) - len(ids_of(c)) for b, c in zip(bare, chat, strict=True)] == [9, 0, 9, 0], "once for each conversation"
    (short,) = make_prompts(WITH_BOS, replace(load, input_tokens=5, turns=1), 1, salt="", scale=TextScale(overhead=9.0))
    assert len(ids_of(short)) == len(WITH_BOS.prefix_ids) + 1, "no room for it: one word, and the verdict on lengths"


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_is_turns_of_new_text_of_which_the_first_is_due(kind: Kind) -> None:
    load = OpenLoop(input_tokens=20, turns=3, prompts=kind, rate=2.0, arrivals="constant", prefix_cache="allowed")
    prompts = make_prompts(WITH_BOS, load, 8, salt="")
    assert [(p.conversation, p.turn) for p in prompts] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert [p.due_s for p in prompts] == [0.0, None, None, 0.5, None, None, 1.0, None]
    assert all(p.ids == encoded(WITH_BOS, p) and len(p.ids) == 20 for p in prompts)
    assert len({p.text for p in prompts}) == 8


def test_a_single_request_is_no_conversation() -> None:
    assert {(p.conversation, p.turn, p.due_s) for p in make_prompts(KNOWN, ClosedLoop(), 4, salt="")} == {(-1, 0, None)}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.text(max_size=5))
def test_lengths_and_due_times_are_the_same_for_every_salt(seed: int, salt: str) -> None:
    load = OpenLoop(input_tokens="uniform(20,60)", output_tokens="lognormal(40,0.5)", rate=3.0, seed=seed)
    asked = [(p.tokens, p.output_tokens, p.due_s) for p in make_prompts(KNOWN, load, 20, salt=salt)]
    assert asked == [(p.tokens, p.output_tokens, p.due_s) for p in make_prompts(None, load, 30, salt="other")][:20]
    assert all(p.ids is not None and len(p.ids) == p.tokens for p in make_prompts(KNOWN, load, 20, salt=salt))
    assert asked != [(p.tokens, p.output_tokens, p.due_s) for p in make_prompts(KNOWN, replace(load, seed=seed + 1), 20, salt=salt)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_long_prompts_take_no_time_worth_waiting_for(kind: Kind) -> None:
    start = time.process_time()
    make_prompts(KNOWN, ClosedLoop(input_tokens=4096, prompts=kind), 1000, salt="")
    assert time.process_time() - start < 10  # about 1 s
