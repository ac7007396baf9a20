"""GGUF files of many architectures give the dimensions of their models: as many weights as there are in their tensors.

Files are written as llama.cpp's converter writes them, for configs of which family_totals.jsonl has the total that transformers builds, and
for a few of which it has none. Names of tensors are those that the gguf package lists for the architecture.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from enginebench.errors import UserError
from enginebench.physics import Role, read_weights
from enginebench.physics.config import from_config
from enginebench.physics.geometry import Attention, Recurrence
from enginebench.physics.gguf_config import gguf_config
from enginebench.physics.gguf_names import ARCHITECTURES

Config = Mapping[str, Any]
BUILT = [json.loads(line) for line in Path(__file__).with_name("family_totals.jsonl").read_text().splitlines()]


class File:
    """Metadata and tensors of one GGUF file, from the config of its model. Shapes have the fastest axis first."""

    def __init__(self, architecture: str, c: Config) -> None:
        self.architecture, self.c, self.hidden = architecture, c, c["hidden_size"]
        self.metadata: dict[str, Any] = {
            "block_count": c["num_hidden_layers"], "embedding_length": self.hidden, "context_length": 4096,
            "attention.head_count": c["num_attention_heads"], "attention.head_count_kv": c["num_key_value_heads"],
            "feed_forward_length": c.get("intermediate_size", 0),
        }  # fmt: skip
        self.tensors: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.hidden, c["vocab_size"]),
            "output_norm.weight": (self.hidden,),
        }
        if not c.get("tie_word_embeddings"):
            self.tensors["output.weight"] = (self.hidden, c["vocab_size"])

    def add(self, layer: int, tensors: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in tensors.items():
            full = f"blk.{layer}.{name}"
            self.tensors[full if name.endswith((".bias", ".scale", "ssm_a", "ssm_d")) else f"{full}.weight"] = shape

    def norms(self, layer: int, *names: str) -> None:
        self.add(layer, dict.fromkeys(names, (self.hidden,)))

    def attend(self, layer: int, dim: int, heads: int = 0, kv: int = 0, value: int = 0, *, bias: bool = False, values: bool = True) -> None:
        h, heads, kv, value = self.hidden, heads or self.c["num_attention_heads"], kv or self.c["num_key_value_heads"], value or dim
        self.add(layer, {"attn_q": (h, heads * dim), "attn_k": (h, kv * dim), "attn_output": (heads * value, h)})
        if values:
            self.add(layer, {"attn_v": (h, kv * value)})
        if bias:
            self.add(layer, {"attn_q.bias": (heads * dim,), "attn_k.bias": (kv * dim,), "attn_v.bias": (kv * value,)})

    def dense(self, layer: int, width: int) -> None:
        self.add(layer, {"ffn_gate": (self.hidden, width), "ffn_up": (self.hidden, width), "ffn_down": (width, self.hidden)})

    def experts(
        self, layer: int, count: int, used: int, width: int, shared: int = 0, *, correction: bool = True, gate: bool = True
    ) -> None:
        h = self.hidden
        self.add(layer, {"ffn_gate_inp": (h, count), "ffn_up_exps": (h, width, count), "ffn_down_exps": (width, h, count)})
        if correction:
            self.add(layer, {"exp_probs_b.bias": (count,)})
        if shared:
            self.add(layer, {"ffn_up_shexp": (h, shared), "ffn_down_shexp": (shared, h)})
        if gate:
            self.add(layer, {"ffn_gate_exps": (h, width, count)} | ({"ffn_gate_shexp": (h, shared)} if shared else {}))
        self.metadata |= {"expert_count": count, "expert_used_count": used, "expert_feed_forward_length": width}

    def write(self, path: Path) -> None:
        writer = gguf.GGUFWriter(path, self.architecture)
        for key, value in self.metadata.items():
            add = writer.add_array if isinstance(value, list) else writer.add_uint32
            add(f"{self.architecture}.{key}", value)
        for name, shape in self.tensors.items():
            writer.add_tensor(name, np.zeros(shape[::-1], np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _layers(c: Config) -> range:
    return range(c["num_hidden_layers"])


def _head(c: Config) -> int:
    return int(c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])


def _mixture(f: File, i: int, *, first: int, shared: int, correction: bool = True) -> None:
    """A dense MLP in the first layers, then experts, under any of the names of configs."""
    c = f.c
    if i < first:
        return f.dense(i, c["intermediate_size"])
    count = c.get("n_routed_experts") or c.get("num_experts") or c.get("num_local_experts") or c["moe_num_experts"]
    used = c.get("num_experts_per_tok") or c.get("num_experts_per_token") or c.get("moe_topk") or c["moe_k"]
    width = c.get("moe_intermediate_size") or c["intermediate_size"]
    return f.experts(i, count, used, width, shared * width, correction=correction)


def glm4moe(f: File) -> None:
    """With a layer that predicts further tokens, which is no part of the model."""
    c = f.c
    for i in range(c["num_hidden_layers"] + 1):
        f.norms(i, "attn_norm", "post_attention_norm")
        f.attend(i, _head(c), bias=c["attention_bias"])
        _mixture(f, i, first=c["first_k_dense_replace"], shared=c["n_shared_experts"])
    last = c["num_hidden_layers"]
    f.norms(last, "nextn.enorm", "nextn.hnorm")
    f.add(last, {"nextn.eh_proj": (2 * f.hidden, f.hidden)})
    f.metadata |= {"block_count": last + 1, "nextn_predict_layers": 1, "expert_shared_count": c["n_shared_experts"]}


def dots1(f: File) -> None:
    c = f.c
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, _head(c))
        f.add(i, {"attn_q_norm": (_head(c),), "attn_k_norm": (_head(c),)})
        _mixture(f, i, first=c["first_k_dense_replace"], shared=c["n_shared_experts"])


def minimax_m2(f: File) -> None:
    c, dim = f.c, _head(f.c)
    f.metadata |= {"attention.key_length": dim, "attention.value_length": dim}
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, dim)
        f.add(i, {"attn_q_norm": (c["num_attention_heads"] * dim,), "attn_k_norm": (c["num_key_value_heads"] * dim,)})
        _mixture(f, i, first=0, shared=0)


def hunyuan_moe(f: File) -> None:
    c, dim = f.c, _head(f.c)
    f.metadata |= {"attention.key_length": dim, "attention.value_length": dim}
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, dim)
        f.add(i, {"attn_q_norm": (dim,), "attn_k_norm": (dim,)})
        _mixture(f, i, first=0, shared=1, correction=False)


def ernie(f: File) -> None:
    c = f.c
    f.metadata |= {"interleave_moe_layer_step": 1, "leading_dense_block_count": c["moe_layer_start_index"], "expert_shared_count": 2}
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, _head(c))
        _mixture(f, i, first=c["moe_layer_start_index"], shared=c["moe_num_shared_experts"])


def afmoe(f: File) -> None:
    c, dim = f.c, _head(f.c)
    f.metadata |= {"attention.key_length": dim, "attention.value_length": dim, "attention.sliding_window": c["sliding_window"]}
    for i in _layers(c):
        f.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        f.attend(i, dim)
        f.add(i, {"attn_q_norm": (dim,), "attn_k_norm": (dim,), "attn_gate": (f.hidden, c["num_attention_heads"] * dim)})
        _mixture(f, i, first=c["num_dense_layers"], shared=c["num_shared_experts"])


def lfm2moe(f: File) -> None:
    c, h, dim = f.c, f.hidden, _head(f.c)
    full = [kind == "full_attention" for kind in c["layer_types"]]
    f.metadata |= {"shortconv.l_cache": c["conv_L_cache"], "attention.head_count_kv": [each * c["num_key_value_heads"] for each in full]}
    f.tensors["token_embd_norm.weight"] = f.tensors.pop("output_norm.weight")
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        if full[i]:
            f.attend(i, dim)
            f.add(i, {"attn_q_norm": (dim,), "attn_k_norm": (dim,)})
        else:
            f.add(i, {"shortconv.conv": (c["conv_L_cache"], h), "shortconv.in_proj": (h, 3 * h), "shortconv.out_proj": (h, h)})
        _mixture(f, i, first=c["num_dense_layers"], shared=0)


def _mamba2(f: File, i: int, inner: int, heads: int, groups: int, state: int, kernel: int) -> None:
    mixed = inner + 2 * groups * state
    f.add(i, {
        "ssm_in": (f.hidden, inner + mixed + heads), "ssm_conv1d": (kernel, mixed), "ssm_conv1d.bias": (mixed,), "ssm_dt.bias": (heads,),
        "ssm_a": (1, heads), "ssm_d": (1, heads), "ssm_norm": (inner // groups, groups), "ssm_out": (inner, f.hidden),
    })  # fmt: skip
    f.metadata |= {
        "ssm.conv_kernel": kernel, "ssm.state_size": state, "ssm.group_count": groups, "ssm.inner_size": inner, "ssm.time_step_rank": heads,
    }  # fmt: skip


def granitehybrid(f: File) -> None:
    c = f.c
    f.metadata |= {"attention.head_count_kv": [0] * c["num_hidden_layers"]}
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        inner = c["mamba_n_heads"] * c["mamba_d_head"]
        _mamba2(f, i, inner, c["mamba_n_heads"], c["mamba_n_groups"], c["mamba_d_state"], c["mamba_d_conv"])
        f.experts(
            i, c["num_local_experts"], c["num_experts_per_tok"], c["intermediate_size"], c["shared_intermediate_size"], correction=False
        )


def nemotron_h_moe(f: File) -> None:
    """Every block is a mixer, or experts."""
    c, h = f.c, f.hidden
    kinds = "MEM*E-"
    f.metadata |= {
        "attention.key_length": 16, "attention.value_length": 16, "attention.head_count_kv": [2 * (kind == "*") for kind in kinds],
        "feed_forward_length": [0, 24, 0, 0, 24, 40], "moe_latent_size": 32,
    }  # fmt: skip
    for i, kind in enumerate(kinds):
        f.norms(i, "attn_norm")
        if kind == "M":
            _mamba2(f, i, 128, 8, 2, 16, 4)
        elif kind == "*":
            f.attend(i, 16)
        elif kind == "-":
            f.add(i, {"ffn_up": (h, 40), "ffn_down": (40, h)})
        else:
            f.experts(i, c["num_experts"], 2, 24, 48, gate=False)
            f.add(i, {"ffn_up_exps": (32, 24, 8), "ffn_down_exps": (24, 32, 8), "ffn_latent_down": (h, 32), "ffn_latent_up": (32, h)})


def jamba(f: File) -> None:
    c, h = f.c, f.hidden
    inner, rank, state, kernel = c["mamba_expand"] * h, c["mamba_dt_rank"], c["mamba_d_state"], c["mamba_d_conv"]
    full = [i % c["attn_layer_period"] == c["attn_layer_offset"] for i in _layers(c)]
    f.metadata |= {
        "attention.head_count_kv": [each * c["num_key_value_heads"] for each in full], "ssm.conv_kernel": kernel, "ssm.inner_size": inner,
        "ssm.state_size": state, "ssm.time_step_rank": rank,
    }  # fmt: skip
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        if full[i]:
            f.attend(i, _head(c))
        else:
            f.add(i, {
                "ssm_in": (h, 2 * inner), "ssm_conv1d": (kernel, inner), "ssm_conv1d.bias": (inner,), "ssm_x": (inner, rank + 2 * state),
                "ssm_dt": (rank, inner), "ssm_dt.bias": (inner,), "ssm_dt_norm": (rank,), "ssm_b_norm": (state,), "ssm_c_norm": (state,),
                "ssm_a": (state, inner), "ssm_d": (inner,), "ssm_out": (inner, h),
            })  # fmt: skip
        if i % c["expert_layer_period"] == c["expert_layer_offset"]:
            f.experts(i, c["num_experts"], c["num_experts_per_tok"], c["intermediate_size"], correction=False)
        else:
            f.dense(i, c["intermediate_size"])


def qwen3next(f: File) -> None:
    c, h, dim, heads = f.c, f.hidden, _head(f.c), f.c["num_attention_heads"]
    keys, values = c["linear_num_key_heads"] * c["linear_key_head_dim"], c["linear_num_value_heads"] * c["linear_value_head_dim"]
    f.metadata |= {
        "attention.key_length": dim, "attention.value_length": dim, "ssm.conv_kernel": c["linear_conv_kernel_dim"],
        "ssm.state_size": c["linear_key_head_dim"], "ssm.group_count": c["linear_num_key_heads"],
        "ssm.time_step_rank": c["linear_num_value_heads"], "ssm.inner_size": values,
    }  # fmt: skip
    for i, kind in enumerate(c["layer_types"]):
        f.norms(i, "attn_norm", "post_attention_norm")
        if kind == "full_attention":
            f.attend(i, dim)
            f.add(i, {"attn_q": (h, 2 * heads * dim), "attn_q_norm": (dim,), "attn_k_norm": (dim,)})
        else:
            rank = c["linear_num_value_heads"]
            f.add(i, {
                "attn_qkv": (h, 2 * keys + values), "attn_gate": (h, values), "ssm_ba": (h, 2 * rank), "ssm_dt.bias": (rank,),
                "ssm_conv1d": (c["linear_conv_kernel_dim"], 2 * keys + values), "ssm_a": (rank,),
                "ssm_norm": (c["linear_value_head_dim"],), "ssm_out": (values, h),
            })  # fmt: skip
        _mixture(f, i, first=0, shared=1, correction=False)
        f.add(i, {"ffn_gate_inp_shexp": (h,)})


def _latent(f: File, i: int) -> None:
    c, h, heads = f.c, f.hidden, f.c["num_attention_heads"]
    rope, plain, value = c["qk_rope_head_dim"], c["qk_nope_head_dim"], c["v_head_dim"]
    latent, query, wide = c["kv_lora_rank"], c["q_lora_rank"], heads * c["v_head_dim"]
    f.add(i, {
        "attn_q_a": (h, query), "attn_q_a_norm": (query,), "attn_q_b": (query, heads * (plain + rope)), "attn_kv_a_mqa": (h, latent + rope),
        "attn_kv_a_norm": (latent,), "attn_k_b": (plain, latent, heads), "attn_v_b": (latent, value, heads), "attn_output": (wide, h),
    })  # fmt: skip
    f.metadata |= {
        "attention.q_lora_rank": query, "attention.kv_lora_rank": latent, "attention.key_length": latent + rope,
        "attention.value_length": latent, "attention.key_length_mla": plain + rope, "attention.value_length_mla": value,
        "rope.dimension_count": rope,
    }  # fmt: skip


def deepseek2(f: File) -> None:
    """Kimi K2 among others."""
    f.metadata |= {"attention.head_count_kv": 1}
    for i in _layers(f.c):
        f.norms(i, "attn_norm", "ffn_norm")
        _latent(f, i)
        _mixture(f, i, first=f.c["first_k_dense_replace"], shared=f.c["n_shared_experts"])


def kimi_linear(f: File) -> None:
    c, h = f.c, f.hidden
    heads, dim, kernel = c["num_attention_heads"], c["linear_head_dim"], c["linear_conv_kernel_dim"]
    full = [kind == "full_attention" for kind in c["layer_types"]]
    wide = heads * dim
    f.metadata |= {"attention.head_count_kv": [int(each) for each in full], "kda.head_dim": dim, "ssm.conv_kernel": kernel}
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        if full[i]:
            _latent(f, i)
        else:
            for name in "qkv":
                f.add(i, {f"attn_{name}": (h, wide), f"ssm_conv1d_{name}": (kernel, 1, wide, 1)})
            f.add(i, {
                "ssm_f_a": (h, dim), "ssm_f_b": (dim, wide), "ssm_g_a": (h, dim), "ssm_g_b": (dim, wide), "ssm_beta": (h, heads),
                "ssm_a": (1, heads, 1, 1), "ssm_dt.bias": (wide,), "ssm_norm": (dim,), "attn_output": (wide, h),
            })  # fmt: skip
        _mixture(f, i, first=c["mlp_layer_types"].index("sparse"), shared=c["num_shared_experts"])


def gemma4(f: File) -> None:
    c, h = f.c, f.hidden
    full = next(iter(c["per_layer_config"].values()))["head_dim"]
    sliding = [kind == "sliding_attention" for kind in c["layer_types"]]
    f.metadata |= {
        "attention.key_length": full, "attention.value_length": full, "attention.key_length_swa": c["head_dim"],
        "attention.value_length_swa": c["head_dim"], "attention.sliding_window": c["sliding_window"],
        "attention.sliding_window_pattern": sliding, "attention.shared_kv_layers": c["num_kv_shared_layers"],
        "embedding_length_per_layer_input": 0,
    }  # fmt: skip
    f.tensors["rope_freqs.weight"] = (256,)
    for i in _layers(c):
        norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")
        f.norms(i, *norms)
        dim = c["head_dim"] if sliding[i] else full
        f.attend(i, dim, values=sliding[i] or not c["attention_k_eq_v"])
        f.add(i, {"attn_q_norm": (dim,), "attn_k_norm": (dim,), "layer_output_scale": (1,)})
        borrows = i >= c["num_hidden_layers"] - c["num_kv_shared_layers"]
        f.dense(i, c["intermediate_size"] * (1 + (borrows and c["use_double_wide_mlp"])))
        for name in ("attn_k", "attn_v", "attn_k_norm"):
            if borrows:
                f.tensors.pop(f"blk.{i}.{name}.weight", None)
        if not c["enable_moe_block"]:
            for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
                del f.tensors[f"blk.{i}.{name}.weight"]
            continue
        f.experts(i, c["num_experts"], c["top_k_experts"], c["moe_intermediate_size"], correction=False, gate=False)
        del f.tensors[f"blk.{i}.ffn_up_exps.weight"]
        both = {"ffn_gate_up_exps": (h, 2 * c["moe_intermediate_size"], c["num_experts"])}
        f.add(i, both | {"ffn_gate_inp.scale": (h,), "ffn_down_exps.scale": (c["num_experts"],)})
    if c["hidden_size_per_layer_input"]:
        _own_embeddings(f)


def _normed(f: File, *, first: int, shared: int, correction: bool) -> None:
    """Layers with norms of queries and keys per head."""
    c, dim = f.c, _head(f.c)
    f.metadata |= {"attention.key_length": dim, "attention.value_length": dim}
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, dim)
        f.add(i, {"attn_q_norm": (dim,), "attn_k_norm": (dim,)})
        _mixture(f, i, first=first, shared=shared, correction=correction)


def mellum(f: File) -> None:
    _normed(f, first=0, shared=0, correction=False)


def hy_v3(f: File) -> None:
    _normed(f, first=1, shared=f.c["num_shared_experts"], correction=True)


def laguna(f: File) -> None:
    """With a gate per head, and shared experts of a width of their own."""
    c, width = f.c, f.c["shared_expert_intermediate_size"]
    _normed(f, first=1, shared=0, correction=True)
    for i in _layers(c):
        f.add(i, {"attn_gate": (f.hidden, c["num_attention_heads"])})
        if i:
            f.add(i, {"ffn_gate_shexp": (f.hidden, width), "ffn_up_shexp": (f.hidden, width), "ffn_down_shexp": (width, f.hidden)})


def cohere2moe(f: File) -> None:
    c, dim = f.c, _head(f.c)
    sliding = [kind == "sliding_attention" for kind in c["layer_types"]]
    f.metadata |= {"attention.key_length": dim, "attention.value_length": dim, "attention.sliding_window": c["sliding_window"],
                   "attention.sliding_window_pattern": sliding}  # fmt: skip
    for i in _layers(c):
        f.norms(i, "attn_norm")
        f.attend(i, dim)
        _mixture(f, i, first=0, shared=c["num_shared_experts"], correction=False)


def _own_embeddings(f: File) -> None:
    """Embeddings of every layer, as Gemma 3n and 4 have them."""
    c, h, own = f.c, f.hidden, f.c["hidden_size_per_layer_input"]
    wide = own * c["num_hidden_layers"]
    f.tensors["per_layer_token_embd.weight"] = (wide, c["vocab_size_per_layer_input"])
    f.tensors["per_layer_model_proj.weight"], f.tensors["per_layer_proj_norm.weight"] = (h, wide), (own,)
    f.metadata["embedding_length_per_layer_input"] = own
    for i in _layers(c):
        f.add(i, {"inp_gate": (h, own), "proj": (own, h), "post_norm": (h,)})


def gemma3n(f: File) -> None:
    c, h, dim, count, rank = f.c, f.hidden, f.c["head_dim"], f.c["altup_num_inputs"], f.c["laurel_rank"]
    borrowed = c["num_hidden_layers"] - c["num_kv_shared_layers"]
    sliding = [kind == "sliding_attention" for kind in c["layer_types"]]
    f.metadata |= {
        "attention.key_length": dim, "attention.value_length": dim, "attention.sliding_window": c["sliding_window"],
        "attention.sliding_window_pattern": sliding, "attention.shared_kv_layers": c["num_kv_shared_layers"], "altup.num_inputs": count,
        "feed_forward_length": c["intermediate_size"],
    }  # fmt: skip
    f.tensors |= dict.fromkeys(("altup_proj.weight", "altup_unembd_proj.weight"), (h, h, count - 1))
    for i in _layers(c):
        f.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "altup_correct_scale", "altup_router_norm")
        f.norms(i, "laurel_post_norm")
        f.attend(i, dim)
        f.add(i, {"attn_q_norm": (dim,), "attn_k_norm": (dim,), "laurel_l": (h, rank), "laurel_r": (rank, h)})
        f.add(i, {"altup_correct_coef": (count, count), "altup_predict_coef": (count, count**2), "altup_router": (h, count)})
        if i >= borrowed:
            for name in ("attn_k", "attn_v", "attn_k_norm"):
                del f.tensors[f"blk.{i}.{name}.weight"]
        f.dense(i, c["intermediate_size"][i] if isinstance(c["intermediate_size"], list) else c["intermediate_size"])
    _own_embeddings(f)


def _sliding(f: File) -> list[bool]:
    pattern = [i % 3 != 0 for i in _layers(f.c)]
    f.metadata |= {"attention.sliding_window": 128, "attention.sliding_window_pattern": pattern, "attention.key_length": 24}
    return pattern


def mimo2(f: File) -> None:
    """Keys wider than values, sinks and more KV heads in layers with a window."""
    for i, slides in enumerate(_sliding(f)):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, 24, kv=4 if slides else 2, value=16)
        if slides:
            f.add(i, {"attn_sinks": (8,)})
        _mixture(f, i, first=1, shared=0)
    f.metadata |= {"attention.value_length": 16, "attention.head_count_kv": [4 if i % 3 else 2 for i in _layers(f.c)]}


def step35(f: File) -> None:
    """More query heads in layers with a window, a gate per head."""
    for i, slides in enumerate(_sliding(f)):
        heads = 12 if slides else 8
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, 24, heads=heads)
        f.add(i, {"attn_q_norm": (24,), "attn_k_norm": (24,), "attn_gate": (f.hidden, heads)})
        _mixture(f, i, first=1, shared=1)
    f.metadata |= {"attention.value_length": 24, "attention.head_count": [12 if i % 3 else 8 for i in _layers(f.c)]}


def bailingmoe2(f: File) -> None:
    c, dim = f.c, 16
    f.metadata |= {"attention.key_length": dim, "attention.value_length": dim}
    for i in _layers(c):
        f.norms(i, "attn_norm", "ffn_norm")
        wide = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * dim
        f.add(i, {"attn_qkv": (f.hidden, wide), "attn_output": (c["num_attention_heads"] * dim, f.hidden)})
        f.add(i, {"attn_q_norm": (dim,), "attn_k_norm": (dim,)})
        _mixture(f, i, first=1, shared=1)


def smallthinker(f: File) -> None:
    for i in _layers(f.c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, 24)
        _mixture(f, i, first=0, shared=0, correction=False)
    f.metadata |= {"attention.key_length": 24, "attention.value_length": 24, "attention.sliding_window": 128}
    f.metadata |= {"attention.sliding_window_pattern": [i % 4 != 0 for i in _layers(f.c)]}


def grovemoe(f: File) -> None:
    """Two neighbouring experts have a small one in common."""
    for i in _layers(f.c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, 24)
        f.add(i, {"attn_q_norm": (24,), "attn_k_norm": (24,)})
        _mixture(f, i, first=0, shared=0, correction=False)
        chunks = f.c["num_experts"] // 2
        f.add(i, {"ffn_gate_chexps": (f.hidden, 16, chunks), "ffn_up_chexps": (f.hidden, 16, chunks)})
        f.add(i, {"ffn_down_chexps": (16, f.hidden, chunks)})
    f.metadata |= {"attention.key_length": 24, "attention.value_length": 24, "expert_chunk_feed_forward_length": 16}


def minimax_m3(f: File) -> None:
    """An indexer in the layers with experts, one expert for all tokens."""
    for i in _layers(f.c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, 24)
        f.add(i, {"attn_q_norm": (24,), "attn_k_norm": (24,)})
        _mixture(f, i, first=2, shared=1)
        if i >= 2:
            f.add(i, {"indexer.q_proj": (f.hidden, 2 * 16), "indexer.k_proj": (f.hidden, 16)})
            f.add(i, {"indexer.q_norm": (16,), "indexer.k_norm": (16,)})
    f.metadata |= {
        "attention.key_length": 24, "attention.value_length": 24, "attention.indexer.head_count": 2, "attention.indexer.key_length": 16,
        "attention.indexer.top_k": 4, "attention.indexer.block_size": 32,
    }  # fmt: skip


_MLA: Config = {"q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}


def deepseek32(f: File) -> None:
    f.c = {**f.c, **_MLA}
    f.metadata |= {
        "attention.head_count_kv": 1, "attention.indexer.head_count": 2, "attention.indexer.key_length": 16,
        "attention.indexer.top_k": 64,
    }  # fmt: skip
    for i in _layers(f.c):
        f.norms(i, "attn_norm", "ffn_norm")
        _latent(f, i)
        f.add(i, {"indexer.attn_q_b": (48, 32), "indexer.attn_k": (f.hidden, 16), "indexer.proj": (f.hidden, 2)})
        f.add(i, {"indexer.k_norm": (16,), "indexer.k_norm.bias": (16,)})
        _mixture(f, i, first=1, shared=1)


def deci(f: File) -> None:
    """A block may lack attention or MLP, or have one matrix instead of attention."""
    widths = [96, 0, 128, 96, 64, 96]
    for i in _layers(f.c):
        if i == 3:
            f.norms(i, "attn_norm")
            f.add(i, {"attn_output": (f.hidden, f.hidden)})
        elif i != 2:
            f.norms(i, "attn_norm")
            f.attend(i, 8, kv=4 if i else 2)
        if widths[i]:
            f.norms(i, "ffn_norm")
            f.dense(i, widths[i])
    f.metadata |= {
        "attention.head_count": [0 if i == 2 else 8 for i in _layers(f.c)],
        "attention.head_count_kv": [0 if i in (2, 3) else 4 if i else 2 for i in _layers(f.c)], "feed_forward_length": widths,
    }  # fmt: skip


def gptoss(f: File) -> None:
    """As Ollama's converter wrote it, under names of its own."""
    for i in _layers(f.c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, 24, bias=True)
        f.add(i, {"attn_output.bias": (f.hidden,)})
        for end in ("weight", "bias"):
            f.tensors[f"blk.{i}.attn_out.{end}"] = f.tensors.pop(f"blk.{i}.attn_output.{end}")
        f.tensors[f"blk.{i}.attn_sinks"] = (8,)
        _mixture(f, i, first=0, shared=0, correction=False)
        count, width = f.c["num_experts"], f.c["moe_intermediate_size"]
        f.add(i, {"ffn_gate_inp.bias": (count,), "ffn_down_exps.bias": (f.hidden, count)})
        f.add(i, {f"ffn_{name}_exps.bias": (width, count) for name in ("gate", "up")})
    f.metadata |= {"attention.key_length": 24, "attention.value_length": 24, "attention.sliding_window": 128}


