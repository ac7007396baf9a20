"""Writes a random MoE as a Hugging Face folder (config, safetensors, tokenizer) without torch or transformers.

The safetensors file is streamed: a length, a JSON header and raw little-endian data. bfloat16 is the upper half of float32.
"""

import json
import math
from pathlib import Path

import numpy as np

from enginebench.checkpoints.cache import atomic
from enginebench.checkpoints.families.base import RMS_NORM_EPSILON, ROPE_BASE, Stored
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.checkpoints.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, TURN_END, word_tokenizer
from enginebench.domain import JSON

SAFETENSORS_PRECISIONS: dict[str, tuple[str, str, int]] = {
 "f32": ("float32", "F32", 4), "f16": ("float16", "F16", 2), "bf16": ("bfloat16", "BF16", 2),
}  # fmt: skip
"""Supported precisions, with the dtype in config.json, the dtype in safetensors and bytes per weight."""

_OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def write_hf_folder(model: RandomMoE, precision: str, folder: Path) -> None:
    """Write `folder` atomically. KeyError if the precision is not in SAFETENSORS_PRECISIONS."""
    dtype = SAFETENSORS_PRECISIONS[precision][0]
    tokenizer = word_tokenizer()
    start = tokenizer.id_of(END_OF_TEXT)  # never added to a prompt, but without it some families use a common token as BOS
    ends: dict[str, JSON] = {"bos_token_id": start, "eos_token_id": tokenizer.id_of(TURN_END), "pad_token_id": start}
    documents: dict[str, dict[str, JSON]] = {
        "config.json": {**_config(model), "dtype": dtype, "torch_dtype": dtype, **ends},
        "generation_config.json": {"do_sample": False, **ends},
        "tokenizer.json": tokenizer.to_json(),
        "tokenizer_config.json": {
            # This class loads tokenizer.json unchanged; the architecture's own class would rebuild it.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.context,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    with atomic(folder) as draft:
        draft.mkdir()
        for name, document in documents.items():
            (draft / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _write_safetensors(model, precision, draft / "model.safetensors")


def _config(model: RandomMoE) -> dict[str, JSON]:
    return {
        "architectures": [model.family.hf_class], "model_type": model.family.hf_type, "vocab_size": len(word_tokenizer().tokens),
        "hidden_size": model.hidden, "num_hidden_layers": model.layers, "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads, "head_dim": model.head_dim, "hidden_act": "silu",
        "intermediate_size": model.expert_intermediate, "max_position_embeddings": model.context, "rms_norm_eps": RMS_NORM_EPSILON,
        "rope_theta": ROPE_BASE, "tie_word_embeddings": False, "attention_bias": False, "use_cache": True, **model.family.config(model),
    }  # fmt: skip


def _write_safetensors(model: RandomMoE, precision: str, path: Path) -> None:
    _, dtype, width = SAFETENSORS_PRECISIONS[precision]
    header: dict[str, JSON] = {"__metadata__": {"format": "pt", "source": model.reference()}}
    outer = [tensor for tensor in model.tensors() if tensor.name in _OUTER_NAMES]
    stored = [Stored(((_OUTER_NAMES[tensor.name], tensor.shape),), (tensor,)) for tensor in outer]
    for layer in range(model.layers):
        stored += model.family.stored(model, f"model.layers.{layer}.", model.block(layer))
    offset = 0
    for name, shape in (part for each in stored for part in each.parts):
        end = offset + width * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # align the data
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for each in stored:
            # The parts of a stacked tensor have the same order in the file as in memory: one write.
            values = each.make(*map(model.weights, each.sources))
            data = (values.view(np.uint32) >> 16).astype("<u2") if precision == "bf16" else values.astype("<f2" if width == 2 else "<f4")
            data.tofile(out)
