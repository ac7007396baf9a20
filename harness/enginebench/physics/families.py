"""What the code of a model family fixes, so that its config.json does not say it: defaults by meaning.

Keys are meanings of `field_names`, and a few that no config states: `linear` (the kind of linear layers), `norms` (per block, as wide
as the model), `norm_bias`, `shared_gate`, `matrices` (of an MLP: 3 with a gate, else 2), `expert_bias`, `router_bias`, `fields` (names that
matter for no size in this family). Sources: the modelling code of transformers 5.23, mlx-lm 0.31 and vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Family = Mapping[str, Any]

_HEAD_NORM: Family = {"qk_norm": True, "qk_norm_kind": "head"}
_ALL_NORM: Family = {"qk_norm": True, "qk_norm_kind": "all"}
_DEEPSEEK: Family = {"correction": True}
_QWEN_NEXT: Family = {
    **_HEAD_NORM,
    "linear": "gated_delta",
    "full_every": 4,
    "shared_gate": True,
    "gate": True,
    "gate_width": "element",
    "gate_biased": True,
}
_GEMMA: Family = {"tied": True, "norms": 4}

FAMILIES: Mapping[str, Family] = {
    "llama": {},
    "mistral": {"windowed": True},
    "ministral3": {},
    "mistral3": {},
    "phi3": {},
    "seed_oss": {"output_bias": False},
    "mimo": {"qkv_bias": True},
    "qwen2": {"qkv_bias": True, "output_bias": False},
    "qwen3": _HEAD_NORM,
    "qwen3_vl_text": _HEAD_NORM,
    "glm4": {"norms": 4, "output_bias": False},
    "gemma2": {**_GEMMA, "sliding_pattern": 2},
    "gemma3_text": {**_GEMMA, **_HEAD_NORM, "sliding_pattern": 6},
    "cohere2": {"tied": True, "norms": 1, "sliding_pattern": 4},
    "minicpm3": {"tied": True, "norms": 2},
    "qwen3_5_text": {**_QWEN_NEXT, "shared_gate": False},
    "hunyuan_v1_dense": _HEAD_NORM,
    "exaone4": {**_HEAD_NORM, "sliding_pattern": 4},
    "mixtral": {"windowed": True},
    "granitemoe": {},
    "granitemoeshared": {},
    "phimoe": {"norm_bias": True},
    "minimax": {"linear": "lightning", "needs": ("layer_types", "attention_flags")},
    "granitemoehybrid": {"linear": "mamba2", "dense_is_shared": True, "needs": ("layer_types",)},
    "granitemoe_swa": {"sinks": True},
    "arctic": {"dense_beside": True, "beside_is_hidden": True, "expert_norms": 1},
    "dbrx": {"experts_first_norm": True, "norms": 2},
    "qwen2_moe": {"qkv_bias": True, "output_bias": False, "shared_gate": True},
    "qwen3_moe": _HEAD_NORM,
    "qwen3_next": _QWEN_NEXT,
    "qwen3_5_moe_text": _QWEN_NEXT,
    "olmoe": _ALL_NORM,
    "flex_olmo": _ALL_NORM,
    "mellum": _HEAD_NORM,
    "gpt_oss": {"attention_bias": True, "sinks": True, "expert_bias": True, "router_bias": True, "sliding_pattern": 2},
    "llama4_text": {"qk_norm_kind": "none", "shared_count": 1, "experts_every": 1},
    "deepseek_v2": {},
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": {**_DEEPSEEK, "dense_first": 3, "needs": ("index_tokens",)},
    "axk2": {**_DEEPSEEK, "dense_first": 1, "needs": ("index_tokens",), "gated_queries": True, "norm_gate": 16},
    "axk1": {**_DEEPSEEK, "dense_first": 1, "expert_norms": 1},
    "glm4_moe_lite": {**_DEEPSEEK, "dense_first": 1},
    "glm_moe_dsa": {**_DEEPSEEK, "dense_first": 3, "needs": ("index_tokens",)},
    "mistral4": {},
    "mistral_large_3": {},
    "mistral_large4_text": {"dense_first": 1, "needs": ("index_tokens",), "score_scales": True, "index_norm": True, "unrotated": True},
    "step3p7": {**_HEAD_NORM, "correction": True, "gate": True},
    "deepseek_v4": {"correction": True, "needs": ("layer_types", "compressions"), "sinks": True, "one_cache": True, "streams_kind": "full"},
    "glm5_next_text": {**_DEEPSEEK, "linear": "kda", "needs": ("layer_types",), "streams_kind": "headless"},
    "glm4_moe": {"correction": True, "output_bias": False, "qk_norm_kind": "head"},
    "dots1": {**_HEAD_NORM, "correction": True},
    "afmoe": {**_HEAD_NORM, "norms": 4, "correction": True, "gate": True, "gate_width": "element", "sliding_pattern": 4},
    "aria_text": {},
    "cohere2_moe": {"tied": True, "norms": 1, "sliding_pattern": 4},
    "solar_open": {"correction": True, "output_bias": False},
    "ernie4_5_moe": {"tied": True, "correction": True},
    "exaone_moe": {**_HEAD_NORM, "correction": True},
    "laguna": {**_HEAD_NORM, "correction": True, "dense_first": 1, "gate": True},
    "flint": {**_HEAD_NORM, "dense_listed": (0, 1), "sinks": True},
    "beam": {**_HEAD_NORM, "dense_first": 3, "norms": 4, "correction": True, "gate": True, "gate_width": "element", "gate_bias": True},
    "gemma4_text": {**_GEMMA, **_HEAD_NORM, "dense_beside": True, "expert_norms": 4, "router_bias": True, "sliding_pattern": 6},
    "hunyuan_v1_moe": {**_HEAD_NORM, "shared_count": 1},
    "hunyuan": {"qk_norm_kind": "head"},
    "hy_v3": {**_HEAD_NORM, "dense_first": 1, "correction": True},
    "hy_v4": {
        "correction": True,
        "dense_first": 1,
        "needs": ("index_tokens",),
        "sinks": True,
        "gate": True,
        "gate_width": "element",
        "streams_kind": "pairs",
    },
    "dots3_note_text": {"correction": True, "gate": True, "key_norm": True},
    "jamba": {
        "linear": "mamba",
        "mamba_norms": True,
        "attention_period": 8,
        "attention_offset": 4,
        "experts_period": 2,
        "experts_offset": 1,
    },
    "kimi_linear": {"correction": True, "linear": "kda", "needs": ("layer_types", "full_layers_from_1")},
    "bailing_hybrid": {"correction": True, "linear": "kda", "linear_full_rank": True, "gate": True, "full_tail": True},
    "bailing_moe": {},
    "bailing_moe_v2": _HEAD_NORM,
    "bailing_moe_linear": {"linear": "lightning", "full_tail": True},
    "step3_text": {"inner_norm": True},
    "grok-1": {"norms": 4, "matrices": 3},
    "kolibri1": {**_HEAD_NORM, "norms": 4, "correction": True},
    "lfm2": {**_HEAD_NORM, "tied": True, "other": "conv", "needs": ("layer_types", "full_layers"), "rounded": True},
    "lfm2_moe": {**_HEAD_NORM, "tied": True, "correction": True, "other": "conv", "needs": ("layer_types", "full_layers")},
    "longcat_flash": {"correction": True, "twice": True},
    "mimo_v2_flash": {"correction": True, "sliding.sinks": True},
    "minimax_m2": {**_ALL_NORM, "correction": True},
    "minimax_m3": {**_HEAD_NORM, "correction": True},
    "nemotron_h": {"correction": True, "linear": "mamba2", "matrices": 2, "norms": 1, "shared_total": True},
}

ALIASES: Mapping[str, str] = {
    "kimi_k2": "deepseek_v3",
    "kimi_k25": "deepseek_v3",
    "deepseek_ref": "deepseek_v4",
    "qwen3_vl_moe": "qwen3_moe",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_omni_moe": "qwen3_moe",
    "qwen3_omni_moe_text": "qwen3_moe",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "gemma4": "gemma4_text",
    "minimax_m1": "minimax",
    "minimax_text_01": "minimax",
    "MiniMaxM1": "minimax",
    "MiniMaxText01": "minimax",
    "minimax_m3_vl": "minimax_m3",
    "minimax_m3_vl_text": "minimax_m3",
    "glm4v_moe": "glm4_moe",
    "glm4v_moe_text": "glm4_moe",
    "llama4": "llama4_text",
    "jamba2": "jamba",
    "aria": "aria_text",
    "step3p5": "step3p7",
    "step3p7_text": "step3p7",
    "glm5_next": "glm5_next_text",
    "mistral_large4": "mistral_large4_text",
    "longcat": "longcat_flash",
    "mimo_v2": "mimo_v2_flash",
}
"""Model types whose fields mean the same."""

ARCHITECTURES: Mapping[str, str] = {
    "Grok1ForCausalLM": "grok-1",
    "Grok1ModelForCausalLM": "grok-1",
    "BailingMoeV2ForCausalLM": "bailing_moe_v2",
    "MistralLarge3ForCausalLM": "deepseek_v3",
}
"""Classes of models whose model type names another family, or none."""

UNSUPPORTED: Mapping[str, str] = {
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv7", "xlstm", "recurrent_gemma"), "it has no attention"),
    **dict.fromkeys(("t5", "bart", "nllb_moe", "switch_transformers", "whisper"), "it has an encoder and a decoder"),
    **dict.fromkeys(("zamba", "zamba2"), "layers share weights"),
    "falcon_h1": "a layer has attention and Mamba side by side",
    "jetmoe": "its attention heads are experts",
    "doge": "its attention masks have weights of their own",
    **dict.fromkeys(("gemma3n", "gemma3n_text"), "every layer has embeddings of its own"),
    "nemotron-nas": "its layers differ in ways that only `block_configs` says",
}
"""Model types with parts that a `Layer` cannot express -> which."""
