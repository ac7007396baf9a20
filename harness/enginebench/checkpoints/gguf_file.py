"""Writes a random MoE as one GGUF file, with one tensor in memory at a time, or one layer where layers share their weights.

Follows llama.cpp: norms and router in F32.
"""

import math
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import quants

from enginebench.checkpoints.cache import atomic
from enginebench.checkpoints.drawn_blocks import BLOCKS, draw
from enginebench.checkpoints.families.base import RMS_NORM_EPSILON, ROPE_BASE, Array, Tensor
from enginebench.checkpoints.random_moe import TABLES, RandomMoE
from enginebench.checkpoints.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, TURN_END, ByteLevelBPE, word_tokenizer

_Kind = gguf.GGMLQuantizationType
_File = gguf.LlamaFileType

GGUF_TYPES: dict[str, tuple[gguf.GGMLQuantizationType, gguf.LlamaFileType]] = {
    "f32": (_Kind.F32, _File.ALL_F32), "f16": (_Kind.F16, _File.MOSTLY_F16), "bf16": (_Kind.BF16, _File.MOSTLY_BF16),
    "q8_0": (_Kind.Q8_0, _File.MOSTLY_Q8_0), "q5_1": (_Kind.Q5_1, _File.MOSTLY_Q5_1), "q5_0": (_Kind.Q5_0, _File.MOSTLY_Q5_0),
    "q4_1": (_Kind.Q4_1, _File.MOSTLY_Q4_1), "q4_0": (_Kind.Q4_0, _File.MOSTLY_Q4_0),
}  # fmt: skip
"""Precisions that floats are encoded in, with GGML's type and the file type that llama.cpp reports."""

DRAWN_TYPES: dict[str, tuple[gguf.GGMLQuantizationType, gguf.LlamaFileType]] = {
    "mxfp4": (_Kind.MXFP4, _File.MOSTLY_MXFP4_MOE), "q4_k_m": (_Kind.Q4_K, _File.MOSTLY_Q4_K_M),
}  # fmt: skip
"""Precisions whose blocks are drawn, not rounded from floats: not the same model as in other precisions. As llama.cpp stores them, but with
embedding and head in Q8_0: experts in MXFP4 and all else in Q8_0, or K-quants of 4 and 6 bits."""

_LONG_ROW = 4096
"""gguf quantises 16 rows at a time in numpy; long rows reduce the interpreter overhead."""


def write_gguf(model: RandomMoE, precision: str, path: Path) -> None:
    """Write `path` atomically. KeyError if the precision is neither in GGUF_TYPES nor in DRAWN_TYPES; ValueError if rows do not fit it."""
    plan = _Plan(model, precision)
    with atomic(path) as draft:
        writer = gguf.GGUFWriter(draft, model.family.gguf)
        _add_model(writer, model, plan.file_type)
        _add_tokenizer(writer, word_tokenizer(), model.vocabulary)
        tensors = model.tensors()
        for tensor in tensors:
            size = gguf.quant_shape_to_byte_shape(tensor.shape, own := plan.kind(tensor))
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), math.prod(size), raw_dtype=own)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(plan.stored(tensor))
        writer.close()


