"""Words with known token ids, from which prompts are made.

Byte-level BPE splits text before each space, and SentencePiece does not learn tokens that span a space. So the ids of a sequence of words
are the ids of its words, and prompts of any exact length need no encoding. This is checked for each tokenizer; where it fails, prompts
have ids only. Does not know loads or prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from enginebench.checkpoints.vocabulary import Vocabulary
from enginebench.checkpoints.words import WORDS
from enginebench.errors import UserError
from enginebench.workload.corpus import passages
from enginebench.workload.draws import order, stream

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Indices = npt.NDArray[np.int64]
_WORD_TOKEN = re.compile("[Ġ▁]([a-z]+)")


@dataclass(frozen=True)
class Pool:
    words: Sequence[str] | None
    """None: no text is known."""
    ids: Sequence[tuple[int, ...]] | None
    """None: no tokenizer is known."""
    sizes: Indices
    """Tokens of each word; 1 without a tokenizer."""
    singles: Indices
    """Indices of words that are one token."""
    lead: str = ""
    """Text before the first word."""
    passages: Sequence[Indices] = ()
    """Sequences of words that are natural text; without them words are drawn one by one."""

    def row(self, units: int, bits: np.random.PCG64) -> Indices:
        """Indices of words that together are exactly `units` tokens (words, if no tokenizer is known).

        As many of the drawn words as fit, then single-token words for the remaining tokens.
        """
        drawn = self._natural(units, bits) if self.passages else self._one_by_one(units, bits)
        ends = np.cumsum(self.sizes[drawn])
        fitting = int(np.searchsorted(ends, units, side="right"))
        gap = units - (int(ends[fitting - 1]) if fitting else 0)
        fill = self.singles[(bits.random_raw(gap) % np.uint64(len(self.singles))).astype(np.int64)]
        return np.concatenate((drawn[:fitting], fill))

    def spell(self, chosen: Indices) -> tuple[tuple[int, ...] | None, str | None]:
        text = None if self.words is None else self.lead + " ".join(self._texts[chosen].tolist())
        if self.ids is None:
            return None, text
        sizes = self.sizes[chosen]
        shift = self._starts[chosen] - (np.cumsum(sizes) - sizes)  # from an index in the sequence to the index in _tokens
        return tuple(self._tokens[np.repeat(shift, sizes) + np.arange(sizes.sum())].tolist()), text

    @cached_property
    def _texts(self) -> npt.NDArray[np.object_]:
        return np.array(self.words, object)

    @cached_property
    def _tokens(self) -> npt.NDArray[np.object_]:
        """The ids of all words in one array; an array of objects, so that a million prompts share them."""
        return np.array(list(chain.from_iterable(self.ids or ())), object)

    @cached_property
    def _starts(self) -> Indices:
        return np.cumsum(self.sizes) - self.sizes

    def _one_by_one(self, units: int, bits: np.random.PCG64) -> Indices:
        return (bits.random_raw(units) % np.uint64(len(self.sizes))).astype(np.int64)

    def _natural(self, units: int, bits: np.random.PCG64) -> Indices:
        """Passages of at least `units` words, none repeated before all have been used."""
        taken: list[Indices] = []
        missing = units
        while missing > 0:
            for place in order(len(self.passages), bits).tolist():
                taken.append(self.passages[place])
                missing -= len(self.passages[place])
                if missing <= 0:
                    break
        return np.concatenate(taken) if taken else np.empty(0, np.int64)


@lru_cache(maxsize=4)  # confirming 20,000 words takes half a second, and every load of a deployment needs them
def pool_of(kind: Literal["random", "text"], vocabulary: Vocabulary | None) -> Pool:
    """random: single tokens, which begin words if a tokenizer can confirm them. text: natural passages.

    Without a vocabulary both are words of unknown length. UserError for text if no tokenizer can confirm its length.
    """
    return _natural_words(vocabulary) if kind == "text" else _single_tokens(vocabulary)


def _single_tokens(vocabulary: Vocabulary | None) -> Pool:
    if vocabulary is None:
        return _unconfirmed(WORDS)
    if vocabulary.tokenizer is not None:
        spelled = (vocabulary.tokenizer.id_to_token(token) or "" for token in vocabulary.plain_ids)
        pool = _confirmed(vocabulary.tokenizer, [found[1] for token in spelled if (found := _WORD_TOKEN.fullmatch(token))])
        if pool is not None:
            return pool
    ids = [(token,) for token in vocabulary.plain_ids]
    return Pool(None, ids, np.ones(len(ids), np.int64), np.arange(len(ids)))


def _natural_words(vocabulary: Vocabulary | None) -> Pool:
    written = [passage.split() for passage in passages()]
    words = list(dict.fromkeys(chain(*written, WORDS)))
    places = {word: place for place, word in enumerate(words)}
    runs = [np.array([places[word] for word in passage]) for passage in written]
    if vocabulary is None:
        return replace(_unconfirmed(words), passages=runs)
    tokenizer = vocabulary.tokenizer
    if tokenizer is not None and (pool := _confirmed(tokenizer, words)) is not None and pool.ids is not None:
        plain = frozenset(vocabulary.plain_ids)
        known = np.array([plain.issuperset(ids) for ids in pool.ids])  # an unknown word becomes <unk>
        runs, singles = [run for run in runs if known[run].all()], pool.singles[known[pool.singles]]
        if runs and len(singles) > 1 and _hold(tokenizer, pool, np.concatenate(runs)):
            return replace(pool, passages=runs, singles=singles)
    raise UserError(
        "text prompts of an exact length need the checkpoint's tokenizer, and its tokens must not span words",
        advice="write prompts: random",
    )


def _unconfirmed(words: Sequence[str]) -> Pool:
    return Pool(words, None, np.ones(len(words), np.int64), np.flatnonzero([word.isalpha() for word in words]))


def _confirmed(tokenizer: Tokenizer, words: Sequence[str]) -> Pool | None:
    """The words with the ids that they have inside a text; None if ids depend on the context, or too few words are one token.

    The shuffled list, forwards and backwards, is encoded as one text. That must equal the words encoded one by one. SentencePiece
    adds the first space itself, so a text with a leading space is tried first, then one without.
    """
    there = order(len(words), stream(0, "confirm"))
    for lead in (" ", ""):
        ids = [tuple(encoding.ids) for encoding in tokenizer.encode_batch([lead + word for word in words], add_special_tokens=False)]
        sizes = np.array([len(word) for word in ids], np.int64)
        singles = np.flatnonzero((sizes == 1) & np.array([word.isalpha() for word in words], bool))
        pool = Pool(words, ids, sizes, singles, lead)
        if len(singles) > 1 and _hold(tokenizer, pool, np.concatenate((there, there[::-1]))):
            return pool
    return None


def _hold(tokenizer: Tokenizer, pool: Pool, chosen: Indices) -> bool:
    """Whether a sequence of words, encoded as one text, has the ids of its words."""
    ids, text = pool.spell(chosen)
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids) == ids
