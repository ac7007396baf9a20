"""A mixture-of-experts model with random weights, defined by a dozen numbers: no download, any size, identical on every machine.

The weights are a pure function of (seed, tensor name). Each is a small integer times a power of two with at most eight significant bits, so
float32, float16 and bfloat16 hold *exactly* the same model, and engines can be compared token by token. Its text is meaningless, and its
routing is far more uniform than that of a trained model, so it must not be used to judge expert caches. Does not know: file formats
(`gguf_file`, `hf_folder`), families (`families`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from enginebench.checkpoints.families import FAMILIES, Family, Geometry, Tensor
from enginebench.checkpoints.families.base import Array, Problem
from enginebench.checkpoints.tokenizer import byte_alphabet, word_tokenizer
from enginebench.errors import UserError, did_you_mean

SCHEME = "random:"
BLOCK = 32
"""Weights per quantisation block; every row length must be a multiple of it."""
_ROWS = frozenset(("hidden", "expert_intermediate", "head_dim", "dense_intermediate", "q_lora_rank", "kv_lora_rank", "rope_head_dim"))
"""Numbers that are row lengths."""
_COMMON = frozenset(f.name for f in fields(Geometry) if f.default is not None) - {"architecture"} | {"vocabulary", "distinct_layers"}
"""Numbers that every family has."""

TABLES = ("token_embd.weight", "output.weight")
"""Tensors with a row for each token of the vocabulary."""

_LANE = np.float32(4.0)
"""Value of residual lane 0. Every embedding sets it and no layer writes to it, so it is a constant input of the output layer."""
_NEVER = np.float32(-64.0)
"""Output weight of that lane for tokens that must not be generated; acts as a logit bias far below every other logit."""
_INT8_STD = 73.9
"""Standard deviation of a uniform int8."""


@dataclass(frozen=True)
class RandomMoE(Geometry):
    """A decoder of one of FAMILIES: `layers` blocks of attention and `experts` experts, `top_k` of them per token.

    Omitted numbers get the family's defaults. Numbers that the family does not have are an error.
    """

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem is None:
            for name, value in self.family.choices(self).items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, value)
            problem = self.family.problem(self)
        if problem:
            name, message = problem
            advice = f"for example {SCHEME}qwen3moe?layers=4&experts=16&top_k=4"
            raise UserError(f"invalid random model: {message}", key=name, advice=advice)

    @property
    def family(self) -> Family:
        return FAMILIES[self.architecture]

    def _problem(self) -> Problem | None:
        if self.architecture not in FAMILIES:
            return "architecture", f"unknown architecture '{self.architecture}'; known: {', '.join(sorted(FAMILIES))}"
        if foreign := [name for name, _ in self._numbers() if name not in (*_COMMON, *self.family.choices(self))]:
            return foreign[0], f"{self.architecture} has no {foreign[0]}"
        for name, value in self._numbers():
            if value < (0 if name in ("seed", "dense_layers", "shared_experts") else 1):
                return name, f"{name} must be positive, not {value}"
            if name in _ROWS and value % BLOCK:
                return name, f"{name} must be a multiple of {BLOCK}, not {value}"
        if self.heads % self.kv_heads:
            return "heads", f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
        if self.top_k > self.experts:
            return "top_k", f"top_k ({self.top_k}) is more than experts ({self.experts})"
        if self.vocabulary is not None and self.vocabulary < (tokens := len(word_tokenizer().tokens)):
            return "vocabulary", f"vocabulary ({self.vocabulary}) is less than the {tokens} tokens of the tokenizer"
        if self.distinct_layers is not None and self.distinct_layers > self.layers:
            return "distinct_layers", f"distinct_layers ({self.distinct_layers}) is more than layers ({self.layers})"
        return None

    def _numbers(self) -> Iterator[tuple[str, int]]:
        given = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "architecture")
        return ((name, value) for name, value in given if value is not None)

    def reference(self) -> str:
        """The canonical `random:` reference. It states every number, so it does not depend on defaults."""
        return f"{SCHEME}{self.architecture}?" + "&".join(f"{name}={value}" for name, value in sorted(self._numbers()))

    @classmethod
    def from_reference(cls, reference: str) -> RandomMoE:
        """Parse `random:ARCHITECTURE?name=number&...`. Omitted numbers keep their defaults. UserError if it is invalid."""
        architecture, _, query = reference.removeprefix(SCHEME).partition("?")
        known = {f.name for f in fields(cls)} - {"architecture"}
        numbers: dict[str, int] = {}
        for name, text in parse_qsl(query, keep_blank_values=True):
            if name not in known:
                raise UserError(f"'{reference}': a random model has no '{name}'", advice=did_you_mean(name, known))
            if not text.isdecimal():
                raise UserError(f"'{reference}': {name} must be a whole number, not '{text}'", advice=f"write {name}=16")
            numbers[name] = int(text)
        return cls(architecture, **numbers)

    @property
    def parameters(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """All tensors in file order; shapes are (out, in), experts stacked in front."""
        vocabulary = self.vocabulary or len(word_tokenizer().tokens)
        return [
            Tensor("token_embd.weight", (vocabulary, self.hidden), gain=math.sqrt(self.hidden)),
            Tensor("output_norm.weight", (self.hidden,)),
            Tensor("output.weight", (vocabulary, self.hidden), gain=4.0),
            *(tensor for layer in range(self.layers) for tensor in self.block(layer).values()),
        ]

    def block(self, layer: int) -> dict[str, Tensor]:
        return {tensor.name: replace(tensor, name=f"blk.{layer}.{tensor.name}") for tensor in self.family.block(self, layer)}

    def source(self, name: str) -> str:
        """The name of the tensor whose weights this one has: its own, or that of the same tensor of a distinct layer."""
        if self.distinct_layers is None or not name.startswith("blk."):
            return name
        _, layer, rest = name.split(".", 2)
        return f"blk.{int(layer) % self.distinct_layers}.{rest}"

    def raw(self, name: str, count: int) -> npt.NDArray[np.uint8]:
        """Random bytes for a tensor, the same for the tensors of layers that have the same weights."""
        return self._bytes(self.source(name), count).view(np.uint8)

    def weights(self, tensor: Tensor) -> Array:
        """The values of one tensor, C-contiguous, exact in float32, float16 and bfloat16."""
        if tensor.gain is None:
            return np.ones(tensor.shape, np.float32)
        if tensor.name not in TABLES:
            return self._matrix(tensor)
        known, row = self.table(tensor)
        more = tensor.shape[0] - len(known)
        return np.concatenate([known, np.repeat(row, more, axis=0)]) if more else known

    def table(self, tensor: Tensor) -> tuple[Array, Array]:
        """Of the embedding or the head: the rows of the tokenizer's tokens, and [1, hidden] that all further tokens share. The head's keeps
        them from being made."""
        known = replace(tensor, shape=(len(word_tokenizer().tokens), self.hidden))
        row = np.zeros((1, self.hidden), np.float32)
        head = tensor.name == "output.weight"
        row[0, 0] = _NEVER if head else _LANE
        return self._output_weights(known) if head else self._matrix(known), row

    def _matrix(self, tensor: Tensor) -> Array:
        inputs = 1 if tensor.vector else tensor.shape[-1]
        exponent = round(math.log2(_INT8_STD * math.sqrt(inputs) / (tensor.gain or 1.0)))
        values = self._bytes(self.source(tensor.name), math.prod(tensor.shape)).astype(np.float32).reshape(tensor.shape)
        values *= np.float32(2.0**-exponent)
        if tensor.name == "token_embd.weight":
            values[:, 0] = _LANE
        elif tensor.writes_residual:
            values[(..., 0) if tensor.vector else (..., 0, slice(None))] = 0
        return values

    def _output_weights(self, tensor: Tensor) -> Array:
        """Make two successors likely for each token, and let the layers decide between them.

        Each half of row j is the embedding of a token that j follows. With plain random rows the best of a thousand logits is often a near
        tie, which engines with other arithmetic decide differently; between two candidates a near tie is rare. Each half follows its own
        cycle through all printable tokens, so text does not fall into a short loop.
        """
        embedding, _ = self.table(self.tensors()[0])
        scale = np.float32(2.0 ** -round(math.log2(math.sqrt(self.hidden) / (tensor.gain or 1.0))))
        printable = np.flatnonzero(_printable())
        values = np.zeros(tensor.shape, np.float32)
        half = self.hidden // 2
        for number, lanes in enumerate((slice(0, half), slice(half, None))):
            ring = printable[np.argsort(self._bytes(f"ring{number}", 8 * len(printable)).view("<u8"), kind="stable")]
            values[ring, lanes] = embedding[np.roll(ring, 1), lanes] * scale
        values[:, 0] = np.where(_printable(), np.float32(0), _NEVER)
        return values

    def _bytes(self, name: str, count: int) -> npt.NDArray[np.int8]:
        """Uniform in -128..127. Uses random_raw, the only stream that numpy guarantees not to change."""
        key = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        raw = np.random.PCG64(int.from_bytes(key)).random_raw(-(-count // 8))
        return raw.astype("<u8", copy=False).view(np.int8)[:count]


@cache
def _printable() -> npt.NDArray[np.bool_]:
    """Tokens that may be generated: only printable ASCII, so that every token is one stream event and none ends the text."""
    tokenizer = word_tokenizer()
    ascii_ = {byte_alphabet()[byte] for byte in range(0x20, 0x7F)}
    return np.array([token not in tokenizer.control and ascii_.issuperset(token) for token in tokenizer.tokens])