def glm4moelite(f: File) -> None:
    f.c = {**f.c, **_MLA, "first_k_dense_replace": 1, "n_shared_experts": 1}
    deepseek2(f)


def deepseekocr(f: File) -> None:
    for i in _layers(f.c):
        f.norms(i, "attn_norm", "ffn_norm")
        f.attend(i, 8)
        _mixture(f, i, first=1, shared=2, correction=False)


def grok(f: File) -> None:
    """Grok 2: a dense MLP beside the experts."""
    for i in _layers(f.c):
        f.norms(i, "attn_norm", "attn_output_norm", "ffn_norm", "post_ffw_norm")
        f.attend(i, 24)
        f.dense(i, 80)
        _mixture(f, i, first=0, shared=0, correction=False)
    f.metadata |= {"attention.key_length": 24, "attention.value_length": 24}


FROM_CONFIGS: dict[str, tuple[str, Callable[[File], None]]] = {
    "glm4_moe": ("glm4moe", glm4moe), "dots1": ("dots1", dots1), "minimax_m2": ("minimax-m2", minimax_m2),
    "hunyuan_v1_moe": ("hunyuan-moe", hunyuan_moe), "ernie4_5_moe": ("ernie4_5-moe", ernie), "afmoe": ("afmoe", afmoe),
    "lfm2_moe": ("lfm2moe", lfm2moe), "granitemoehybrid": ("granitehybrid", granitehybrid), "jamba": ("jamba", jamba),
    "qwen3_next": ("qwen3next", qwen3next), "deepseek_v3": ("deepseek2", deepseek2), "kimi_linear": ("kimi-linear", kimi_linear),
    "gemma4_text": ("gemma4", gemma4), "gemma3n_text": ("gemma3n", gemma3n), "mellum": ("mellum", mellum), "hy_v3": ("hy_v3", hy_v3),
    "cohere2_moe": ("cohere2moe", cohere2moe), "laguna": ("laguna", laguna),
}  # fmt: skip
CASES = [(*FROM_CONFIGS[each["config"]["model_type"]], each) for each in BUILT if each["config"]["model_type"] in FROM_CONFIGS]

