"""Llama 4 (text): a sigmoid router that scales an expert's input, one shared expert, every fourth layer without RoPE.

Sources: transformers' Llama4TextConfig; llama.cpp's architecture `llama4` and its converter.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from enginebench.checkpoints.families import base as fam
from enginebench.domain import JSON

_CHUNK = 8192
"""Tokens of one attention chunk; fixed in llama.cpp."""
_MAVERICK = 128
"""For this number of experts llama.cpp does not normalise queries and keys."""


class Llama4(fam.Family):
    """Every layer has experts (as in Scout). The context is limited to one attention chunk, so chunking has no effect."""

    name = "llama4"
    gguf = "llama4"
    hf_class = "Llama4ForCausalLM"
    hf_type = "llama4_text"
    names: ClassVar[Mapping[str, str]] = {
        **fam.ATTENTION_NAMES,
        "ffn_gate_inp.weight": "feed_forward.router.weight",
        **{f"ffn_{part}_shexp.weight": f"feed_forward.shared_expert.{part}_proj.weight" for part in ("gate", "up", "down")},
    }

    def problem(self, g: fam.Geometry) -> fam.Problem | None:
        if g.context > _CHUNK:
            return "context", f"context ({g.context}) is more than one attention chunk of {_CHUNK} tokens"
        return None

    def block(self, g: fam.Geometry, layer: int) -> list[fam.Tensor]:
        shared = fam.gated_mlp("shexp", g.hidden, g.expert_intermediate)
        return [*fam.grouped_query_attention(g), fam.Tensor("ffn_norm.weight", (g.hidden,)), *fam.routed_experts(g), *shared]

    def metadata(self, g: fam.Geometry) -> dict[str, bool | int | float | str]:
        return {"rope.dimension_count": g.head_dim, "interleave_moe_layer_step": 1}

    def config(self, g: fam.Geometry) -> dict[str, JSON]:
        return {
            "intermediate_size_mlp": g.expert_intermediate, "num_local_experts": g.experts, "num_experts_per_tok": g.top_k,
            "interleave_moe_layer_step": 1, "attention_chunk_size": _CHUNK, "use_qk_norm": g.experts != _MAVERICK,
            "no_rope_layers": [int((layer + 1) % 4 != 0) for layer in range(g.layers)], "attn_temperature_tuning": True,
            "floor_scale": _CHUNK, "attn_scale": 0.1,
        }  # fmt: skip

    def stored(self, g: fam.Geometry, layer: str, tensors: Mapping[str, fam.Tensor]) -> list[fam.Stored]:
        stacked = [tensors[f"ffn_{part}_exps.weight"] for part in ("gate", "up", "down")]
        plain = {kind: tensor for kind, tensor in tensors.items() if tensor not in stacked}
        gate, up, down = stacked
        experts = layer + "feed_forward.experts."

        def beside(*both: fam.Array) -> fam.Array:
            return fam.transposed(np.concatenate(both, axis=1))

        return [
            *super().stored(g, layer, plain),
            fam.Stored(((experts + "gate_up_proj", (g.experts, g.hidden, 2 * g.expert_intermediate)),), (gate, up), beside),
            fam.Stored(((experts + "down_proj", (g.experts, g.expert_intermediate, g.hidden)),), (down,), fam.transposed),
        ]
