"""Qwen3-MoE and OLMoE. OLMoE differs in the width of its norms and does not normalise expert weights.

Sources: transformers' Qwen3MoeConfig and OlmoeConfig; llama.cpp's architectures `qwen3moe` and `olmoe`.
"""

from enginebench.checkpoints.families import base as fam
from enginebench.domain import JSON

_NAMES = {
    **fam.ATTENTION_NAMES,
    **fam.EXPERT_NAMES,
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
}


def _block(g: fam.Geometry, query_norm: int, key_norm: int) -> list[fam.Tensor]:
    norm, q, k, v, output = fam.grouped_query_attention(g)
    norms = fam.Tensor("attn_q_norm.weight", (query_norm,)), fam.Tensor("attn_k_norm.weight", (key_norm,))
    return [norm, q, norms[0], k, norms[1], v, output, fam.Tensor("ffn_norm.weight", (g.hidden,)), *fam.routed_experts(g)]


class Qwen3MoE(fam.Family):
    name = "qwen3moe"
    gguf = "qwen3moe"
    hf_class = "Qwen3MoeForCausalLM"
    hf_type = "qwen3_moe"
    names = _NAMES

    def block(self, g: fam.Geometry, layer: int) -> list[fam.Tensor]:
        return _block(g, g.head_dim, g.head_dim)

    def config(self, g: fam.Geometry) -> dict[str, JSON]:
        return {
            "moe_intermediate_size": g.expert_intermediate, "num_experts": g.experts, "num_experts_per_tok": g.top_k,
            "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
        }  # fmt: skip


class OLMoE(fam.Family):
    """Query and key norms span all heads. config.json has no head width: it is hidden / heads."""

    name = "olmoe"
    gguf = "olmoe"
    hf_class = "OlmoeForCausalLM"
    hf_type = "olmoe"
    names = _NAMES

    def problem(self, g: fam.Geometry) -> fam.Problem | None:
        if g.kv_heads != g.heads:
            return "kv_heads", f"olmoe needs kv_heads equal to heads: write kv_heads {g.heads}, not {g.kv_heads}"
        if g.heads * g.head_dim != g.hidden:
            return "head_dim", f"olmoe needs heads x head_dim equal to hidden: {g.heads} x {g.head_dim} is not {g.hidden}"
        return None

    def block(self, g: fam.Geometry, layer: int) -> list[fam.Tensor]:
        return _block(g, g.hidden, g.hidden)

    def config(self, g: fam.Geometry) -> dict[str, JSON]:
        return {"num_experts": g.experts, "num_experts_per_tok": g.top_k, "norm_topk_prob": False, "clip_qkv": None}
