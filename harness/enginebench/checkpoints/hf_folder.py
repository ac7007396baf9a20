"""Writes a random MoE as a Hugging Face folder (config, safetensors, tokenizer) without torch or transformers.

The safetensors file is streamed: a length, a JSON header and raw little-endian data. bfloat16 is the upper half of float32.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from enginebench.checkpoints.cache import atomic
from enginebench.checkpoints.drawn_blocks import deviation, shared_exponent
from enginebench.checkpoints.families.base import RMS_NORM_EPSILON, ROPE_BASE, Packed, Stored, Tensor
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.checkpoints.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, TURN_END, word_tokenizer
from enginebench.domain import JSON

SAFETENSORS_PRECISIONS: dict[str, tuple[str, str, int]] = {
 "f32": ("float32", "F32", 4), "f16": ("float16", "F16", 2), "bf16": ("bfloat16", "BF16", 2),
}  # fmt: skip
"""Supported precisions, with the dtype in config.json, the dtype in safetensors and bytes per weight."""

PACKED = "mxfp4"
"""Experts as 4-bit numbers with shared exponents, drawn as such, in families that have such files; all else in bfloat16."""
_FLOATS = {PACKED: "bf16"}
"""Packed precision -> that of the weights that are not packed."""

_QUANTIZATION: dict[str, JSON] = {
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
    }
}
"""What transformers writes into the config.json of gpt-oss."""

_OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def write_hf_folder(model: RandomMoE, precision: str, folder: Path, *, weights: bool = True) -> None:
    """Write `folder` atomically. KeyError if the precision is neither in SAFETENSORS_PRECISIONS nor PACKED.

    weights: False writes only configuration and tokenizer, for engines that draw weights themselves.
    """
    dtype = SAFETENSORS_PRECISIONS[_FLOATS.get(precision, precision)][0]
    tokenizer = word_tokenizer()
    start = tokenizer.id_of(END_OF_TEXT)  # never added to a prompt, but without it some families use a common token as BOS
    ends: dict[str, JSON] = {"bos_token_id": start, "eos_token_id": tokenizer.id_of(TURN_END), "pad_token_id": start}
    documents: dict[str, dict[str, JSON]] = {
        "config.json": {**_config(model), "dtype": dtype, "torch_dtype": dtype, **ends, **(_QUANTIZATION if precision == PACKED else {})},
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
        if weights:
            _write_safetensors(model, precision, draft / "model.safetensors")


def _config(model: RandomMoE) -> dict[str, JSON]:
    return {
        "architectures": [model.family.hf_class], "model_type": model.family.hf_type, "vocab_size": model.tensors()[0].shape[0],
        "hidden_size": model.hidden, "num_hidden_layers": model.layers, "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads, "head_dim": model.head_dim, "hidden_act": "silu",
        "intermediate_size": model.expert_intermediate, "max_position_embeddings": model.context, "rms_norm_eps": RMS_NORM_EPSILON,
        "rope_theta": ROPE_BASE, "tie_word_embeddings": False, "attention_bias": False, "use_cache": True, **model.family.config(model),
    }  # fmt: skip


@dataclass(frozen=True)
class _Entry:
    """Consecutive tensors of the file, which are written at once."""

    parts: Sequence[tuple[str, tuple[int, ...]]]
    dtype: str
    width: int
    """Bytes of an element."""
    sources: tuple[Tensor, ...]
    make: Callable[[], npt.NDArray[np.generic]]


def _entries(model: RandomMoE, precision: str) -> Iterator[_Entry]:
    _, dtype, width = SAFETENSORS_PRECISIONS[_FLOATS.get(precision, precision)]

    def floats(stored: Stored) -> _Entry:
        def make() -> npt.NDArray[np.generic]:
            values = stored.make(*map(model.weights, stored.sources))
            return (values.view(np.uint32) >> 16).astype("<u2") if dtype == "BF16" else values.astype("<f2" if width == 2 else "<f4")

        return _Entry(stored.parts, dtype, width, stored.sources, make)

    for tensor in model.tensors():
        if tensor.name in _OUTER_NAMES:
            yield floats(Stored(((_OUTER_NAMES[tensor.name], tensor.shape),), (tensor,)))
    for layer in range(model.layers):
        prefix, tensors = f"model.layers.{layer}.", model.block(layer)
        packed = model.family.packed(model, prefix, tensors) if precision == PACKED else []
        experts = {tensors[name] for name in tensors if packed and name.endswith("_exps.weight")}
        yield from (floats(each) for each in model.family.stored(model, prefix, tensors) if experts.isdisjoint(each.sources))
        yield from (_Entry(((each.name, each.shape),), "U8", 1, (each.source,), partial(_packed, model, each)) for each in packed)


def _packed(model: RandomMoE, packed: Packed) -> npt.NDArray[np.generic]:
    """Random FP4 numbers, or the exponent that they share. The row that writes residual lane 0 is zero."""
    if packed.scales:
        return np.full(packed.shape, shared_exponent(deviation(packed.source)), np.uint8)
    values = model.raw(packed.source.name, math.prod(packed.shape)).reshape(packed.shape)
    if packed.source.writes_residual:
        values[:, 0] = 0
    return values


def _write_safetensors(model: RandomMoE, precision: str, path: Path) -> None:
    header: dict[str, JSON] = {"__metadata__": {"format": "pt", "source": model.reference()}}
    entries, offset = [*_entries(model, precision)], 0
    for entry in entries:
        for name, shape in entry.parts:
            end = offset + entry.width * math.prod(shape)
            header[name] = {"dtype": entry.dtype, "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # align the data
    made: dict[tuple[object, ...], npt.NDArray[np.generic]] = {}
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            # Layers with the same weights are made once. The parts of a stacked tensor have the same order in the file as in memory.
            key = (*(model.source(tensor.name) for tensor in entry.sources), *(shape for _, shape in entry.parts))
            data = made[key] if key in made else entry.make()
            if model.distinct_layers is not None:
                made[key] = data
            data.tofile(out)