class _Plan:
    """Which type each tensor of a file has, and its bytes. Layers with the same weights are made once."""

    def __init__(self, model: RandomMoE, precision: str) -> None:
        self._model, self._drawn = model, precision in DRAWN_TYPES
        self._precision = precision
        self._base, self.file_type = DRAWN_TYPES[precision] if self._drawn else GGUF_TYPES[precision]
        self._made: dict[tuple[str, _Kind, tuple[int, ...]], npt.NDArray[np.generic]] = {}

    def kind(self, tensor: Tensor) -> gguf.GGMLQuantizationType:
        if tensor.full_precision:
            return _Kind.F32
        if not self._drawn:
            return self._base
        if tensor.name in TABLES or (self._precision == "mxfp4" and "_exps." not in tensor.name):
            return _Kind.Q8_0
        return _Kind.Q6_K if self._precision == "q4_k_m" and _more_bits(tensor.name, self._model.layers) else self._base

    def stored(self, tensor: Tensor) -> npt.NDArray[np.generic]:
        kind = self.kind(tensor)
        key = (self._model.source(tensor.name), kind, tensor.shape)
        if key not in self._made:
            made = self._make(tensor, kind)
            if self._model.distinct_layers is None:
                return made
            self._made[key] = made
        return self._made[key]

    def _make(self, tensor: Tensor, kind: gguf.GGMLQuantizationType) -> npt.NDArray[np.generic]:
        if (name := kind.name.lower()) in BLOCKS:
            return draw(tensor, name, self._model.raw)
        if tensor.name in TABLES:
            known, row = (encode(values, kind) for values in self._model.table(tensor))
            return np.concatenate([known, np.repeat(row, tensor.shape[0] - len(known), axis=0)])
        return encode(self._model.weights(tensor), kind)


def _more_bits(name: str, layers: int) -> bool:
    """Whether llama.cpp stores this tensor of a Q4_K_M file as Q6_K: V and down of the first and the last eighth of the layers,
    and of every third between. Source: `llama_tensor_get_type` and `use_more_bits`."""
    _, layer, part, *_ = name.split(".")
    at, eighth = int(layer), layers // 8
    return part.startswith(("attn_v", "ffn_down")) and (at < eighth or at >= 7 * layers // 8 or (at - eighth) % 3 == 2)


def encode(values: Array, kind: gguf.GGMLQuantizationType) -> npt.NDArray[np.generic]:
    """Encode values for GGML: float32, float16, or bytes with a row of quantised blocks as the last axis."""
    if kind == _Kind.F32:
        return values
    if kind == _Kind.F16:
        return values.astype(np.float16)
    rows = values.reshape(-1, _LONG_ROW) if values.size % _LONG_ROW == 0 else values
    blocks: npt.NDArray[np.uint8] = quants.quantize(rows, kind)
    return blocks.reshape(gguf.quant_shape_to_byte_shape(values.shape, kind))


def _add_model(writer: gguf.GGUFWriter, model: RandomMoE, file_type: gguf.LlamaFileType) -> None:
    writer.add_name(f"random-{model.architecture}")
    writer.add_description(model.reference())
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    kinds = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
    common: dict[str, bool | int | float | str] = {
        "context_length": model.context, "embedding_length": model.hidden, "block_count": model.layers,
        "attention.head_count": model.heads, "attention.head_count_kv": model.kv_heads, "attention.key_length": model.head_dim,
        "attention.value_length": model.head_dim, "rope.freq_base": ROPE_BASE, "attention.layer_norm_rms_epsilon": RMS_NORM_EPSILON,
        "feed_forward_length": model.expert_intermediate, "expert_count": model.experts, "expert_used_count": model.top_k,
        "expert_feed_forward_length": model.expert_intermediate,
    }  # fmt: skip
    for key, value in (common | model.family.metadata(model)).items():
        writer.add_key_value(f"{model.family.gguf}.{key}", value, kinds.get(type(value), gguf.GGUFValueType.STRING))


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: ByteLevelBPE, vocabulary: int | None) -> None:
    """vocabulary: tokens in all; those that the tokenizer does not have are unused."""
    unused = [f"<unused {number}>" for number in range((vocabulary or 0) - len(tokenizer.tokens))]
    kinds = [gguf.TokenType.CONTROL if token in tokenizer.control else gguf.TokenType.NORMAL for token in tokenizer.tokens]
    writer.add_vocab_size(len(tokenizer.tokens) + len(unused))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list([*tokenizer.tokens, *unused])
    writer.add_token_types([*kinds, *[gguf.TokenType.UNUSED] * len(unused)])
    writer.add_token_merges(tokenizer.merges)
    writer.add_eos_token_id(tokenizer.id_of(TURN_END))
    writer.add_pad_token_id(tokenizer.id_of(END_OF_TEXT))
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)