UNLIKE: Mapping[str, Config] = {
    "glm4moe": {}, "lfm2moe": {"tie_word_embeddings": True}, "kimi-linear": {"num_attention_heads": 32},
}  # fmt: skip
"""What no file has: biases of all attention, a head beside tied tables, and numbers of heads that GGUF has one key for."""

SMALL: Config = {
    "num_hidden_layers": 6, "hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 500,
    "intermediate_size": 96, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
}  # fmt: skip
OWN = {
    "mimo2": mimo2, "step35": step35, "nemotron_h_moe": nemotron_h_moe, "bailingmoe2": bailingmoe2, "grok": grok,
    "smallthinker": smallthinker, "grovemoe": grovemoe, "minimax-m3": minimax_m3, "deepseek32": deepseek32,
    "gptoss": gptoss, "glm4moelite": glm4moelite, "deepseekocr": deepseekocr,
}  # fmt: skip
NEWER = {f"blk.0.{name}" for name in (
    "indexer.q_proj", "indexer.k_proj", "indexer.q_norm", "indexer.k_norm", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj",
    "attn_out", "attn_sinks",
)}  # fmt: skip
"""Tensors that the gguf package does not list for any of the architectures it lacks: of llama.cpp, and of Ollama's gptoss."""


def written(architecture: str, build: Callable[[File], None], config: Config, path: Path) -> File:
    file = File(architecture, config)
    build(file)
    known = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), None)
    tensors = gguf.TENSOR_NAMES if known is None else gguf.MODEL_TENSORS[known]
    listed = {gguf.TENSOR_NAMES[tensor].replace("{bid}", "0") for tensor in tensors} | (NEWER if known is None else set())
    for name in file.tensors:
        stem, first = name.removesuffix(".weight").removesuffix(".bias").removesuffix(".scale"), name.split(".")[1]
        assert stem.replace(f"blk.{first}.", "blk.0.") in listed, name
    file.write(path)
    return file


