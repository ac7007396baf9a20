"""What a layer does between tokens: attention with its KV cache, or a recurrence with a state of constant size.

Knows the weights, the bytes that a sequence keeps and that a step reads, and the operations. Does not know: MLPs, experts, devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from enginebench.physics.parts import Part, Role


def capped(context: float, most: float, spread: float = 0.0) -> float:
    """The smaller of `context` and `most`; the mean of that over contexts from context - spread to context + spread, as an output grows."""
    first, last = context - spread, context + spread
    if most >= last or most <= first:
        return min(context, most)
    return ((most**2 - first**2) / 2 + most * (last - most)) / (2 * spread)


@dataclass(frozen=True)
class Selection:
    """Sparse attention: an indexer scores cached tokens, or summaries of several tokens each, and a new token attends to the best."""

    tokens: int | None
    """Most entries that are attended to; None: all."""
    heads: int = 0
    dim: int = 0
    """Width of the key that the indexer caches per entry; 0: no indexer."""
    every: int = 1
    """Tokens per entry."""
    pool: int = 1
    """Entries whose keys the indexer keeps and scores as one."""

    def entries(self, context: float) -> float:
        return context / self.every

    def attended(self, context: float, spread: float = 0.0) -> float:
        return self.entries(context) if self.tokens is None else capped(self.entries(context), self.tokens, self.entries(spread))


@dataclass(frozen=True)
class Attention:
    heads: int
    kv_heads: int
    """Nominal for multi-head latent attention."""
    key_dim: int
    """Width of a head, as is value_dim."""
    value_dim: int
    latent: int = 0
    """Width of the compressed keys and values of multi-head latent attention; 0: not compressed."""
    rope_dim: int = 0
    """Width of the rotated key that all heads share in multi-head latent attention."""
    query_latent: int = 0
    """Width of compressed queries."""
    window: int | None = None
    """Most tokens that a token attends to; None: no limit."""
    keeps_all: bool = False
    """Tokens of the prompt stay in the cache, and visible, beside the window. A bound leaves them out of what is read."""
    bias: bool = False
    output_bias: bool = False
    sinks: bool = False
    norm: int = 0
    """Weights of the norms of queries and keys."""
    selection: Selection | None = None
    """Attention to chosen tokens, instead of all (or besides those in the window)."""
    extra: int = 0
    """Further weights that are split by heads: a gate of the output."""
    copied: int = 0
    """Further weights that every rank has: an indexer, the summaries of tokens."""
    output_latent: tuple[int, int] | None = None
    """Groups of heads and width per group of a low-rank output projection."""
    one_projection: bool = False
    """Values are computed by the projection of the keys."""
    one_cache: bool = False
    """Keys are cached and used as values too."""
    convolved: int = 0
    """Elements that short convolutions of its keys, values or output keep of the last tokens of a sequence."""
    routed: bool = False
    """Queries and output are projected by experts, which are not counted here."""
    borrowed: bool = False
    """Keys and values are those of an earlier layer: no weights and no cache of its own, but for an indexer."""

    def attended(self, context: float, spread: float = 0.0) -> float:
        """Tokens of a context that a new token attends to; the mean over contexts from context - spread to context + spread."""
        return self._near(context, spread) + (self.selection.attended(context, spread) if self.selection else 0.0)

    def _near(self, context: float, spread: float = 0.0) -> float:
        if self.window is None:
            return 0.0 if self.selection else context
        return capped(context, self.window, spread)

    @property
    def elements(self) -> int:
        """Elements per token in the KV cache of this layer: K and V of every KV head, or one latent and its rotated key."""
        values = 0 if self.one_cache else self.value_dim
        return self.latent + self.rope_dim if self.latent else self.kv_heads * (self.key_dim + values)

    def _scored(self, context: float) -> float:
        """Elements that the indexer keeps, and reads for each token."""
        return self.selection.dim * self.selection.entries(context) / self.selection.pool if self.selection else 0.0

    def cached(self, context: float) -> float:
        """Elements that a sequence of `context` tokens keeps."""
        if self.borrowed:
            return self._scored(context)
        entries = self.selection.entries(context) if self.selection else 0.0
        near = context if self.keeps_all else self._near(context)
        return self.elements * (near + entries) + self._scored(context)

    def kept(self, context: float, kv_bits: float) -> float:
        """Bytes that a sequence of `context` tokens keeps in memory."""
        return self.cached(context) * kv_bits / 8 + self.convolved * 2

    def read(self, context: float, tokens: float, kv_bits: float, *, prompt: bool, spread: float = 0.0) -> float:
        """Bytes that a step of `tokens` tokens reads and writes. Keys and values of a prompt are written once, and read on chip."""
        attended = 0.0 if prompt else self.elements * self.attended(context, spread) + self._scored(context)
        return (attended + self.elements * tokens * (not self.borrowed)) * kv_bits / 8

    def decode_flops(self, context: float, spread: float = 0.0) -> float:
        """Operations of one decoded token: scores and weighted sum, 2 each per attended token. Latents are not expanded."""
        width = 2 * self.latent + self.rope_dim if self.latent else self.key_dim + self.value_dim
        scoring = self.selection.heads * self._scored(context) if self.selection else 0.0
        return 2 * (self.heads * width * self.attended(context, spread) + scoring)

    def prefill_flops(self, context: float) -> float:
        """Mean operations of a token of a prompt, which attends to half of it. Latents are expanded."""
        attended = self.attended(context)
        return 2 * self.heads * (self.key_dim + self.value_dim) * attended * (1 - min(1.0, attended / context) / 2)

    @property
    def width(self) -> int:
        """Activations per token."""
        return self.heads * (self.key_dim + self.value_dim) + 2 * self.elements

    def _output(self, hidden: int) -> int:
        width = self.heads * self.value_dim
        if self.output_latent is None:
            return width * hidden + self.output_bias * hidden
        groups, rank = self.output_latent
        return rank * (width + groups * hidden)

    def parts(self, hidden: int, layer: int) -> Iterator[Part]:
        queries = 0 if self.routed else self.heads * self.key_dim * (self.query_latent or hidden) + self._output(hidden)
        own = queries + self.heads * self.sinks + self.extra
        if self.latent:
            expansion = self.heads * (self.key_dim - self.rope_dim + self.value_dim) * self.latent
            yield Part(Role.ATTENTION, layer, own + expansion)
            keys = 0 if self.borrowed else self.latent + self.rope_dim
            yield Part(Role.LATENT, layer, hidden * (self.query_latent + keys) + self.copied)
            yield Part(Role.NORM, layer, self.query_latent + self.latent * (not self.borrowed) + self.norm)
            return
        yield Part(Role.ATTENTION, layer, own + self.heads * self.key_dim * self.bias)
        if not self.borrowed:
            values = 0 if self.one_projection else self.value_dim
            yield Part(Role.KEYS, layer, self.kv_heads * (self.key_dim + values) * (hidden + self.bias))
        if self.copied or self.query_latent:
            yield Part(Role.LATENT, layer, hidden * self.query_latent + self.copied)
        if self.norm or self.query_latent:
            yield Part(Role.NORM, layer, self.norm + self.query_latent)


@dataclass(frozen=True)
class Recurrence:
    """A layer that keeps a state of constant size per sequence: Mamba, linear attention, a short convolution."""

    kind: str
    heads: int
    """Equal shares into which its weights and state can be divided."""
    weights: int
    norm: int
    state: int
    """Elements of the recurrent state of a sequence."""
    convolved: int
    """Elements that its convolutions keep of the last tokens of a sequence."""
    width: int
    """Activations per token."""
    state_bits: float = 16
    latent: int = 0
    """As in `Attention`; always 0."""

    @property
    def kv_heads(self) -> int:
        return self.heads

    def cached(self, context: float) -> float:
        """No elements of a KV cache."""
        return 0.0

    def kept(self, context: float, kv_bits: float) -> float:
        """Bytes that a sequence keeps in memory, whatever its length. A KV cache in fewer bits does not change them."""
        return (self.state * self.state_bits + self.convolved * 16) / 8

    def read(self, context: float, tokens: float, kv_bits: float, *, prompt: bool, spread: float = 0.0) -> float:
        """Bytes that a step reads: the state, which stays on chip during a prompt. Writing it back is not counted."""
        return self.kept(context, kv_bits)

    def decode_flops(self, context: float, spread: float = 0.0) -> float:
        """Operations of one token: the state is decayed and added to, multiplied and summed."""
        return 4.0 * self.state

    prefill_flops = decode_flops

    def parts(self, hidden: int, layer: int) -> Iterator[Part]:
        yield Part(Role.RECURRENT, layer, self.weights)
        if self.norm:
            yield Part(Role.NORM, layer, self.norm)


Mixer: TypeAlias = Attention | Recurrence
