"""Prompts of an exact length, reproducible, and different from their first token on, so that no prefix cache helps.

Only prefix groups and the blocks of a trace share text. Does not know engines or chat templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, cast

import numpy as np

from enginebench.checkpoints.vocabulary import Vocabulary
from enginebench.dialects import Form
from enginebench.domain import Load, TraceReplay
from enginebench.errors import UserError
from enginebench.workload.draws import shuffled, stream
from enginebench.workload.outlines import Outline, Waiting, outlines
from enginebench.workload.pools import Indices, Pool, pool_of
from enginebench.workload.traces import read_trace


@dataclass(frozen=True)
class TextScale:
    """How a server counts text: tokens = overhead + tokens_per_word * words. With a known tokenizer, words are tokens.

    The default is roughly that of English text in large tokenizers. `fit` derives it from the server's own counts.
    """

    tokens_per_word: float = 4 / 3
    overhead: float = 0.0
    """Tokens that the server adds to every prompt, such as a BOS or a chat template."""

    def words(self, tokens: int) -> int:
        """The number of words closest to this many tokens, at least one."""
        return max(1, round((tokens - self.overhead) / self.tokens_per_word))

    def tokens(self, words: int) -> int:
        return max(1, round(self.overhead + self.tokens_per_word * words))

    @classmethod
    def fit(cls, few: tuple[int, int], many: tuple[int, int]) -> TextScale:
        """The line through two (words, counted tokens) of different lengths."""
        slope = (many[1] - few[1]) / (many[0] - few[0])
        return cls(slope, few[1] - slope * few[0]) if slope > 0 else cls()


@dataclass(frozen=True)
class Prompt:
    """One request. `ids` and `text` are the same prompt; of a later turn of a conversation, only the user's new text."""

    ids: tuple[int, ...] | None
    """Token ids, with those that the engine adds before a text; None: the tokenizer is unknown, and `tokens` is an estimate."""
    text: str | None
    """None: no text with these ids is known."""
    tokens: int
    """The number that the engine should count."""
    output_tokens: int
    due_s: float | None = None
    """When the request is due, from the start of the load; None in a closed loop and for a later turn of a conversation."""
    conversation: int = -1
    turn: int = 0
    system: str | None = None
    """The system message before it, for the chat route; its tokens count."""
    waiting: Waiting | None = None
    """What a request of a recorded session waits for, which is more than the turn before it."""
    images: tuple[str, ...] = ()
    """PNGs in base64, sent with the text; their tokens are not in `tokens`."""
    abort_s: float = 0.0
    """When the client ends the request, after sending it; 0: never."""
    messages: str = ""
    """JSON of all its messages, which a templated route is sent as they are; empty: they follow from the other fields."""
    form: Form | None = None
    """Tools and form of the answer of a recorded request; None: those of the load."""
    label: str = ""
    """Class of a request in a mixed load."""


class Prompts(list[Prompt]):
    """The requests of a load."""

    notes: tuple[str, ...] = ()
    """What a reader must know of the file that they come from, one sentence each."""


def drawn_prompts(vocabulary: Vocabulary | None, load: Load, count: int, *, salt: str, scale: TextScale, base: Path) -> list[Prompt]:
    """The first `count` prompts of a load with 'random' or 'text'. Prompt i depends on (load, salt, i) and the vocabulary alone.

    The first tokens are all different as long as there are single-token words left, then the first two together.
    """
    kind = cast("Literal['random', 'text']", load.prompts)
    writer = _Writer(pool_of(kind, vocabulary), vocabulary.prefix_ids if vocabulary else (), scale, load.seed, salt)
    prompts = Prompts(writer.prompt(outline) for outline in outlines(load, count, base))
    if load.system_tokens:
        said = writer.system(load.system_tokens)
        first = (place for place, prompt in enumerate(prompts) if prompt.turn == 0)
        for place in first:
            prompts[place] = replace(prompts[place], system=said, tokens=prompts[place].tokens + load.system_tokens)
    prompts.notes = tuple(read_trace(load.trace, base, load.time_unit).notes) if isinstance(load, TraceReplay) else ()
    return prompts


class _Writer:
    def __init__(self, pool: Pool, prefix: tuple[int, ...], scale: TextScale, seed: int, salt: str) -> None:
        self.pool, self.prefix, self.scale, self.seed, self.salt = pool, prefix, scale, seed, salt
        bits = stream(seed, salt)
        self.first, self.second = (shuffled(pool.singles, bits) for _ in range(2))

    def prompt(self, outline: Outline) -> Prompt:
        prefix = self.prefix if outline.whole else ()
        lengths = [tokens for _, tokens in outline.segments]
        units = self._units(lengths, len(prefix), round(self.scale.overhead) if outline.whole else 0)
        words = [self._segment(number, size) for (number, _), size in zip(outline.segments, units, strict=True)]
        ids, text = self.pool.spell(np.concatenate(words))
        ids = None if ids is None else prefix + ids
        return Prompt(
            ids, text, sum(lengths), outline.output_tokens, outline.due_s, outline.conversation, outline.turn, waiting=outline.waiting
        )

    def system(self, tokens: int) -> str | None:
        """A system message of so many tokens."""
        units = tokens if self.pool.ids is not None else max(1, round(tokens / self.scale.tokens_per_word))
        return self.pool.spell(self.pool.row(units, stream(self.seed, f"{self.salt}/system")))[1]

    def _units(self, lengths: Sequence[int], prefix: int, overhead: int) -> list[int]:
        """Tokens of each segment, or words if no tokenizer is known; tokens before the text are subtracted from the first ones."""
        if self.pool.ids is None:
            ends = [0, *(self.scale.words(end) for end in accumulate(lengths))]
            return [max(1, end - start) for start, end in pairwise(ends)]
        if sum(lengths) <= prefix:
            raise UserError(f"input_tokens {sum(lengths)} is too short: the tokenizer adds {prefix} of its own")
        cut, units = prefix + overhead, []
        for length in lengths:  # a short block of a trace may be shorter than what a chat template adds
            units.append(max(0, length - cut))
            cut = max(0, cut - length)
        return units if any(units) else [*units[:-1], 1]

    def _segment(self, number: int, units: int) -> Indices:
        lap, place = divmod(number, len(self.first))
        opening = [self.first[place], self.second[(place + lap) % len(self.second)]][:units]
        rest = self.pool.row(units - len(opening), stream(self.seed, f"{self.salt}#{number}"))
        return np.concatenate((np.array(opening), rest))
