"""Converts a Hugging Face config.json to a `Model`.

Rejects families that are not listed, because a guess at an unknown architecture would be silently wrong. Chunked attention (Llama 4) counts
as a window of one chunk. Sources: the configuration and modelling files of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from enginebench.checkpoints.families import FAMILIES
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.geometry import Attention, Experts, Layer, Model

DENSE = frozenset({"llama", "mistral", "qwen2", "qwen3"})
MIXTURES = frozenset({"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss", "llama4_text", "deepseek_v2", "deepseek_v3"})
_DEEPSEEK = frozenset({"deepseek_v2", "deepseek_v3"})
_QUERY_BIAS = frozenset({"qwen2", "qwen2_moe"})
_HEAD_NORM = frozenset({"qwen3", "qwen3_moe"})

Config = Mapping[str, Any]


def from_config(name: str, config: Config) -> Model:
    """The model that a config.json describes (of a multimodal model, the text part). UserError if it is unknown or incomplete."""
    text = config.get("text_config", config)
    written = text.get("model_type", config.get("model_type"))
    alike = (family.counted_as for family in FAMILIES.values() if family.counted_as and written in (family.hf_type, family.gguf))
    kind = next(alike, written)
    if kind not in DENSE | MIXTURES:
        raise UserError(f"unknown model type '{kind}'", key="model_type", advice=did_you_mean(str(kind), DENSE | MIXTURES))
    try:
        whole = _latent(text) if kind in _DEEPSEEK else _grouped(kind, text)
        layers = tuple(_layer(kind, text, i, replace(whole, window=window)) for i, window in enumerate(_windows(kind, text)))
        tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))
        return Model(name, text["hidden_size"], text["vocab_size"], tied, text["max_position_embeddings"], layers)
    except KeyError as error:
        raise UserError(f"the config of {name} lacks {error.args[0]}", key=str(error.args[0])) from error


def _latent(config: Config) -> Attention:
    rope = config["qk_rope_head_dim"]
    heads = config["num_attention_heads"]
    key, query = config["qk_nope_head_dim"] + rope, config.get("q_lora_rank") or 0
    return Attention(heads, heads, key, config["v_head_dim"], latent=config["kv_lora_rank"], rope_dim=rope, query_latent=query)


def _grouped(kind: str, config: Config) -> Attention:
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    width = config.get("head_dim") or config["hidden_size"] // heads
    norm = 2 * width if kind in _HEAD_NORM else (heads + kv_heads) * width if kind == "olmoe" else 0
    bias = bool(config.get("attention_bias", False))
    biased = bias or (kind in _QUERY_BIAS and config.get("qkv_bias", True))
    return Attention(heads, kv_heads, width, width, bias=biased, output_bias=bias, sinks=kind == "gpt_oss", norm=norm)


def _windows(kind: str, config: Config) -> list[int | None]:
    """Per layer, the window of its attention."""
    count = config["num_hidden_layers"]
    if kind == "llama4_text":
        rotated = config.get("no_rope_layers") or [(i + 1) % 4 != 0 for i in range(count)]
        return [config.get("attention_chunk_size") if each else None for each in rotated]
    window = config.get("sliding_window")
    types = config.get("layer_types")
    if types is None and kind == "gpt_oss":
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
    if types is not None:
        return [window if each == "sliding_attention" else None for each in types]
    everywhere = kind in ("mistral", "mixtral") or config.get("use_sliding_window", False)
    return [window if everywhere else None] * count


def _layer(kind: str, config: Config, layer: int, attention: Attention) -> Layer:
    if kind in MIXTURES and _has_experts(kind, config, layer):
        return Layer(attention, experts=_experts(kind, config))
    dense = config.get("intermediate_size_mlp") if kind == "llama4_text" else None
    return Layer(attention, dense=dense or config["intermediate_size"])


def _has_experts(kind: str, config: Config, layer: int) -> bool:
    if kind in _DEEPSEEK:
        first, every = config.get("first_k_dense_replace", 0), config.get("moe_layer_freq", 1)
        return bool(layer >= first and layer % every == 0)
    if kind == "llama4_text":
        listed = config.get("moe_layers")
        step = config.get("interleave_moe_layer_step", 1)
        return layer in listed if listed else bool(step and (layer + 1) % step == 0)
    step = config.get("decoder_sparse_step", 1)
    return layer not in (config.get("mlp_only_layers") or ()) and (layer + 1) % step == 0


def _experts(kind: str, config: Config) -> Experts:
    count = next(config[key] for key in ("num_local_experts", "num_experts", "n_routed_experts") if key in config)
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    shared = config.get("shared_expert_intermediate_size", 0)
    if kind in _DEEPSEEK:
        shared = width * (config.get("n_shared_experts") or 0)
    elif kind == "llama4_text":
        shared = width
    biases = {"bias": kind == "gpt_oss", "router_bias": kind in ("gpt_oss", "deepseek_v3")}
    return Experts(count, config["num_experts_per_tok"], width, shared, shared_gate=kind == "qwen2_moe", **biases)
