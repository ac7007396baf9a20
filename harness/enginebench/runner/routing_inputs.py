"""What is sent to count routing: kinds of input that differ as traffic does, each as sequences of one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from enginebench.checkpoints import Vocabulary, read_vocabulary
from enginebench.domain import ClosedLoop
from enginebench.errors import UserError
from enginebench.workload import make_prompts
from enginebench.workload.draws import stream
from enginebench.workload.texts import TEXTS, pieces, raw_pieces

RANDOM = "random"
INPUTS = (*TEXTS, RANDOM)
"""The kinds that need no file: natural text, code, and token ids drawn one by one."""
Sent: TypeAlias = list[int] | str
"""Token ids; or text, which the engine encodes and cuts to length, where only it has the tokenizer."""


@dataclass(frozen=True)
class Asked:
    inputs: tuple[str, ...]
    """Of INPUTS, or data sets as in a load."""
    requests: int
    """Sequences of each kind."""
    input_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise UserError("the kinds of input must be different, at least one", key="inputs", advice=f"known: {', '.join(INPUTS)}")
        for each in self.inputs:
            if each not in INPUTS and ":" not in each:
                data = "or a data set: jsonl:FILE, sharegpt:FILE, hf:ORG/NAME"
                raise UserError(f"unknown kind of input '{each}'", key="inputs", advice=f"known: {', '.join(INPUTS)}, {data}")

    @property
    def text(self) -> str:
        """'16 x 128 + 64 tokens each of text, code, random'."""
        return f"{self.requests} x {self.input_tokens} + {self.output_tokens} tokens each of {', '.join(self.inputs)}"


def prompts_of(asked: Asked, checkpoint: Path) -> list[tuple[str, Sent]]:
    """Kind and prompt of every sequence. UserError for an unknown kind, and for a data set whose prompts cannot be encoded here."""
    vocabulary = read_vocabulary(checkpoint)
    return [(kind, prompt) for kind in asked.inputs for prompt in _of_kind(kind, asked, vocabulary)]


def _of_kind(kind: str, asked: Asked, vocabulary: Vocabulary) -> Sequence[Sent]:
    if kind == RANDOM:
        return _random(asked, vocabulary)
    if kind in TEXTS:
        return _pieces(kind, asked, vocabulary)
    load = ClosedLoop(input_tokens=asked.input_tokens, output_tokens=asked.output_tokens, requests=asked.requests, prompts=kind)
    found = make_prompts(vocabulary, load, asked.requests, salt="routing")
    if any(prompt.ids is None for prompt in found):
        raise UserError(
            f"{kind}: the checkpoint's tokenizer is not known here, so its prompts have no ids", advice="use --inputs text,code"
        )
    return [list(prompt.ids or ()) for prompt in found]


def _random(asked: Asked, vocabulary: Vocabulary) -> Sequence[Sent]:
    plain, length = np.array(vocabulary.plain_ids), asked.input_tokens - len(vocabulary.prefix_ids)
    bits = stream(0, "routing")
    drawn = (plain[(bits.random_raw(length) % np.uint64(len(plain))).astype(np.int64)] for _ in range(asked.requests))
    return [[*vocabulary.prefix_ids, *map(int, ids)] for ids in drawn]


def _pieces(kind: str, asked: Asked, vocabulary: Vocabulary) -> Sequence[Sent]:
    tokenizer, prefix = vocabulary.tokenizer, vocabulary.prefix_ids
    if tokenizer is None:
        return raw_pieces(kind, asked.requests, asked.input_tokens)

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return [[*prefix, *ids] for ids in pieces(kind, asked.requests, asked.input_tokens - len(prefix), encode)]
