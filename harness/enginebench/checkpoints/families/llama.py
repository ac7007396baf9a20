"""Llama (dense) and Mixtral. In llama.cpp both are the architecture `llama`, with or without experts.

Sources: transformers' LlamaConfig and MixtralConfig; llama.cpp's converter, which permutes the rows of q and k.
"""

from collections.abc import Mapping
from typing import ClassVar

from enginebench.checkpoints.families import base as fam
from enginebench.domain import JSON


class Llama(fam.Family):
    """A dense model, described as one expert that every token uses, so that it can be compared with a mixture."""

    name = "llama"
    gguf = "llama"
    hf_class = "LlamaForCausalLM"
    hf_type = "llama"
    names: ClassVar[Mapping[str, str]] = {**fam.ATTENTION_NAMES, **fam.DENSE_NAMES}
    paired_rotation = True

    def problem(self, g: fam.Geometry) -> fam.Problem | None:
        if g.experts != 1:
            return "experts", f"llama is dense: write experts 1 and top_k 1, not experts {g.experts} (expert_intermediate: MLP width)"
        return None

    def block(self, g: fam.Geometry, layer: int) -> list[fam.Tensor]:
        mlp = fam.gated_mlp("", g.hidden, g.expert_intermediate)
        return [*fam.grouped_query_attention(g), fam.Tensor("ffn_norm.weight", (g.hidden,)), *mlp]

    def metadata(self, g: fam.Geometry) -> dict[str, bool | int | float | str]:
        return {"rope.dimension_count": g.head_dim, "expert_count": 0, "expert_used_count": 0}

    def config(self, g: fam.Geometry) -> dict[str, JSON]:
        return {"mlp_bias": False}


class Mixtral(fam.Family):
    name = "mixtral"
    gguf = "llama"
    hf_class = "MixtralForCausalLM"
    hf_type = "mixtral"
    names: ClassVar[Mapping[str, str]] = {
        **fam.ATTENTION_NAMES,
        "ffn_gate_inp.weight": "block_sparse_moe.gate.weight",
        "ffn_gate_exps.weight": "block_sparse_moe.experts.{expert}.w1.weight",
        "ffn_up_exps.weight": "block_sparse_moe.experts.{expert}.w3.weight",
        "ffn_down_exps.weight": "block_sparse_moe.experts.{expert}.w2.weight",
    }
    paired_rotation = True

    def block(self, g: fam.Geometry, layer: int) -> list[fam.Tensor]:
        return [*fam.grouped_query_attention(g), fam.Tensor("ffn_norm.weight", (g.hidden,)), *fam.routed_experts(g)]

    def metadata(self, g: fam.Geometry) -> dict[str, bool | int | float | str]:
        return {"rope.dimension_count": g.head_dim}

    def config(self, g: fam.Geometry) -> dict[str, JSON]:
        return {"num_local_experts": g.experts, "num_experts_per_tok": g.top_k, "sliding_window": None}
