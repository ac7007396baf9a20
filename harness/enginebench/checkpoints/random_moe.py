"""A Mixture-of-Experts model with random weights, defined by a dozen numbers: no download, any size, the same everywhere.

The weights are a pure function of (seed, tensor name). Every one is a small integer times a power of two with at most eight
significant bits, so float32, float16 and bfloat16 hold *exactly* the same model and two engines can be compared token by
token. It knows no file format; `gguf_file` and `hf_folder` write it. Its text means nothing, and its experts are chosen far
more evenly than those of a trained model, so it says nothing about expert caches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from enginebench.checkpoints.tokenizer import byte_alphabet, word_tokenizer
from enginebench.errors import UserError, did_you_mean

Array = npt.NDArray[np.float32]

SCHEME = "random:"
BLOCK = 32
"""Weights per quantisation block: every row length must be a multiple of it."""
RMS_NORM_EPSILON = 1e-6
ROPE_BASE = 1e6

_LANE = np.float32(4.0)
"""Value of residual lane 0, which every embedding sets and no layer writes to: a constant that the output layer can read."""
_NEVER = np.float32(-64.0)
"""Output weight of that lane for tokens that must not be generated: a logit bias far below every other logit."""
_INT8_STD = 73.9
"""Standard deviation of a uniform int8."""


@dataclass(frozen=True)
class Tensor:
    """One tensor under its GGUF name. gain: standard deviation of its output for inputs of variance one; None: all ones."""

    name: str
    shape: tuple[int, ...]
    gain: float | None = None

    @property
    def full_precision(self) -> bool:
        """Norms and the router stay float32 in every GGUF file, as llama.cpp keeps them."""
        return self.gain is None or self.name.endswith("ffn_gate_inp.weight")


@dataclass(frozen=True)
class RandomMoE:
    """A Qwen3-MoE decoder: `layers` blocks of grouped-query attention and `experts` experts, `top_k` of them per token."""

    architecture: str = "qwen3moe"
    layers: int = 2
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    experts: int = 16
    top_k: int = 4
    expert_intermediate: int = 64
    context: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = self._wrong()
        if wrong:
            name, problem = wrong
            raise UserError(
                f"no such random model: {problem}", key=name, advice=f"for example {SCHEME}qwen3moe?layers=4&experts=16&top_k=4"
            )

    def _wrong(self) -> tuple[str, str] | None:
        """The field that is wrong, and what is wrong with it."""
        if self.architecture != "qwen3moe":
            return "architecture", f"architecture '{self.architecture}' is not known; known: qwen3moe"
        for name, value in self._numbers():
            if value < (0 if name == "seed" else 1):
                return name, f"{name} must be positive, not {value}"
        for name, row in (("hidden", self.hidden), ("expert_intermediate", self.expert_intermediate), ("head_dim", self.head_dim)):
            if row % BLOCK:
                return name, f"{name} must be a multiple of {BLOCK}, not {row}"
        if self.heads % self.kv_heads:
            return "heads", f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
        if self.top_k > self.experts:
            return "top_k", f"top_k ({self.top_k}) is more than experts ({self.experts})"
        return None

    def _numbers(self) -> Iterator[tuple[str, int]]:
        return ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "architecture")

    def reference(self) -> str:
        """The canonical `random:` reference: every number in it, so that it means the same if a default ever changes."""
        return f"{SCHEME}{self.architecture}?" + "&".join(f"{name}={value}" for name, value in sorted(self._numbers()))

    @classmethod
    def from_reference(cls, reference: str) -> RandomMoE:
        """Read `random:ARCHITECTURE?name=number&...`; what is left out keeps its default. UserError says what is wrong."""
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
        """Weights in total, norms included."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """All tensors in file order; shapes are (out, in), experts stacked in front."""
        vocabulary, queries, keys = len(word_tokenizer().tokens), self.heads * self.head_dim, self.kv_heads * self.head_dim
        hidden, inner, experts = self.hidden, self.expert_intermediate, self.experts
        out = [
            Tensor("token_embd.weight", (vocabulary, hidden), gain=math.sqrt(hidden)),
            Tensor("output_norm.weight", (hidden,)),
            Tensor("output.weight", (vocabulary, hidden), gain=4.0),
        ]
        for layer in range(self.layers):
            block = f"blk.{layer}."
            out += [
                Tensor(block + "attn_norm.weight", (hidden,)),
                Tensor(block + "attn_q.weight", (queries, hidden), gain=1.0),
                Tensor(block + "attn_q_norm.weight", (self.head_dim,)),
                Tensor(block + "attn_k.weight", (keys, hidden), gain=1.0),
                Tensor(block + "attn_k_norm.weight", (self.head_dim,)),
                Tensor(block + "attn_v.weight", (keys, hidden), gain=1.0),
                # No more than this: with strong attention all contexts look alike and the text becomes one repeated token.
                Tensor(block + "attn_output.weight", (hidden, queries), gain=1.0),
                Tensor(block + "ffn_norm.weight", (hidden,)),
                # A decided router: the last expert chosen has little weight, so a tie that falls the other way in another
                # engine's arithmetic hardly shows.
                Tensor(block + "ffn_gate_inp.weight", (experts, hidden), gain=3.0),
                Tensor(block + "ffn_gate_exps.weight", (experts, inner, hidden), gain=1.0),
                Tensor(block + "ffn_up_exps.weight", (experts, inner, hidden), gain=1.0),
                Tensor(block + "ffn_down_exps.weight", (experts, hidden, inner), gain=2.0),
            ]
        return out

    def weights(self, tensor: Tensor) -> Array:
        """The values of one tensor, C-contiguous; exact in float32, float16 and bfloat16."""
        if tensor.gain is None:
            return np.ones(tensor.shape, np.float32)
        if tensor.name == "output.weight":
            return self._output_weights(tensor)
        exponent = round(math.log2(_INT8_STD * math.sqrt(tensor.shape[-1]) / tensor.gain))
        values = self._bytes(tensor.name, math.prod(tensor.shape)).astype(np.float32).reshape(tensor.shape)
        values *= np.float32(2.0**-exponent)
        if tensor.name == "token_embd.weight":
            values[:, 0] = _LANE
        elif tensor.name.endswith(("attn_output.weight", "ffn_down_exps.weight")):
            values[..., 0, :] = 0
        return values

    def _output_weights(self, tensor: Tensor) -> Array:
        """Make two tokens likely after each token and let the layers decide between them.

        Row j is, in either half of its lanes, the embedding of one token that j follows. Plain random rows would do, but the
        best of a thousand random logits is often a near tie, which other arithmetic decides otherwise; the better of two
        seldom is. Each half follows its own ring through all printable tokens, so text does not fall into a short loop.
        """
        embedding = self.weights(self.tensors()[0])
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
        """Uniform in -128..127. random_raw, because numpy promises its stream for ever, unlike those of the distributions."""
        key = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        raw = np.random.PCG64(int.from_bytes(key)).random_raw(-(-count // 8))
        return raw.astype("<u8", copy=False).view(np.int8)[:count]


@cache
def _printable() -> npt.NDArray[np.bool_]:
    """Which tokens may be generated: printable ASCII only, so that every token is one stream event and none ends the text."""
    tokenizer = word_tokenizer()
    ascii_ = {byte_alphabet()[byte] for byte in range(0x20, 0x7F)}
    return np.array([token not in tokenizer.control and ascii_.issuperset(token) for token in tokenizer.tokens])
