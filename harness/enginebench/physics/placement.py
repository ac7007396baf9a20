"""Where a deployment's weights and cache lie, read from those engine options that adapters call alike.

An option that means the same has the same name in every adapter (`n_cpu_moe`, `gpu_layers`, `kv_type` or `kv_dtype`, `disaggregated`, ...),
so that physics needs no adapter, neither for a plan nor for a stored run. What moves weights in a way that has no neutral description
makes the whole placement unknown. It does not know an engine's defaults beyond those that all share: 16 bits for the cache, every
layer on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enginebench.domain import JSON

KV_BITS: Mapping[str, float] = {
    "auto": 16.0, "f32": 32.0, "f16": 16.0, "bf16": 16.0, "fp8": 8.0, "fp8_e4m3": 8.0, "fp8_e5m2": 8.0, "mxfp8": 8.25,
    "q8_0": 8.5, "q8": 8.5, "q5_1": 6.0, "q5_0": 5.5, "q4_1": 5.0, "q4_0": 4.5, "q4": 4.5, "iq4_nl": 4.5, "nvfp4": 4.5,
    "fp4_mx_block16": 4.5,
}  # fmt: skip
"""Bits of an element of the KV cache, scales included, under the names that engines give its type."""

OPAQUE = ("tensor_overrides", "cpu_offload_gb", "moe_cache_mib", "moe_cpu_experts", "tensor_split", "gpu_split", "also", "extra")
"""Options that place weights, or may, in a way that is not described here."""
DRAFTING = ("speculative", "draft_model", "mtp", "ngram_match")
"""Options that make tokens in a way that no step of the model alone bounds."""


@dataclass(frozen=True)
class Placement:
    """expert_layers: layers whose routed experts are in the host's memory, None: of all. device_layers: layers on the devices, None: all.

    kv_bits: per element of the cache. prefill, decode: servers on each side of a disaggregated deployment; 0 and 1 for a single server.
    drafts: whether tokens are drafted and checked, several in a step.
    """

    kv_bits: float = 16.0
    expert_layers: int | None = 0
    device_layers: int | None = None
    prefill: int = 0
    decode: int = 1
    drafts: bool = False


def placement_of(options: Mapping[str, JSON], kv_dtype: str | None = None) -> Placement | str:
    """What the options of a deployment say, or why they cannot be understood. kv_dtype: what the engine itself says its cache has."""
    hiding = [name for name in OPAQUE if options.get(name)]
    if options.get("kv_offload") is False:
        hiding.append("kv_offload")
    if hiding:
        return f"{hiding[0]} places weights or cache in a way that is not known here"
    kv_bits = _kv_bits(options, kv_dtype)
    if kv_bits is None:
        return "the type of the KV cache is not known here"
    prefill, decode = _sides(options.get("disaggregated"))
    return Placement(
        kv_bits=kv_bits,
        expert_layers=None if options.get("cpu_moe") else next((n for n in _counts(options, "n_cpu_moe", "moe_cpu_layers")), 0),
        device_layers=next((n for n in _counts(options, "gpu_layers")), None),
        prefill=prefill,
        decode=decode,
        drafts=any(options.get(name) for name in DRAFTING),
    )


def _kv_bits(options: Mapping[str, JSON], told: str | None) -> float | None:
    """What the engine says goes before what it was asked for. ExLlamaV3 and MLX count bits, and say 'q4' or '4bit'."""
    if told is not None and told.lower() in KV_BITS:
        return KV_BITS[told.lower()]
    if bits := list(_counts(options, "kv_bits", "k_bits")):
        values = list(_counts(options, "v_bits")) or bits
        return (bits[0] + values[0]) / 2 + 0.5  # both keep a 16-bit scale for 32 elements
    asked = options.get("kv_dtype") or options.get("kv_type") or "auto"
    return KV_BITS.get(str(asked).lower())


def _sides(asked: JSON) -> tuple[int, int]:
    """Prefill and decode servers."""
    if not asked:
        return 0, 1
    sides = asked if isinstance(asked, dict) else {}
    prefill, decode = (number if isinstance(number := sides.get(side, 1), int) else 1 for side in ("prefill", "decode"))
    return prefill, decode


def _counts(options: Mapping[str, JSON], *names: str) -> list[int]:
    """The values of these options that are numbers."""
    return [value for name in names if isinstance(value := options.get(name), int) and not isinstance(value, bool)]
