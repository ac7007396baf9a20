"""A LoRA adapter with random weights for a small Llama, in both forms: a folder as PEFT writes it, and llama.cpp's GGUF."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def _pairs(layers: int, hidden: int, rank: int, seed: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(layer, A of rank x hidden, B of hidden x rank) of each query projection, large enough to change what is said."""
    drawn = np.random.default_rng(seed)
    return [
        (i, drawn.standard_normal((rank, hidden)).astype(np.float32), drawn.standard_normal((hidden, rank)).astype(np.float32))
        for i in range(layers)
    ]


def write_peft(folder: Path, *, layers: int, hidden: int, rank: int = 4, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": ["q_proj"], "base_model_name_or_path": "tiny", "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors: dict[str, np.ndarray] = {}
    for layer, a, b in _pairs(layers, hidden, rank, seed):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
        tensors |= {f"{name}A.weight": a, f"{name}B.weight": b}
    head, data = {}, b""
    for name, tensor in tensors.items():
        head[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + tensor.nbytes]}
        data += tensor.tobytes()
    text = json.dumps(head).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_gguf(file: Path, *, layers: int, hidden: int, rank: int = 4, seed: int = 0) -> None:
    import gguf

    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for layer, a, b in _pairs(layers, hidden, rank, seed):
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_a", a)
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