@pytest.mark.parametrize(("architecture", "build", "each"), CASES, ids=[f"{name}-{each['total']}" for name, _, each in CASES])
def test_a_file_has_the_weights_that_transformers_builds(
    architecture: str, build: Callable[[File], None], each: dict[str, Any], tmp_path: Path
) -> None:
    config = {**each["config"], **UNLIKE.get(architecture, {"attention_bias": False})}
    expected = from_config("built", config)
    written(architecture, build, config, tmp_path / "model.gguf")
    read = read_weights(str(tmp_path / "model.gguf"))
    assert read.model.params == expected.params == sum(part.params for part in read.parts if part.role != Role.OTHER)
    assert {**config, **each["config"]} != config or expected.params == each["total"]
    assert read.model.active("both") == expected.active("both")
    assert read.model.cache_elements(1000) == expected.cache_elements(1000)
    for role in Role:
        if role not in (Role.OTHER, Role.ATTENTION, Role.KEYS, Role.LATENT, Role.NORM):
            counts = [sum(part.params for part in parts if part.role == role) for parts in (read.parts, expected.parts)]
            assert counts[0] == counts[1], role


@pytest.mark.parametrize("architecture", sorted(OWN))
def test_dimensions_give_the_weights_of_the_tensors(architecture: str, tmp_path: Path) -> None:
    file = written(architecture, OWN[architecture], SMALL, tmp_path / "model.gguf")
    weights = read_weights(str(tmp_path / "model.gguf"))
    assert weights.model.params == sum(math.prod(shape) for shape in file.tensors.values())
    assert weights.notes == ()
    assert weights.model.experts is not None
    assert (weights.model.experts.count, weights.model.experts.top_k) == (8, 2)


