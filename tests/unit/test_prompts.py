"""Prompts are exact, reproducible and share no beginning; ids and text are the same prompt."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import pytest
from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.checkpoints.vocabulary import Vocabulary, is_plain
from enginebench.errors import UserError
from enginebench.nouns import Load
from enginebench.prompts import make_prompts
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

PLAIN = tuple(i for i, token in enumerate(word_tokenizer().tokens) if token not in word_tokenizer().control and is_plain(token))
KNOWN = Vocabulary(PLAIN, (), word_tokenizer().tokenizer())
IDS_ONLY = Vocabulary(PLAIN)
WITH_BOS = replace(KNOWN, prefix_ids=(1021,))
Kind = Literal["random", "text"]
KINDS: tuple[Kind, ...] = ("random", "text")

loads = st.builds(Load, input_tokens=st.integers(2, 300), seed=st.integers(0, 9), prompts=st.sampled_from(KINDS))


def sentencepiece() -> Vocabulary:
    """As in Llama 2 and Mixtral: '▁' for a space, one put before the text, and no split before BPE."""
    words = ["the", "cat", "sat"]
    letters = sorted({letter for word in words for letter in word} | {"▁"})
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


@settings(max_examples=60)
@given(loads, st.integers(1, 40), st.sampled_from([KNOWN, WITH_BOS]), st.text(max_size=5))
def test_ids_and_text_are_one_prompt_of_exactly_the_length_asked(load: Load, count: int, vocabulary: Vocabulary, salt: str) -> None:
    for prompt in make_prompts(vocabulary, load, count, salt=salt):
        assert prompt.ids is not None
        assert prompt.text is not None
        assert len(prompt.ids) == prompt.tokens == load.input_tokens
        prefix = len(vocabulary.prefix_ids)
        assert vocabulary.tokenizer is not None
        assert prompt.ids[:prefix] == vocabulary.prefix_ids
        assert vocabulary.tokenizer.encode(prompt.text, add_special_tokens=False).ids == list(prompt.ids[prefix:])


@settings(max_examples=40)
@given(loads, st.sampled_from([KNOWN, None]), st.text(max_size=5), st.integers(0, 20))
def test_a_prompt_depends_on_seed_salt_and_index_alone(load: Load, vocabulary: Vocabulary | None, salt: str, more: int) -> None:
    few = make_prompts(vocabulary, load, 5, salt=salt)
    assert make_prompts(vocabulary, load, 5 + more, salt=salt)[:5] == few
    other_seed = make_prompts(vocabulary, replace(load, seed=load.seed + 1), 5, salt=salt)
    assert not set(other_seed) & set(few) or load.input_tokens < 16
    assert not set(make_prompts(vocabulary, load, 5, salt=salt + "x")) & set(few) or load.input_tokens < 16


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_differ_from_the_first_token_then_the_second(kind: Kind) -> None:
    load = Load(input_tokens=2, prompts=kind)
    prompts = make_prompts(KNOWN, load, 1000, salt="")
    assert len({prompt.ids[0] for prompt in prompts[:300] if prompt.ids}) == 300
    assert len({prompt.ids for prompt in prompts}) == 1000


def test_only_ids_when_only_the_engine_knows_the_tokenizer() -> None:
    prompts = make_prompts(IDS_ONLY, Load(input_tokens=64), 500, salt="")
    assert all(prompt.text is None and prompt.ids is not None and set(prompt.ids) <= set(PLAIN) for prompt in prompts)
    assert len({prompt.ids[0] for prompt in prompts if prompt.ids}) == 500
    with pytest.raises(UserError, match="exact length need the checkpoint's tokenizer"):
        make_prompts(IDS_ONLY, Load(prompts="text"), 1, salt="")


def test_an_unknown_server_gets_words_and_an_estimate() -> None:
    prompts = make_prompts(None, Load(input_tokens=100), 50, salt="")
    assert all(prompt.ids is None and prompt.tokens == 100 and prompt.text for prompt in prompts)
    assert {len((prompt.text or "").split()) for prompt in prompts} == {75}
    assert len({(prompt.text or "").split()[0] for prompt in prompts}) == 50


def test_a_tokenizer_that_puts_the_first_space_itself() -> None:
    vocabulary = sentencepiece()
    assert vocabulary.tokenizer is not None
    prompts = make_prompts(vocabulary, Load(input_tokens=9), 20, salt="")
    for prompt in prompts:
        assert prompt.text is not None
        assert not prompt.text.startswith(" ")
        assert vocabulary.tokenizer.encode(prompt.text).ids == list(prompt.ids or ())
        assert len(prompt.ids or ()) == 9


def test_a_tokenizer_whose_words_do_not_stand_alone_yields_ids_only() -> None:
    across = ["▁", "a", "b", "▁a", "▁b", "▁a▁b"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(across)}, [("▁", "a"), ("▁", "b"), ("▁a", "▁b")]))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    prompts = make_prompts(Vocabulary(tuple(range(6)), (), tokenizer), Load(input_tokens=8), 4, salt="")
    assert all(prompt.text is None and prompt.ids is not None and len(prompt.ids) == 8 for prompt in prompts)


def test_a_prefix_that_fills_the_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="leaves no room"):
        make_prompts(WITH_BOS, Load(input_tokens=1), 1, salt="")


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_long_prompts_take_no_time_worth_waiting_for(kind: Kind) -> None:
    start = time.monotonic()
    make_prompts(KNOWN, Load(input_tokens=4096, prompts=kind), 1000, salt="")
    assert time.monotonic() - start < 10  # about 1 s; a loaded machine is slower
