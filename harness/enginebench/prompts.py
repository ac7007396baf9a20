"""Prompts of an exact length, reproducible, and different from their first token on, so that no prefix cache helps.

A prompt is a row of words whose token ids are known beforehand. Byte-level BPE splits text before each space, and
SentencePiece does not learn tokens that span one, so the ids of a row are the ids of its words: exact prompts of any length
without encoding them. That is not taken on trust: a tokenizer for which it does not hold yields ids only. It knows no engine
and no chat template.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from enginebench.checkpoints.vocabulary import Vocabulary
from enginebench.checkpoints.words import WORDS
from enginebench.errors import UserError
from enginebench.nouns import Load


@dataclass(frozen=True)
class TextScale:
    """How a server whose tokenizer is unknown counts text: tokens = overhead + tokens_per_word * words.

    The default is English text in the large tokenizers of today, roughly. `fit` takes it from the server's own counts.
    """

    tokens_per_word: float = 4 / 3
    overhead: float = 0.0
    """Tokens that the server adds to every prompt: a BOS, a chat template."""

    def words(self, tokens: int) -> int:
        """Number of words that come nearest to this many tokens, at least one."""
        return max(1, round((tokens - self.overhead) / self.tokens_per_word))

    @classmethod
    def fit(cls, few: tuple[int, int], many: tuple[int, int]) -> TextScale:
        """The line through two (words, counted tokens) of different lengths."""
        slope = (many[1] - few[1]) / (many[0] - few[0])
        return cls(slope, few[1] - slope * few[0]) if slope > 0 else cls()


_WORD_TOKEN = re.compile("[Ġ▁]([a-z]+)")
_SENTENCE = 12
"""About every so many words of text end a sentence."""


@dataclass(frozen=True)
class Prompt:
    """tokens: how many the engine should count. ids and text are the same prompt; ids include what the engine puts before text.

    ids None: the tokenizer is unknown, and tokens is an estimate. text None: no text is known that yields these ids.
    """

    ids: tuple[int, ...] | None
    text: str | None
    tokens: int


def make_prompts(vocabulary: Vocabulary | None, load: Load, count: int, *, salt: str, scale: TextScale | None = None) -> list[Prompt]:
    """`count` prompts of load.input_tokens; prompt i depends on (load.seed, salt, i) and the vocabulary alone.

    scale is used only where the tokenizer is unknown.

    'random' draws single tokens uniformly: word beginnings where a tokenizer can confirm them, else any plain token. 'text'
    draws common English words and full stops. The first tokens are all different while the supply lasts, then the first two.
    """
    pool = _word_pool(load.prompts, vocabulary)
    prefix = vocabulary.prefix_ids if vocabulary else ()
    length = load.input_tokens - len(prefix)
    if length < 1:
        raise UserError(f"input_tokens {load.input_tokens} leaves no room after the {len(prefix)} that the tokenizer adds itself")
    if pool.ids is None:
        length = (scale or TextScale()).words(length)
    stream = _stream(load.seed, salt)
    first, second = (_shuffled(pool.singles, stream) for _ in range(2))
    prompts = []
    for index in range(count):
        lap, place = divmod(index, len(first))
        opening = [first[place], second[(place + lap) % len(second)]][:length]
        rest = _fill(pool, length - len(opening), stream.random_raw(length))
        prompts.append(_spell(pool, prefix, [*opening, *rest], load.input_tokens))
    return prompts


@dataclass(frozen=True)
class _Pool:
    """Words to draw from, each with its token ids. words None: no text is known; ids None: no tokenizer is known.

    singles: indices of words that are one token. lead: what stands before the first word of a text.
    """

    words: Sequence[str] | None
    ids: Sequence[tuple[int, ...]] | None
    sizes: npt.NDArray[np.int64]
    singles: npt.NDArray[np.int64]
    lead: str = ""


@lru_cache(maxsize=4)  # confirming 20,000 words takes half a second, and every load of a deployment asks for them
def _word_pool(kind: Literal["random", "text"], vocabulary: Vocabulary | None) -> _Pool:
    text_words = [*WORDS, *(f"{word}." for index, word in enumerate(WORDS) if index % _SENTENCE == 0)]
    if vocabulary is None:
        return _Pool(WORDS, None, np.ones(len(WORDS), np.int64), np.arange(len(WORDS)))
    if vocabulary.tokenizer is not None:
        pool = _confirmed(vocabulary.tokenizer, text_words if kind == "text" else _single_words(vocabulary))
        if pool is not None:
            return pool
    if kind == "text":
        raise UserError("text prompts of an exact length need the checkpoint's tokenizer, which is unknown", advice="write prompts: random")
    ids = [(token,) for token in vocabulary.plain_ids]
    return _Pool(None, ids, np.ones(len(ids), np.int64), np.arange(len(ids)))


def _single_words(vocabulary: Vocabulary) -> list[str]:
    """Plain tokens that begin a word of lower-case letters."""
    spelled = (vocabulary.tokenizer.id_to_token(token) or "" for token in vocabulary.plain_ids) if vocabulary.tokenizer else ()
    return [found[1] for token in spelled if (found := _WORD_TOKEN.fullmatch(token))]


def _confirmed(tokenizer: Tokenizer, words: list[str]) -> _Pool | None:
    """The words with the ids that they have inside a text, or None if they have none of their own or too few are one token.

    The shuffled list, there and back, is encoded as one text; that must equal the words encoded one by one. SentencePiece
    adds the first space itself, so a text that begins with one is tried first, then a text without.
    """
    there = _shuffled(np.arange(len(words)), _stream(0, "confirm"))
    order = there + there[::-1]
    for lead in (" ", ""):
        ids = [tuple(encoding.ids) for encoding in tokenizer.encode_batch([lead + word for word in words], add_special_tokens=False)]
        together = tokenizer.encode(lead + " ".join(words[i] for i in order), add_special_tokens=False).ids
        sizes = np.array([len(word) for word in ids], np.int64)
        singles = np.flatnonzero(sizes == 1)
        if len(singles) > 1 and together == list(chain.from_iterable(ids[i] for i in order)):
            return _Pool(words, ids, sizes, singles, lead)
    return None


def _fill(pool: _Pool, tokens: int, raw: npt.NDArray[np.uint64]) -> list[int]:
    """Words of exactly `tokens` tokens: as many drawn ones as fit, then single-token words for the remainder."""
    drawn = (raw[:tokens] % np.uint64(len(pool.sizes))).astype(np.int64)
    ends = np.cumsum(pool.sizes[drawn])
    fitting = int(np.searchsorted(ends, tokens, side="right"))
    gap = tokens - (int(ends[fitting - 1]) if fitting else 0)
    fill = pool.singles[(raw[:gap] % np.uint64(len(pool.singles))).astype(np.int64)]
    return [*drawn[:fitting].tolist(), *fill.tolist()]


def _spell(pool: _Pool, prefix: tuple[int, ...], chosen: list[int], tokens: int) -> Prompt:
    ids = None if pool.ids is None else (*prefix, *chain.from_iterable(map(pool.ids.__getitem__, chosen)))
    text = None if pool.words is None else pool.lead + " ".join(map(pool.words.__getitem__, chosen))
    return Prompt(ids, text, tokens)


def _stream(seed: int, salt: str) -> np.random.PCG64:
    """Raw bits only: numpy promises that stream for ever, so a prompt stays the same prompt after an upgrade."""
    return np.random.PCG64(int.from_bytes(hashlib.sha256(f"{seed}/{salt}".encode()).digest()))


def _shuffled(values: npt.NDArray[np.int64], stream: np.random.PCG64) -> list[int]:
    order: list[int] = values[np.argsort(stream.random_raw(len(values)), kind="stable")].tolist()
    return order