def test_blocks_may_lack_attention_or_an_mlp(tmp_path: Path) -> None:
    file = written("deci", deci, SMALL, tmp_path / "deci.gguf")
    weights = read_weights(str(tmp_path / "deci.gguf"))
    assert weights.model.params == sum(math.prod(shape) for shape in file.tensors.values())
    layers = weights.model.layers
    assert [layer.attention is not None for layer in layers] == [True, True, False, False, True, True]
    assert [layer.dense for layer in layers] == [96, 0, 128, 96, 64, 96]
    assert [mixer.kv_heads for mixer in weights.model.mixers] == [2, 4, 4, 4]
    assert layers[3].beside == 64**2


def test_an_indexer_is_where_its_tensors_are(tmp_path: Path) -> None:
    written("minimax-m3", minimax_m3, SMALL, tmp_path / "m3.gguf")
    full, indexed = (read_weights(str(tmp_path / "m3.gguf")).model.layers[i].attention for i in (0, 2))
    assert isinstance(full, Attention)
    assert isinstance(indexed, Attention)
    assert full.selection is None
    assert indexed.selection is not None
    assert (indexed.selection.tokens, indexed.selection.heads, indexed.selection.dim) == (4 * 32, 2, 16)


def test_what_layers_differ_in(tmp_path: Path) -> None:
    written("mimo2", mimo2, SMALL, tmp_path / "mimo.gguf")
    first, second = (layer.attention for layer in read_weights(str(tmp_path / "mimo.gguf")).model.layers[:2])
    assert isinstance(first, Attention)
    assert isinstance(second, Attention)
    assert (first.window, first.kv_heads, first.sinks, first.key_dim, first.value_dim) == (None, 2, False, 24, 16)
    assert (second.window, second.kv_heads, second.sinks) == (128, 4, True)
    written("nemotron_h_moe", nemotron_h_moe, SMALL, tmp_path / "nemotron.gguf")
    layers = read_weights(str(tmp_path / "nemotron.gguf")).model.layers
    assert [isinstance(layer.attention, Recurrence) for layer in layers] == [True, False, True, False, False, False]
    assert [layer.experts is not None for layer in layers] == [False, True, False, False, True, False]


