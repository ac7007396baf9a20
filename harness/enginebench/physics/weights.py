"""A model's weights with their sizes in bytes, computed from a precision (or a file: `files`), and which are in host memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from enginebench.physics.geometry import Model, Role
from enginebench.physics.precision import Precision, precision


@dataclass(frozen=True)
class Stored:
    """Weights of one role in one layer, with their size in bytes."""

    role: Role
    layer: int
    params: int
    bytes: float


@dataclass(frozen=True, eq=False)
class Weights:
    model: Model
    precision: Precision
    parts: tuple[Stored, ...]
    source: str
    notes: tuple[str, ...] = ()
    """Remarks on the sizes, for the user."""
    nominal: bool = False
    """The sizes follow from the precision's name; else they are those of a file."""

    @cached_property
    def bytes(self) -> float:
        return sum(part.bytes for part in self.parts)

    def of(self, *roles: Role) -> float:
        return sum(part.bytes for part in self.parts if part.role in roles)


def weigh(model: Model, kind: Precision | str) -> Weights:
    """The sizes in a precision ('fp8', 'q4_k_m', ...), from its bits per weight of each role."""
    kind = precision(kind) if isinstance(kind, str) else kind
    bits = {**kind.bits, Role.EMBEDDING: kind.bits[Role.HEAD if model.tied else Role.EMBEDDING]}  # a tied table is stored once, as the head
    parts = tuple(Stored(part.role, part.layer, part.params, part.params * bits[part.role] / 8) for part in model.parts)
    return Weights(model, kind, parts, f"dimensions x bits of {kind.name}", model.notes, nominal=True)


@dataclass(frozen=True)
class Offload:
    """Which weights are in host memory, as in llama.cpp, KTransformers and vLLM."""

    expert_layers: int = 0
    """The routed experts of layers 0..n-1 are on the host (llama.cpp's --n-cpu-moe)."""
    kept: int | None = None
    """Number of experts of every other layer, most popular first, that stay on the device; None: all."""
    blocks: int = 0
    """Layers 0..n-1 are completely on the host, with their KV cache (those that -ngl leaves on the CPU)."""
    over_link: bool = False
    """Weights on the host are sent to the device for each use; else the host computes with them."""

    @property
    def anything(self) -> bool:
        return bool(self.expert_layers or self.blocks) or self.kept is not None

    def on_device(self, layer: int, experts: int) -> int:
        """Number of a layer's routed experts on the device."""
        if layer < max(self.expert_layers, self.blocks):
            return 0
        return experts if self.kept is None else min(self.kept, experts)


NOTHING = Offload()


def split(weights: Weights, offload: Offload) -> tuple[Weights, Weights]:
    if not offload.anything:
        return weights, replace(weights, parts=())
    on_device: list[Stored] = []
    on_host: list[Stored] = []
    for part in weights.parts:
        experts = weights.model.layers[part.layer].experts if part.role == Role.EXPERT else None
        share = offload.on_device(part.layer, experts.count) / experts.count if experts else float(not 0 <= part.layer < offload.blocks)
        params = round(part.params * share)
        on_device.append(replace(part, params=params, bytes=part.bytes * share))
        on_host.append(replace(part, params=part.params - params, bytes=part.bytes * (1 - share)))
    return replace(weights, parts=tuple(p for p in on_device if p.bytes)), replace(weights, parts=tuple(p for p in on_host if p.bytes))
