"""The dimensions of a transformer (layers, attention, experts) and the number of weights per role.

Text models only: vision towers and layers for multi-token prediction are not part of a `Model`. Does not know: precisions, files, devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal, TypeAlias


class Role(StrEnum):
    """The role of a weight. It determines how the weight is split over devices, stored, and how often it is read."""

    EMBEDDING = "embedding"
    """The input table. Only one row per token is read."""
    HEAD = "head"
    ATTENTION = "attention"
    """Weights of query heads: queries and output."""
    KEYS = "keys and values"
    """Weights of key-value heads; replicated if there are more ranks than such heads."""
    LATENT = "latent"
    """Down-projections of multi-head latent attention; replicated on every rank."""
    DENSE = "dense MLP"
    SHARED = "shared experts"
    EXPERT = "routed experts"
    ROUTER = "router"
    NORM = "norms"
    OTHER = "other"
    """In the file, but not used to decode text: a vision tower, layers for multi-token prediction."""


Tables: TypeAlias = Literal["both", "head", "none"]
"""Vocabulary tables included in a number of active weights: input and head, only the head, or neither. A tied table counts once."""

FFN = frozenset({Role.DENSE, Role.SHARED, Role.EXPERT})


@dataclass(frozen=True)
class Part:
    role: Role
    layer: int
    """-1: before the first layer; the number of layers: after the last."""
    params: int


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
    bias: bool = False
    output_bias: bool = False
    sinks: bool = False
    norm: int = 0
    """Weights of the norms of queries and keys."""

    def attended(self, context: float) -> float:
        """Tokens of a context that a new token attends to."""
        return context if self.window is None else min(context, self.window)

    @property
    def elements(self) -> int:
        """Elements per token in the KV cache of this layer: K and V of every KV head, or one latent and its rotated key."""
        return self.latent + self.rope_dim if self.latent else self.kv_heads * (self.key_dim + self.value_dim)

    @property
    def decode_flops(self) -> int:
        """Operations per attended token when one token is decoded: scores and weighted sum, 2 each. Latents are not expanded."""
        width = 2 * self.latent + self.rope_dim if self.latent else self.key_dim + self.value_dim
        return 2 * self.heads * width

    @property
    def prefill_flops(self) -> int:
        """Like decode_flops, for a prompt, where latents are expanded."""
        return 2 * self.heads * (self.key_dim + self.value_dim)

    def parts(self, hidden: int, layer: int) -> Iterator[Part]:
        output = self.heads * self.value_dim * hidden + self.output_bias * hidden
        sinks = self.heads * self.sinks
        if self.latent:
            queries = self.heads * self.key_dim * (self.query_latent or hidden)
            expansion = self.heads * (self.key_dim - self.rope_dim + self.value_dim) * self.latent
            yield Part(Role.ATTENTION, layer, queries + expansion + output + sinks)
            yield Part(Role.LATENT, layer, hidden * (self.query_latent + self.latent + self.rope_dim))
            yield Part(Role.NORM, layer, self.query_latent + self.latent + self.norm)
            return
        yield Part(Role.ATTENTION, layer, self.heads * self.key_dim * (hidden + self.bias) + output + sinks)
        yield Part(Role.KEYS, layer, self.kv_heads * (self.key_dim + self.value_dim) * (hidden + self.bias))
        if self.norm:
            yield Part(Role.NORM, layer, self.norm)


@dataclass(frozen=True)
class Experts:
    """The routed experts of a layer, `top_k` of which a token uses, and the shared experts."""

    count: int
    top_k: int
    width: int
    shared: int = 0
    """Width of the MLP of all shared experts."""
    shared_gate: bool = False
    bias: bool = False
    router_bias: bool = False

    def one(self, hidden: int) -> int:
        """Weights of one routed expert: gate, up and down."""
        return 3 * hidden * self.width + self.bias * (2 * self.width + hidden)

    def parts(self, hidden: int, layer: int) -> Iterator[Part]:
        yield Part(Role.EXPERT, layer, self.count * self.one(hidden))
        yield Part(Role.ROUTER, layer, self.count * (hidden + self.router_bias) + hidden * self.shared_gate)
        if self.shared:
            yield Part(Role.SHARED, layer, 3 * hidden * self.shared)


@dataclass(frozen=True)
class Layer:
    """One block: attention, and experts or a dense MLP of width `dense`."""

    attention: Attention
    experts: Experts | None = None
    dense: int = 0

    def parts(self, hidden: int, layer: int) -> Iterator[Part]:
        """The weights of the block, including its two norms."""
        yield from self.attention.parts(hidden, layer)
        yield Part(Role.NORM, layer, 2 * hidden)
        if self.experts:
            yield from self.experts.parts(hidden, layer)
        if self.dense:
            yield Part(Role.DENSE, layer, 3 * hidden * self.dense)


@dataclass(frozen=True)
class Model:
    name: str
    hidden: int
    vocab: int
    tied: bool
    """The head is the embedding table, which is stored once."""
    max_context: int
    """Tokens, as published."""
    layers: tuple[Layer, ...]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All weights, computed from the dimensions."""
        last = len(self.layers)
        table = self.vocab * self.hidden
        out = [Part(Role.EMBEDDING, -1, table)]
        for i, layer in enumerate(self.layers):
            out += layer.parts(self.hidden, i)
        out.append(Part(Role.NORM, last, self.hidden))
        if not self.tied:
            out.append(Part(Role.HEAD, last, table))
        return tuple(out)

    @property
    def params(self) -> int:
        """Number of weights, including embedding and head."""
        return sum(part.params for part in self.parts)

    @property
    def experts(self) -> Experts | None:
        """The experts of the first layer that has any; None for a dense model."""
        return next((layer.experts for layer in self.layers if layer.experts), None)

    @property
    def moe_layers(self) -> int:
        return sum(layer.experts is not None for layer in self.layers)

    def active(self, tables: Tables) -> int:
        """Weights that one decoded token uses, with top_k of the routed experts. tables: vocabulary tables to include."""
        counted = {"both": {Role.EMBEDDING, Role.HEAD}, "head": {Role.EMBEDDING if self.tied else Role.HEAD}, "none": set()}[tables]
        total = 0
        for part in self.parts:
            experts = self.layers[part.layer].experts if part.role == Role.EXPERT else None
            if experts:
                total += experts.top_k * experts.one(self.hidden)
            elif part.role in counted or part.role not in (Role.EMBEDDING, Role.HEAD):
                total += part.params
        return total

    def cache_elements(self, context: float) -> float:
        """Elements in the KV cache of one sequence of `context` tokens, over all layers."""
        return sum(layer.attention.elements * layer.attention.attended(context) for layer in self.layers)
