"""Prompts of exactly the length asked for, reproducible, and different from their first token on, so that no prefix cache helps.

What is shared is shared on purpose: prefix groups and the blocks of a trace. Knows no engine and no chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, cast

import numpy as np

from enginebench.checkpoints.vocabulary import Vocabulary
from enginebench.domain import Load
from enginebench.errors import UserError
from enginebench.workload.draws import shuffled, stream
from enginebench.workload.outlines import Outline, outlines
from enginebench.workload.pools import Indices, Pool, pool_of


@dataclass(frozen=True)
class TextScale:
    """How a server counts text: tokens = overhead + tokens_per_word * words. Where its tokenizer is known, tokens take the place of words.

    The default is English text in the large tokenizers of today, roughly. `fit` takes it from the server's own counts.
    """

    tokens_per_word: float = 4 / 3
    overhead: float = 0.0
    """Tokens that the server adds to every prompt: a BOS, a chat template."""

    def words(self, tokens: int) -> int:
        """Number of words that come nearest to this many tokens, at least one."""
        return max(1, round((tokens - self.overhead) / self.tokens_per_word))

    def tokens(self, words: int) -> int:
        """About how many tokens so many words are, at least one."""
        return max(1, round(self.overhead + self.tokens_per_word * words))

    @classmethod
    def fit(cls, few: tuple[int, int], many: tuple[int, int]) -> TextScale:
        """The line through two (words, counted tokens) of different lengths."""
        slope = (many[1] - few[1]) / (many[0] - few[0])
        return cls(slope, few[1] - slope * few[0]) if slope > 0 else cls()


@dataclass(frozen=True)
class Prompt:
    """tokens: how many the engine should count. ids and text are the same prompt; ids include what the engine puts before text.

    ids None: the tokenizer is unknown, and tokens is an estimate. text None: no text is known that yields these ids.
    output_tokens: how many to generate. due_s: when it is due, in s from the start of the load; None: in a closed loop, and for a
    later turn of a conversation, whose prompt here is only what the user says next.
    """

    ids: tuple[int, ...] | None
    text: str | None
    tokens: int
    output_tokens: int
    due_s: float | None = None
    conversation: int = -1
    turn: int = 0


def drawn_prompts(vocabulary: Vocabulary | None, load: Load, count: int, *, salt: str, scale: TextScale, base: Path) -> list[Prompt]:
    """The first `count` prompts of a load of 'random' or 'text': prompt i depends on (load, salt, i) and the vocabulary alone.

    The first tokens are all different while the supply of single-token words lasts, then the first two.
    """
    kind = cast("Literal['random', 'text']", load.prompts)
    writer = _Writer(pool_of(kind, vocabulary), vocabulary.prefix_ids if vocabulary else (), scale, load.seed, salt)
    return [writer.prompt(outline) for outline in outlines(load, count, base)]


class _Writer:
    """Finds the words of outlines."""

    def __init__(self, pool: Pool, prefix: tuple[int, ...], scale: TextScale, seed: int, salt: str) -> None:
        self.pool, self.prefix, self.scale, self.seed, self.salt = pool, prefix, scale, seed, salt
        bits = stream(seed, salt)
        self.first, self.second = (shuffled(pool.singles, bits) for _ in range(2))

    def prompt(self, outline: Outline) -> Prompt:
        prefix = () if outline.turn else self.prefix
        lengths = [tokens for _, tokens in outline.segments]
        units = self._units(lengths, len(prefix), 0 if outline.turn else round(self.scale.overhead))
        words = [self._segment(number, size) for (number, _), size in zip(outline.segments, units, strict=True)]
        ids, text = self.pool.spell(np.concatenate(words))
        ids = None if ids is None else prefix + ids
        return Prompt(ids, text, sum(lengths), outline.output_tokens, outline.due_s, outline.conversation, outline.turn)

    def _units(self, lengths: Sequence[int], prefix: int, overhead: int) -> list[int]:
        """Tokens of words in each segment, or words where no tokenizer is known; what is put before the text takes from the first."""
        if self.pool.ids is None:
            ends = [0, *(self.scale.words(end) for end in accumulate(lengths))]
            return [max(1, end - start) for start, end in pairwise(ends)]
        if lengths[0] <= prefix:
            raise UserError(f"input_tokens {lengths[0]} leaves no room after the {prefix} that the tokenizer adds itself")
        return [max(1, lengths[0] - prefix - overhead), *lengths[1:]]

    def _segment(self, number: int, units: int) -> Indices:
        lap, place = divmod(number, len(self.first))
        opening = [self.first[place], self.second[(place + lap) % len(self.second)]][:units]
        rest = self.pool.row(units - len(opening), stream(self.seed, f"{self.salt}#{number}"))
        return np.concatenate((np.array(opening), rest))
