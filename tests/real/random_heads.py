"""What speculates for small models with random weights, as vLLM loads it: an EAGLE head for a Llama, and a model with a layer for MTP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.checkpoints.random_moe import RandomMoE
from safetensors.numpy import save_file

LLAMA = RandomMoE("llama", experts=1, top_k=1, layers=2, hidden=128, heads=4, kv_heads=2, head_dim=32)


def write_eagle(folder: Path) -> None:
    """A head for LLAMA whose layer adds nothing: it proposes by the last token alone, through the model's own head. The model decides
    between two tokens that the last one makes likely, so about half of what is proposed first is what it says."""
    write_hf_folder(LLAMA, "bf16", folder, weights=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    hidden, width, kv = LLAMA.hidden, LLAMA.expert_intermediate, LLAMA.kv_heads * LLAMA.head_dim
    shapes = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (width, hidden), "mlp.up_proj": (width, hidden),
        "mlp.down_proj": (hidden, width),
    }  # fmt: skip
    tensors: dict[str, np.ndarray] = {f"layers.0.{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    tensors["layers.0.post_attention_layernorm.weight"] = np.ones(hidden, np.float32)
    tensors["fc.weight"] = np.concatenate((np.eye(hidden), np.zeros((hidden, hidden))), axis=1).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def write_mtp(folder: Path) -> None:
    """The configuration of a small GLM-4.5 with one layer for MTP; vLLM draws its weights (`load_format: dummy`)."""
    write_hf_folder(LLAMA, "bf16", folder, weights=False)
    config = json.loads((folder / "config.json").read_text())
    own = {
        "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "moe_intermediate_size": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "norm_topk_prob": True,
        "routed_scaling_factor": 1.0, "num_nextn_predict_layers": 1, "use_qk_norm": False, "partial_rotary_factor": 0.5,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | own))
