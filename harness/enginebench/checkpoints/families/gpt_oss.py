"""gpt-oss: biases in all matrices, attention sinks, a sliding window on every other layer, YaRN, and a clamped SwiGLU.

The published model has experts in MXFP4; random ones have the requested precision. Sources: transformers' GptOssConfig; llama.cpp's
architecture `gpt-oss` and its converter.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from enginebench.checkpoints.families import base as fam
from enginebench.domain import JSON

_YARN_FACTOR, _YARN_CONTEXT = 32.0, 4096
_BIAS = 0.1
"""Standard deviation of the biases."""


class GptOss(fam.Family):
    name = "gpt_oss"
    gguf = "gpt-oss"
    hf_class = "GptOssForCausalLM"
    hf_type = "gpt_oss"
    names: ClassVar[Mapping[str, str]] = {
        **fam.ATTENTION_NAMES, "post_attention_norm.weight": "post_attention_layernorm.weight",
        **{f"attn_{kind}.bias": f"self_attn.{kind}_proj.bias" for kind in "qkv"}, "attn_output.bias": "self_attn.o_proj.bias",
        "attn_sinks.weight": "self_attn.sinks", "ffn_gate_inp.weight": "mlp.router.weight", "ffn_gate_inp.bias": "mlp.router.bias",
    }  # fmt: skip

    def choices(self, g: fam.Geometry) -> dict[str, int]:
        return {"sliding_window": 128}

    def block(self, g: fam.Geometry, layer: int) -> list[fam.Tensor]:
        matrices = [*fam.grouped_query_attention(g), fam.Tensor("post_attention_norm.weight", (g.hidden,)), *fam.routed_experts(g)]
        biased = [matrix for matrix in matrices if matrix.gain is not None]
        biases = [fam.Tensor(matrix.name.removesuffix("weight") + "bias", matrix.shape[:-1], gain=_BIAS) for matrix in biased]
        return [*matrices, *biases, fam.Tensor("attn_sinks.weight", (g.heads,), gain=1.0)]

    def metadata(self, g: fam.Geometry) -> dict[str, bool | int | float | str]:
        return {
            "attention.sliding_window": g.need("sliding_window"),
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": _YARN_FACTOR,
            "rope.scaling.original_context_length": _YARN_CONTEXT,
        }

    def config(self, g: fam.Geometry) -> dict[str, JSON]:
        return {
            "num_local_experts": g.experts,
            "num_experts_per_tok": g.top_k,
            "sliding_window": g.need("sliding_window"),
            "layer_types": ["full_attention" if layer % 2 else "sliding_attention" for layer in range(g.layers)],
            "attention_bias": True,
            "swiglu_limit": 7.0,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": _YARN_FACTOR,
                "original_max_position_embeddings": _YARN_CONTEXT,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": True,  # false in the published model, which llama.cpp does not support
            },
        }

    def stored(self, g: fam.Geometry, layer: str, tensors: Mapping[str, fam.Tensor]) -> list[fam.Stored]:
        plain = {kind: tensor for kind, tensor in tensors.items() if "_exps." not in kind}
        gate, up, down = (tensors[f"ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
        gate_bias, up_bias, down_bias = (tensors[f"ffn_{part}_exps.bias"] for part in ("gate", "up", "down"))
        experts, inner = layer + "mlp.experts.", g.expert_intermediate
        return [
            *super().stored(g, layer, plain),
            fam.Stored(
                ((experts + "gate_up_proj", (g.experts, g.hidden, 2 * inner)),),
                (gate, up),
                lambda *both: fam.transposed(_alternating(*both)),
            ),
            fam.Stored(((experts + "gate_up_proj_bias", (g.experts, 2 * inner)),), (gate_bias, up_bias), _alternating),
            fam.Stored(((experts + "down_proj", (g.experts, inner, g.hidden)),), (down,), fam.transposed),
            fam.Stored(((experts + "down_proj_bias", (g.experts, g.hidden)),), (down_bias,)),
        ]

    def packed(self, g: fam.Geometry, layer: str, tensors: Mapping[str, fam.Tensor]) -> list[fam.Packed]:
        """As the published checkpoints have them: 32 weights in 16 bytes, and one exponent for them."""
        gate, down = tensors["ffn_gate_exps.weight"], tensors["ffn_down_exps.weight"]
        both, rows = (g.experts, 2 * g.expert_intermediate, g.hidden // 32), (g.experts, g.hidden, g.expert_intermediate // 32)
        experts = layer + "mlp.experts."
        return [
            fam.Packed(experts + "gate_up_proj_blocks", (*both, 16), gate),
            fam.Packed(experts + "gate_up_proj_scales", both, gate, scales=True),
            fam.Packed(experts + "down_proj_blocks", (*rows, 16), down),
            fam.Packed(experts + "down_proj_scales", rows, down, scales=True),
        ]


def _alternating(gate: fam.Array, up: fam.Array) -> fam.Array:
    """Interleave two arrays [experts, inner, ...] to [experts, 2 inner, ...]: gate 0, up 0, gate 1, up 1, ..."""
    experts, inner, *rest = gate.shape
    return np.stack([gate, up], axis=2).reshape(experts, 2 * inner, *rest)
