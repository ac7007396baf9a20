"""Texts that ship with the project: real language and real code, in pieces of an exact number of tokens."""

from __future__ import annotations

import ast

import pytest
from enginebench.workload.texts import TEXTS, code, natural, piece, pieces, raw_pieces


def words(text: str) -> list[int]:
    """A tokenizer: one id for each word."""
    return [len(word) for word in text.split()]


def test_the_text_is_a_novel_and_the_code_is_python() -> None:
    assert natural().startswith("Alice was beginning to get very tired of sitting by her sister on the bank")
    assert len(natural()) > 140_000
    assert "gutenberg" not in natural().lower()
    ast.parse(code())
    assert len(code()) > 500_000
    assert '"""Two long texts that ship with the project' in code()


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(("count", "tokens"), [(1, 7), (16, 128), (300, 200)])
def test_pieces_have_the_tokens_asked_for_and_differ(kind: str, count: int, tokens: int) -> None:
    found = pieces(kind, count, tokens, words)
    assert [len(each) for each in found] == [tokens] * count
    assert len(set(found)) > 0.9 * count


def test_a_piece_longer_than_the_text_starts_again() -> None:
    text = "one two\nthree four\n"
    assert piece(text, 0, 2, 30) == (text + text)[:30]
    assert piece(text, 1, 3, 15) == "three four\none "
    assert [len(each) for each in raw_pieces("code", 3, 50)] == [400] * 3  # 8 characters for each token: more than any text has on average
