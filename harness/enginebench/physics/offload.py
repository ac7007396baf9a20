"""Weights that lie in the host's memory because the device has no room for them, as llama.cpp, KTransformers and vLLM place them.

Three ways: the experts of the first layers (llama.cpp's --n-cpu-moe), all but the most popular experts of every layer, or the first
layers whole (what -ngl leaves on the CPU, for dense models too). Knows no bytes/s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from enginebench.physics.geometry import Role
from enginebench.physics.weights import Stored, Weights


@dataclass(frozen=True)
class Offload:
    """What is on the host.

    expert_layers: the routed experts of the layers 0..n-1. kept: of every other layer, the number of experts, most popular first, that
    stay on the device (None: all). blocks: the layers 0..n-1 whole, with their KV cache. over_link: the host's weights are sent to the
    device when they are needed; else the host computes with them where they lie.
    """

    expert_layers: int = 0
    kept: int | None = None
    blocks: int = 0
    over_link: bool = False

    @property
    def anything(self) -> bool:
        """Whether any weight is on the host."""
        return bool(self.expert_layers or self.blocks) or self.kept is not None

    def on_device(self, layer: int, experts: int) -> int:
        """How many of a layer's routed experts are on the device."""
        if layer < max(self.expert_layers, self.blocks):
            return 0
        return experts if self.kept is None else min(self.kept, experts)

    def device_share(self, part: Stored, experts: int) -> float:
        """Share of a part that is on the device. experts: of its layer."""
        if part.role == Role.EXPERT:
            return self.on_device(part.layer, experts) / experts
        return 0.0 if 0 <= part.layer < self.blocks else 1.0


NOTHING = Offload()


def split(weights: Weights, offload: Offload) -> tuple[Weights, Weights]:
    """The weights on the device and those on the host; together they are the whole."""
    if not offload.anything:
        return weights, replace(weights, parts=())
    here: list[Stored] = []
    there: list[Stored] = []
    for part in weights.parts:
        experts = weights.model.layers[part.layer].experts if part.role == Role.EXPERT else None
        share = offload.device_share(part, experts.count if experts else 1)
        params = round(part.params * share)
        here.append(replace(part, params=params, bytes=part.bytes * share))
        there.append(replace(part, params=part.params - params, bytes=part.bytes * (1 - share)))
    return replace(weights, parts=tuple(p for p in here if p.bytes)), replace(weights, parts=tuple(p for p in there if p.bytes))
