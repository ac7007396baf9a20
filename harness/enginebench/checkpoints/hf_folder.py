"""Write a random MoE as a Hugging Face folder (config, safetensors, tokenizer) without torch or transformers.

Names follow Qwen3MoeForCausalLM with one tensor per expert, as published checkpoints have them. The safetensors file is
streamed: its format is a length, a JSON header and raw little-endian data, and bfloat16 is the upper half of float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from enginebench.checkpoints.cache import whole
from enginebench.checkpoints.random_moe import RMS_NORM_EPSILON, ROPE_BASE, Array, RandomMoE, Tensor
from enginebench.checkpoints.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, TURN_END, word_tokenizer
from enginebench.nouns import JSON

SAFETENSORS_PRECISIONS: dict[str, tuple[str, str, int]] = {
    "f32": ("float32", "F32", 4),
    "f16": ("float16", "F16", 2),
    "bf16": ("bfloat16", "BF16", 2),
}
"""Our names for the precisions, with config.json's dtype, safetensors' dtype and bytes per weight."""

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "ffn_gate_exps.weight": "mlp.experts.{expert}.gate_proj.weight",
    "ffn_up_exps.weight": "mlp.experts.{expert}.up_proj.weight",
    "ffn_down_exps.weight": "mlp.experts.{expert}.down_proj.weight",
}


def write_hf_folder(model: RandomMoE, precision: str, folder: Path) -> None:
    """Write `folder` whole. KeyError when the precision is not in SAFETENSORS_PRECISIONS."""
    dtype = SAFETENSORS_PRECISIONS[precision][0]
    tokenizer = word_tokenizer()
    ends: dict[str, JSON] = {"eos_token_id": tokenizer.id_of(TURN_END), "pad_token_id": tokenizer.id_of(END_OF_TEXT)}
    documents: dict[str, dict[str, JSON]] = {
        "config.json": {**_config(model), "dtype": dtype, "torch_dtype": dtype, **ends},
        "generation_config.json": {"do_sample": False, **ends},
        "tokenizer.json": tokenizer.to_json(),
        "tokenizer_config.json": {
            # Loads tokenizer.json as it is; the architecture's own class would rebuild it by its own rules.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.context,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    with whole(folder) as draft:
        draft.mkdir()
        for name, document in documents.items():
            (draft / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _write_safetensors(model, precision, draft / "model.safetensors")


def _config(model: RandomMoE) -> dict[str, JSON]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "vocab_size": len(word_tokenizer().tokens),
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "intermediate_size": model.expert_intermediate,
        "moe_intermediate_size": model.expert_intermediate,
        "num_experts": model.experts,
        "num_experts_per_tok": model.top_k,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "max_position_embeddings": model.context,
        "rms_norm_eps": RMS_NORM_EPSILON,
        "rope_theta": ROPE_BASE,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "use_cache": True,
    }


def _write_safetensors(model: RandomMoE, precision: str, path: Path) -> None:
    _, dtype, width = SAFETENSORS_PRECISIONS[precision]
    header: dict[str, JSON] = {"__metadata__": {"format": "pt", "source": model.reference()}}
    offset = 0
    for tensor in model.tensors():
        for name, shape in _parts(tensor):
            end = offset + width * math.prod(shape)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins aligned
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in model.tensors():
            # Parts of a stacked tensor follow one another in the file as they do in memory: one write.
            _encode(model.weights(tensor), precision).tofile(out)


def _parts(tensor: Tensor) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The Hugging Face names and shapes of one GGUF tensor: itself, or its experts one by one."""
    block, _, kind = tensor.name.rpartition(".weight")[0].rpartition(".")
    name = _NAMES[f"{kind}.weight"]
    if block:
        name = f"model.layers.{block.removeprefix('blk.')}.{name}"
    if "{expert}" not in name:
        yield name, tensor.shape
        return
    for expert in range(tensor.shape[0]):
        yield name.format(expert=expert), tensor.shape[1:]


def _encode(values: Array, precision: str) -> npt.NDArray[np.generic]:
    if precision == "bf16":
        return (values.view(np.uint32) >> 16).astype("<u2")
    return values.astype("<f2" if precision == "f16" else "<f4")
