"""Two long texts that ship with the project, for passes that need real input but no timing: natural language, and code.

Pieces of them start at evenly spaced places, so that every one differs and none depends on a seed. Does not know loads or prompts of a
load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_BOOK = Path(__file__).parent / "data" / "alice.txt"
_CHARACTERS = 8
"""Of a token, generously: most have 3 to 5."""


@cache
def natural() -> str:
    """Lewis Carroll, Alice's Adventures in Wonderland (1865), in the public domain: 144,000 characters, one line a paragraph."""
    return _BOOK.read_text(encoding="utf-8")


@cache
def code() -> str:
    """This package's own source, file after file: Python with type hints, about a million characters."""
    files = sorted(_PACKAGE.rglob("*.py"))
    return "\n\n".join(f"# {file.relative_to(_PACKAGE).as_posix()}\n{file.read_text(encoding='utf-8')}" for file in files)


TEXTS: dict[str, Callable[[], str]] = {"text": natural, "code": code}


def piece(text: str, number: int, count: int, characters: int) -> str:
    """Piece `number` of `count`, from the start of a line on; a piece that reaches the end continues at the beginning."""
    at = len(text) * number // count
    at = 0 if at == 0 else (text.find("\n", at) + 1) % len(text)
    doubled = text[at : at + characters]
    while len(doubled) < characters:
        doubled += text[: characters - len(doubled)]
    return doubled


def pieces(kind: str, count: int, tokens: int, encode: Callable[[str], Sequence[int]]) -> list[tuple[int, ...]]:
    """`count` pieces of exactly `tokens` tokens of a text: the beginning of what `encode` makes of enough of it."""
    return [_encoded(TEXTS[kind](), number, count, tokens, encode) for number in range(count)]


def raw_pieces(kind: str, count: int, tokens: int) -> list[str]:
    """`count` pieces of more than `tokens` tokens, for an engine that encodes and cuts them itself."""
    return [piece(TEXTS[kind](), number, count, _CHARACTERS * tokens) for number in range(count)]


def _encoded(text: str, number: int, count: int, tokens: int, encode: Callable[[str], Sequence[int]]) -> tuple[int, ...]:
    characters = _CHARACTERS * tokens
    while len(found := encode(piece(text, number, count, characters))) < tokens:
        characters *= 2
    return tuple(found[:tokens])
