"""Weights in host memory, as in llama.cpp, KTransformers and vLLM.

Three kinds: the experts of the first layers (llama.cpp's --n-cpu-moe), all but the most popular experts of every layer, or the first layers
completely (those that -ngl leaves on the CPU). Does not know: bandwidths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from enginebench.physics.geometry import Role
from enginebench.physics.weights import Stored, Weights


@dataclass(frozen=True)
class Offload:
    """Which weights are on the host."""

    expert_layers: int = 0
    """The routed experts of layers 0..n-1 are on the host."""
    kept: int | None = None
    """Number of experts of every other layer, most popular first, that stay on the device; None: all."""
    blocks: int = 0
    """Layers 0..n-1 are completely on the host, with their KV cache."""
    over_link: bool = False
    """Weights on the host are sent to the device for each use; else the host computes with them."""

    @property
    def anything(self) -> bool:
        """Whether any weight is on the host."""
        return bool(self.expert_layers or self.blocks) or self.kept is not None

    def on_device(self, layer: int, experts: int) -> int:
        """Number of a layer's routed experts on the device."""
        if layer < max(self.expert_layers, self.blocks):
            return 0
        return experts if self.kept is None else min(self.kept, experts)

    def device_share(self, part: Stored, experts: int) -> float:
        """Share of a part on the device. experts: number in its layer."""
        if part.role == Role.EXPERT:
            return self.on_device(part.layer, experts) / experts
        return 0.0 if 0 <= part.layer < self.blocks else 1.0


NOTHING = Offload()


def split(weights: Weights, offload: Offload) -> tuple[Weights, Weights]:
    """The weights on the device, and those on the host."""
    if not offload.anything:
        return weights, replace(weights, parts=())
    on_device: list[Stored] = []
    on_host: list[Stored] = []
    for part in weights.parts:
        experts = weights.model.layers[part.layer].experts if part.role == Role.EXPERT else None
        share = offload.device_share(part, experts.count if experts else 1)
        params = round(part.params * share)
        on_device.append(replace(part, params=params, bytes=part.bytes * share))
        on_host.append(replace(part, params=part.params - params, bytes=part.bytes * (1 - share)))
    return replace(weights, parts=tuple(p for p in on_device if p.bytes)), replace(weights, parts=tuple(p for p in on_host if p.bytes))