def test_at_least_fifteen_new_architectures() -> None:
    assert len({name for name, _, _ in CASES} | set(OWN)) >= 15
    assert {name for name, _, _ in CASES} | set(OWN) <= set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("architecture", "drop", "message"),
    [
        ("glm5moe", "", r"GGUF architecture 'glm5moe' is not supported\n  did you mean 'glm4moe'"),
        ("dots1", "metadata embedding_length", "lacks embedding_length"),
        ("dots1", "metadata block_count", "lacks block_count"),
        ("dots1", "metadata expert_used_count", "lacks num_experts_per_tok"),
        ("dots1", "tensor token_embd.weight", "holds no token embeddings"),
        ("dots1", "tensor blk.3.", "of its 6 layers 1 have no tensors, the first is 3"),
    ],
)
def test_what_is_missing_is_one_sentence(architecture: str, drop: str, message: str, tmp_path: Path) -> None:
    file = File(architecture, {**SMALL, "n_shared_experts": 1, "first_k_dense_replace": 1})
    dots1(file)
    what, _, name = drop.partition(" ")
    if what == "metadata":
        del file.metadata[name]
    elif what:
        file.tensors = {each: shape for each, shape in file.tensors.items() if not each.startswith(name)}
    file.write(tmp_path / "model.gguf")
    with pytest.raises(UserError, match=message) as raised:
        read_weights(str(tmp_path / "model.gguf"))
    assert raised.value.file == tmp_path / "model.gguf"


