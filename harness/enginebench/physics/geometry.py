"""The dimensions of a transformer (layers, mixers, experts) and the number of weights per role.

Text models only: vision towers and layers for multi-token prediction are not part of a `Model`. Does not know: precisions, files, devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from enginebench.physics.mixers import Attention, Mixer, Recurrence, Selection
from enginebench.physics.parts import FFN, Part, Role, Tables

__all__ = ["FFN", "Attention", "Experts", "Layer", "Mixer", "Model", "Part", "Recurrence", "Role", "Selection", "Tables"]


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
    matrices: int = 3
    """Of an expert: gate, up and down, or only up and down."""
    router: int | None = None
    """Weights of the router; None: one matrix, with a row per choice."""
    latent: int = 0
    """Width of what experts read and write, if tokens are projected to it and back; 0: that of the model."""
    latent_norms: int = 0
    """Norms as wide as the latent."""
    identities: int = 0
    """Choices of the router that are no experts: they return their input."""

    def one(self, hidden: int) -> int:
        """Weights of one routed expert."""
        hidden = self.latent or hidden
        return self.matrices * hidden * self.width + self.bias * ((self.matrices - 1) * self.width + hidden)

    def parts(self, hidden: int, layer: int) -> Iterator[Part]:
        yield Part(Role.EXPERT, layer, self.count * self.one(hidden))
        choices = self.count + self.identities
        router = choices * (hidden + self.router_bias) if self.router is None else self.router
        yield Part(Role.ROUTER, layer, router + hidden * self.shared_gate)
        if self.shared or self.latent:
            yield Part(Role.SHARED, layer, hidden * (self.matrices * self.shared + 2 * self.latent))
        if self.latent_norms:
            yield Part(Role.NORM, layer, self.latent_norms * self.latent)


@dataclass(frozen=True)
class Layer:
    """One block: a mixer, and experts or a dense MLP of width `dense`, or both; blocks of one of them alone exist too."""

    attention: Mixer | None
    experts: Experts | None = None
    dense: int = 0
    matrices: int = 3
    """Of the dense MLP."""
    dense_bias: bool = False
    norm: int | None = None
    """Weights of its norms and of what mixes residual streams; None: two norms."""
    beside: int = 0
    """Weights of further matrices that every token meets: low-rank paths beside the MLP, gates of embeddings."""
    table: int = 0
    """Weights of a table of its own, of which a token reads a few rows."""
    repeated: bool = False
    """Its weights are those of an earlier layer, which are counted and read there; the cache is its own."""

    def parts(self, hidden: int, layer: int) -> Iterator[Part]:
        """The weights of the block, including its norms."""
        if self.repeated:
            return
        if self.attention:
            yield from self.attention.parts(hidden, layer)
        yield Part(Role.NORM, layer, 2 * hidden if self.norm is None else self.norm)
        if self.experts:
            yield from self.experts.parts(hidden, layer)
        if self.dense:
            bias = self.dense_bias * ((self.matrices - 1) * self.dense + hidden)
            yield Part(Role.DENSE, layer, self.matrices * hidden * self.dense + bias)
        if self.beside:
            yield Part(Role.LATENT, layer, self.beside)
        if self.table:
            yield Part(Role.LOOKUP, layer, self.table)


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
    final_norm: int | None = None
    """Weights after the last layer, without the head; None: one norm."""
    head_bias: bool = False
    head_rows: int | None = None
    """Rows of the head; None: as many as the vocabulary has."""
    table: int = 0
    """Weights of further tables, of which a token reads a few rows."""
    entry: int = 0
    """Weights of matrices before the first layer."""
    notes: tuple[str, ...] = ()
    """What of its description was not certain."""

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All weights, computed from the dimensions."""
        last = len(self.layers)
        table = self.vocab * self.hidden
        out = [Part(Role.EMBEDDING, -1, table)]
        out += [Part(role, -1, size) for role, size in ((Role.LOOKUP, self.table), (Role.LATENT, self.entry)) if size]
        for i, layer in enumerate(self.layers):
            out += layer.parts(self.hidden, i)
        out.append(Part(Role.NORM, last, self.hidden if self.final_norm is None else self.final_norm))
        if not self.tied:
            out.append(Part(Role.HEAD, last, (self.head_rows or self.vocab) * (self.hidden + self.head_bias)))
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

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """Those of the layers that have one."""
        return tuple(layer.attention for layer in self.layers if layer.attention)

    def active(self, tables: Tables) -> int:
        """Weights that one decoded token uses, with top_k of the routed experts. tables: vocabulary tables to include; no lookup tables."""
        counted = {"both": {Role.EMBEDDING, Role.HEAD}, "head": {Role.EMBEDDING if self.tied else Role.HEAD}, "none": set()}[tables]
        total = 0
        for part in self.parts:
            experts = self.layers[part.layer].experts if part.role == Role.EXPERT else None
            if experts:
                total += experts.top_k * experts.one(self.hidden)
            elif part.role in counted or part.role not in (Role.EMBEDDING, Role.HEAD, Role.LOOKUP):
                total += part.params
        return total

    def cache_elements(self, context: float) -> float:
        """Elements in the KV cache of one sequence of `context` tokens, over all layers."""
        return sum(mixer.cached(context) for mixer in self.mixers)

    @property
    def state_bytes(self) -> float:
        """Bytes that a sequence keeps whatever its length, in layers with a state instead of a KV cache."""
        return sum(mixer.kept(0, 16) for mixer in self.mixers if isinstance(mixer, Recurrence))
