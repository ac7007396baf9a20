"""Determines the placement of weights and KV cache from engine options.

Options with the same meaning have the same name in every adapter (`n_cpu_moe`, `gpu_layers`, `kv_type` or `kv_dtype`, `disaggregated`,
...), so no adapter is needed, neither for a plan nor for a stored run. An option that moves weights in another way makes the placement
unknown. Assumed defaults: a 16-bit KV cache, all layers on the device.
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
"""Bits per element of the KV cache, including scales, by the engines' names of its type."""

UNSUPPORTED = ("tensor_overrides", "cpu_offload_gb", "moe_cache_mib", "moe_cpu_experts", "tensor_split", "gpu_split", "also", "extra")
"""Options that may place weights in a way that `Placement` cannot describe."""
GGUF_ENGINES = frozenset({"llamacpp", "llama.cpp", "ollama", "ktransformers", "lmstudio", "koboldcpp"})
"""Engines whose checkpoints are GGUF files."""
SPECULATIVE = ("speculative", "draft_model", "mtp", "ngram_match")
"""Options of speculative decoding, which the roofline of a single step does not limit."""


@dataclass(frozen=True)
class Placement:
    kv_bits: float = 16.0
    """Per element of the KV cache."""
    expert_layers: int | None = 0
    """Layers whose routed experts are in host memory; None: all."""
    device_layers: int | None = None
    """Layers on the devices; None: all."""
    prefill: int = 0
    """Prefill servers of a disaggregated deployment; 0: not disaggregated."""
    decode: int = 1
    """Decode servers of a disaggregated deployment."""
    speculative: bool = False
    kv_stated: bool = False
    """The type of the KV cache is stated or reported, so `kv_bits` is not a default that a checkpoint may overrule."""
    redundant: int = 0
    """Copies of experts in a layer besides the model's."""


def placement_of(options: Mapping[str, JSON], kv_dtype: str | None = None) -> Placement | str:
    """The placement, or why it is unknown. kv_dtype: type of the KV cache as reported by the engine."""
    unsupported = [name for name in UNSUPPORTED if options.get(name)]
    if options.get("kv_offload") is False:
        unsupported.append("kv_offload")
    if unsupported:
        return f"unknown placement of weights or KV cache with the option {unsupported[0]}"
    kv_bits = _kv_bits(options, kv_dtype)
    if kv_bits is None:
        return "unknown type of the KV cache"
    prefill, decode = _servers(options.get("disaggregated"))
    return Placement(
        kv_bits=kv_bits,
        expert_layers=None if options.get("cpu_moe") else next((n for n in _counts(options, "n_cpu_moe", "moe_cpu_layers")), 0),
        device_layers=next((n for n in _counts(options, "gpu_layers")), None), prefill=prefill, decode=decode,
        speculative=any(options.get(name) for name in SPECULATIVE), kv_stated=_kv_stated(options, kv_dtype),
        redundant=_redundant(options),
    )  # fmt: skip


def _kv_bits(options: Mapping[str, JSON], reported: str | None) -> float | None:
    """The reported type takes precedence over the options. ExLlamaV3 and MLX have options for bits, and report 'q4' or '4bit'."""
    if reported is not None and reported.lower() in KV_BITS:
        return KV_BITS[reported.lower()]
    if bits := list(_counts(options, "kv_bits", "k_bits")):
        values = list(_counts(options, "v_bits")) or bits
        return (bits[0] + values[0]) / 2 + 0.5  # both have a 16-bit scale per 32 elements
    asked = options.get("kv_dtype") or options.get("kv_type") or "auto"
    return KV_BITS.get(str(asked).lower())


def _kv_stated(options: Mapping[str, JSON], reported: str | None) -> bool:
    named = [reported, *(options.get(name) for name in ("kv_dtype", "kv_type", "kv_bits", "k_bits"))]
    return any(each and str(each).lower() != "auto" for each in named)


def _redundant(options: Mapping[str, JSON]) -> int:
    """Redundant experts, as an option or among those of expert load balancing (vLLM's `eplb: {num_redundant_experts: 32}`)."""
    balancing = options.get("eplb")
    stated = [options, balancing] if isinstance(balancing, dict) else [options]
    return max([0, *(number for each in stated for number in _counts(each, "redundant_experts", "num_redundant_experts"))])


def _servers(disaggregated: JSON) -> tuple[int, int]:
    if not disaggregated:
        return 0, 1
    servers = disaggregated if isinstance(disaggregated, dict) else {}
    prefill, decode = (number if isinstance(number := servers.get(side, 1), int) else 1 for side in ("prefill", "decode"))
    return prefill, decode


def _counts(options: Mapping[str, JSON], *names: str) -> list[int]:
    return [value for name in names if isinstance(value := options.get(name), int) and not isinstance(value, bool)]
