"""DeepSeek-V3: multi-head latent attention, leading dense layers, shared experts, and a sigmoid router with expert groups.

Sources: transformers' DeepseekV3Config; llama.cpp's architecture `deepseek2`, whose converter splits kv_b and transposes its key half.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from enginebench.checkpoints.families import base as fam
from enginebench.domain import JSON

_SCALE = 2.5
"""Published factor on the weights of the routed experts."""
_SIGMOID = 2
"""llama.cpp's constant for a sigmoid router."""


class DeepSeekV3(fam.Family):
    """head_dim: width of a head's values and of the part of its keys that is not rotated. rope_head_dim: width of the rotated part.

    The defaults of kv_lora_rank and rope_head_dim are the published ones, because vLLM's CPU attention supports no others.
    """

    name = "deepseek_v3"
    gguf = "deepseek2"
    hf_class = "DeepseekV3ForCausalLM"
    hf_type = "deepseek_v3"
    names: ClassVar[Mapping[str, str]] = {
        **fam.ATTENTION_NAMES, **fam.DENSE_NAMES, **fam.EXPERT_NAMES,
        **{f"ffn_{part}_shexp.weight": f"mlp.shared_experts.{part}_proj.weight" for part in ("gate", "up", "down")},
        "attn_q_a.weight": "self_attn.q_a_proj.weight", "attn_q_a_norm.weight": "self_attn.q_a_layernorm.weight",
        "attn_q_b.weight": "self_attn.q_b_proj.weight", "attn_kv_a_mqa.weight": "self_attn.kv_a_proj_with_mqa.weight",
        "attn_kv_a_norm.weight": "self_attn.kv_a_layernorm.weight", "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
    }  # fmt: skip

    def choices(self, g: fam.Geometry) -> dict[str, int]:
        groups = g.expert_groups or (4 if g.experts % 4 == 0 and g.experts >= 8 else 1)
        return {
            "shared_experts": 1, "dense_layers": min(1, g.layers - 1), "dense_intermediate": 4 * g.expert_intermediate,
            "expert_groups": groups, "top_k_groups": max(1, groups // 2), "q_lora_rank": max(32, g.hidden // 64 * 32),
            "kv_lora_rank": 512, "rope_head_dim": 64,
        }  # fmt: skip

    def problem(self, g: fam.Geometry) -> fam.Problem | None:
        groups, chosen = g.need("expert_groups"), g.need("top_k_groups")
        if g.kv_heads != g.heads:
            return "kv_heads", f"deepseek_v3 needs kv_heads equal to heads: write kv_heads {g.heads}, not {g.kv_heads}"
        if g.need("dense_layers") >= g.layers:
            return "dense_layers", f"dense_layers ({g.dense_layers}) must be less than layers ({g.layers})"
        if g.experts % groups or g.experts // groups < 2:
            return "expert_groups", f"expert_groups ({groups}) must divide experts ({g.experts}) with at least two per group"
        if chosen > groups:
            return "top_k_groups", f"top_k_groups ({chosen}) is more than expert_groups ({groups})"
        if g.top_k > g.experts // groups * chosen:
            return "top_k", f"top_k ({g.top_k}) is more than the {g.experts // groups * chosen} experts of {chosen} groups"
        return None

    def block(self, g: fam.Geometry, layer: int) -> list[fam.Tensor]:
        attention = [*_latent_attention(g), fam.Tensor("ffn_norm.weight", (g.hidden,))]
        if layer < g.need("dense_layers"):
            return [*attention, *fam.gated_mlp("", g.hidden, g.need("dense_intermediate"))]
        shared = fam.gated_mlp("shexp", g.hidden, g.need("shared_experts") * g.expert_intermediate)
        return [*attention, *fam.routed_experts(g, router_gain=1.0), fam.Tensor("exp_probs_b.bias", (g.experts,), gain=0.05), *shared]

    def metadata(self, g: fam.Geometry) -> dict[str, bool | int | float | str]:
        latent, rotated = g.need("kv_lora_rank"), g.need("rope_head_dim")
        # llama.cpp treats this attention as one wide key head shared by all query heads, decompressed afterwards.
        heads = {"attention.head_count_kv": 1, "attention.key_length": latent + rotated, "attention.value_length": latent}
        return {
            **heads, "attention.key_length_mla": g.head_dim + rotated, "attention.value_length_mla": g.head_dim,
            "attention.q_lora_rank": g.need("q_lora_rank"), "attention.kv_lora_rank": latent, "rope.dimension_count": rotated,
            "feed_forward_length": g.need("dense_intermediate"), "leading_dense_block_count": g.need("dense_layers"),
            "expert_shared_count": g.need("shared_experts"), "expert_group_count": g.need("expert_groups"),
            "expert_group_used_count": g.need("top_k_groups"), "expert_gating_func": _SIGMOID, "expert_weights_norm": True,
            "expert_weights_scale": _SCALE,
        }  # fmt: skip

    def config(self, g: fam.Geometry) -> dict[str, JSON]:
        for_vllm: dict[str, JSON] = {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 1}  # constant in transformers
        return {
            **for_vllm, "head_dim": g.need("rope_head_dim"), "intermediate_size": g.need("dense_intermediate"),
            "moe_intermediate_size": g.expert_intermediate, "n_routed_experts": g.experts, "n_shared_experts": g.need("shared_experts"),
            "num_experts_per_tok": g.top_k, "n_group": g.need("expert_groups"), "topk_group": g.need("top_k_groups"),
            "norm_topk_prob": True, "routed_scaling_factor": _SCALE, "first_k_dense_replace": g.need("dense_layers"),
            "q_lora_rank": g.need("q_lora_rank"), "kv_lora_rank": g.need("kv_lora_rank"), "qk_nope_head_dim": g.head_dim,
            "qk_rope_head_dim": g.need("rope_head_dim"), "v_head_dim": g.head_dim, "num_nextn_predict_layers": 0,
        }  # fmt: skip

    def stored(self, g: fam.Geometry, layer: str, tensors: Mapping[str, fam.Tensor]) -> list[fam.Stored]:
        plain = {kind: tensor for kind, tensor in tensors.items() if kind not in ("attn_k_b.weight", "attn_v_b.weight")}
        shape = (2 * g.heads * g.head_dim, g.need("kv_lora_rank"))
        halves = tensors["attn_k_b.weight"], tensors["attn_v_b.weight"]
        return [*super().stored(g, layer, plain), fam.Stored(((layer + "self_attn.kv_b_proj.weight", shape),), halves, _kv_b)]


def _latent_attention(g: fam.Geometry) -> list[fam.Tensor]:
    hidden, latent, rotated, rank = g.hidden, g.need("kv_lora_rank"), g.need("rope_head_dim"), g.need("q_lora_rank")
    return [
        fam.Tensor("attn_norm.weight", (hidden,)),
        fam.Tensor("attn_q_a.weight", (rank, hidden), gain=1.0),
        fam.Tensor("attn_q_a_norm.weight", (rank,)),
        fam.Tensor("attn_q_b.weight", (g.heads * (g.head_dim + rotated), rank), gain=1.0),
        fam.Tensor("attn_kv_a_mqa.weight", (latent + rotated, hidden), gain=1.0),
        fam.Tensor("attn_kv_a_norm.weight", (latent,)),
        # fam.Stored transposed: this gain gives keys of variance one.
        fam.Tensor("attn_k_b.weight", (g.heads, latent, g.head_dim), gain=math.sqrt(g.head_dim / latent)),
        fam.Tensor("attn_v_b.weight", (g.heads, g.head_dim, latent), gain=1.0),
        fam.Tensor("attn_output.weight", (hidden, g.heads * g.head_dim), gain=1.0),
    ]


def _kv_b(keys: fam.Array, values: fam.Array) -> fam.Array:
    """Combine [heads, latent, d] and [heads, d, latent] to [heads, 2 d, latent]."""
    return np.ascontiguousarray(np.concatenate([keys.swapaxes(1, 2), values], axis=1))