@pytest.mark.parametrize("architecture", sorted(OWN))
def test_metadata_of_the_wrong_type_is_one_sentence(architecture: str) -> None:
    file = File(architecture, SMALL)
    OWN[architecture](file)
    for key in file.metadata:
        for wrong in (0, -1, "x", [], [1], ["x"], True, 1.5, [0] * 6, [1.5] * 6, 2**31):
            metadata = {f"{architecture}.{each}": value for each, value in (file.metadata | {key: wrong}).items()}
            try:
                total = from_config("x", gguf_config(architecture, metadata, file.tensors)).params
            except UserError as error:
                assert "\n" not in error.message
            else:
                assert isinstance(total, int), (key, wrong)
                assert total > 0, (key, wrong)


@pytest.mark.parametrize(("name", "shape"), [("token_embd.weight", (64,)), ("blk.0.ffn_down.weight", ()), ("blk.0.attn_q.weight", (0, 64))])
def test_shape_of_a_tensor_that_cannot_be(name: str, shape: tuple[int, ...]) -> None:
    file = File("mimo2", SMALL)
    mimo2(file)
    metadata = {f"mimo2.{key}": value for key, value in file.metadata.items()}
    with pytest.raises(UserError, match=re.escape(name)):
        gguf_config("mimo2", metadata, {**file.tensors, name: shape})
