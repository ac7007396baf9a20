"""A claim as settings of the roofline: its weights on its machine, spread as it says, or in every usual way if it does not say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from enginebench.audit.claims import Serving
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.machine import GB, Machine
from enginebench.physics.memory import Fit, Reserve, fit
from enginebench.physics.placement import placement_of
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import problem
from enginebench.physics.weights import Weights

KV_LEAST = 4.5
"""Bits per element of a KV cache whose type is not stated: llama.cpp's q4_0 and TensorRT-LLM's nvfp4, the fewest that servers offer."""
_ROUNDED = 0.03
"""Relative difference of a stated bandwidth from the catalogue's that is rounding: 800 for 819 GB/s."""


def settings_of(claim: Serving, weights: Weights, machine: Machine) -> Sequence[Setting]:
    """Tensor parallelism over all devices first, if the claim states no parallelism; then every other usual way that fits.

    UserError if the engine's options make the bytes or the steps of a token unknown.
    """
    placed = placement_of(claim.options)
    if isinstance(placed, str):
        raise UserError(placed, key="options")
    if placed.speculative:
        raise UserError("speculative decoding, and the acceptance rate is unknown")
    machine = _as_stated(machine, claim.bandwidth_gb_s)
    stated = Parallelism(claim.tp, claim.pp, claim.dp_replicas, claim.attention_dp, claim.ep)
    ways = list(_ways(weights, machine.count)) if stated == Parallelism() and claim.copies == 1 else []
    least = None if placed.kv_stated else KV_LEAST
    redundant = claim.redundant_experts or placed.redundant
    found = [Setting(weights, machine, each, placed.kv_bits, least, redundant=redundant) for each in ways or [stated]]
    return [found[0], *(each for each in found[1:] if fitted(each, 1).max_concurrency)]


def _as_stated(machine: Machine, bandwidth_gb_s: float | None) -> Machine:
    """With the bandwidth that a claim states, if it is that of the catalogue but for rounding; `judge` reports any other."""
    stated = (bandwidth_gb_s or 0.0) * GB
    return machine.with_bandwidth(stated) if abs(stated / machine.device.bandwidth - 1) <= _ROUNDED else machine


def _ways(weights: Weights, devices: int) -> Iterator[Parallelism]:
    """Replicas of tensor parallelism, with and without data-parallel attention and expert parallelism."""
    for tp in (devices, *(n for n in (8, 4, 2, 1) if n < devices and devices % n == 0)):
        for attention_dp, ep in itertools.product(sorted({1, tp}), sorted({1, tp}) if weights.model.experts else [1]):
            way = Parallelism(tp=tp, dp_replicas=devices // tp, attention_dp=attention_dp, ep=ep)
            if problem(weights.model, way) is None:
                yield way


def fitted(setting: Setting, context: int) -> Fit:
    """Whether requests fit if only weights and KV cache take memory, in the fewest bits that it may have, and all memory can be used."""
    machine = replace(setting.machine, device=replace(setting.machine.device, usable_share=1.0))
    return fit(
        setting.weights, machine, setting.parallelism, context=context, concurrency=1, kv_bits=setting.favoured.kv_read,
        reserve=Reserve(runtime=0.0, chunk=0), redundant=setting.redundant,
    )  # fmt: skip


def held(claim: Serving) -> tuple[float, float]:
    """Length of a sequence halfway through its output, in tokens, and how far it lies from that; 0 if the prompt length is not stated."""
    output = (claim.osl or 0) / 2
    return (claim.isl + output, output) if claim.isl is not None else (0.0, 0.0)
