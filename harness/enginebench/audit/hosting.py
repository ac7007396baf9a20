"""Which weights of a claim are in host memory: what its options or its words state, else as few as possible."""

from __future__ import annotations

from enginebench.audit.claims import Serving
from enginebench.physics.machine import GB, Machine
from enginebench.physics.placement import placement_of
from enginebench.physics.weights import Offload, Weights, split


def offload_of(claim: Serving, weights: Weights, machine: Machine) -> Offload:
    """A stated size on the devices comes first, then the options; else the devices are full."""
    room = machine.count * machine.device.memory
    return _by_options(claim, weights) or _most_kept(weights, claim.device_gb * GB if claim.device_gb else room)


def _by_options(claim: Serving, weights: Weights) -> Offload | None:
    """What llama.cpp's options say of the experts."""
    placed = placement_of(claim.options)
    if isinstance(placed, str) or claim.device_gb or placed.expert_layers == 0:
        return None
    return Offload(expert_layers=len(weights.model.layers) if placed.expert_layers is None else placed.expert_layers)


def _most_kept(weights: Weights, room: float) -> Offload:
    """The least offload that fits into `room` bytes: experts first; whole layers if all experts on the host are not enough."""
    experts = weights.model.experts
    kept = [Offload(kept=count) for count in range(experts.count, -1, -1)] if experts else []
    blocks = [Offload(blocks=count) for count in range(len(weights.model.layers) + 1)]
    return next((each for each in (*kept, *blocks) if split(weights, each)[0].bytes <= room), blocks[-1])
