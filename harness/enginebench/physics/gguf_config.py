"""The config.json that a GGUF file amounts to: its metadata by meaning (`field_names`), and what only its tensors show.

Metadata has widths, heads and windows; the names and shapes of the tensors say which layer has which mixer, experts, biases and norms.
Knows the architectures and keys of llama.cpp. Does not know: files, and how sizes follow from a config (`config`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from enginebench.checkpoints.families import FAMILIES as RANDOM_FAMILIES
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.families import FAMILIES, Family
from enginebench.physics.field_names import MEANINGS

ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "olmoe": "olmoe",
    "granitemoe": "granitemoe", "gpt-oss": "gpt_oss", "llama4": "llama4_text", "deepseek2": "deepseek_v3",
    "qwen3vl": "qwen3_vl_text", "qwen3vlmoe": "qwen3_moe", "qwen3next": "qwen3_next", "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text", "rnd1": "qwen3_moe", "llada-moe": "olmoe", "phi3": "phi3", "phimoe": "phimoe",
    "gemma2": "gemma2", "gemma3": "gemma3_text", "gemma4": "gemma4_text", "glm4": "glm4", "glm4moe": "glm4_moe",
    "glm-dsa": "glm_moe_dsa", "cohere2": "cohere2", "dbrx": "dbrx", "arctic": "arctic", "grok": "grok-1", "jamba": "jamba",
    "exaone4": "exaone4", "exaone-moe": "exaone_moe", "granitehybrid": "granitemoehybrid", "nemotron_h": "nemotron_h",
    "nemotron_h_moe": "nemotron_h", "deepseek": "aria_text", "bailingmoe": "bailing_moe", "bailingmoe2": "bailing_moe_v2",
    "dots1": "dots1", "afmoe": "afmoe", "ernie4_5-moe": "ernie4_5_moe", "hunyuan-moe": "hunyuan_v1_moe",
    "hunyuan-dense": "hunyuan_v1_dense", "lfm2moe": "lfm2_moe", "minimax-m2": "minimax_m2", "mimo2": "mimo_v2_flash",
    "step35": "step3p7", "seed_oss": "seed_oss", "mistral3": "ministral3", "mistral4": "mistral4", "minicpm3": "minicpm3",
    "kimi-linear": "kimi_linear", "lfm2": "lfm2_moe", "granite": "granitemoe", "smollm3": "llama", "internlm2": "llama", "gemma": "llama",
    "ernie4_5": "llama", "olmo2": "olmoe", "command-r": "cohere2",
}  # fmt: skip
"""Architectures of GGUF files -> families of the same layers."""

_KEYS = {
    "layers": "block_count", "hidden": "embedding_length", "heads": "attention.head_count", "kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "value_dim": "attention.value_length", "sliding.head_dim": "attention.key_length_swa",
    "sliding.value_dim": "attention.value_length_swa", "context": "context_length", "window": "attention.sliding_window",
    "experts": "expert_count", "top_k": "expert_used_count", "query_latent": "attention.q_lora_rank",
    "latent": "attention.kv_lora_rank", "rope_dim": "rope.dimension_count", "index_heads": "attention.indexer.head_count",
    "index_dim": "attention.indexer.key_length", "index_tokens": "attention.indexer.top_k", "borrowing": "attention.shared_kv_layers",
    "full_every": "full_attention_interval",
}  # fmt: skip
"""Meaning -> key of GGUF, without the architecture's prefix."""

_OTHERS = {
    "pattern": "attention.sliding_window_pattern", "nextn": "nextn_predict_layers", "key_mla": "attention.key_length_mla",
    "value_mla": "attention.value_length_mla", "kernel": "ssm.conv_kernel", "inner": "ssm.inner_size", "state": "ssm.state_size",
    "rank": "ssm.time_step_rank", "groups": "ssm.group_count", "kda": "kda.head_dim", "short": "shortconv.l_cache",
    "own_embeddings": "embedding_length_per_layer_input", "dense": "feed_forward_length",
}  # fmt: skip
"""Keys whose meaning depends on the family, or on the tensors."""

_BLOCK = re.compile(r"blk\.(\d+)\.(.*)")
_LLAMA4_CHUNK = 8192
"""Tokens of one attention chunk of Llama 4, which GGUF files do not state."""

Shape = tuple[int, ...]
_Block = Mapping[str, Shape]


def wanted(architecture: str) -> set[str]:
    """The keys of metadata to read."""
    return {f"{architecture}.{key}" for key in (*_KEYS.values(), *_OTHERS.values())}


def gguf_config(architecture: str, metadata: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The equivalent config.json. shapes: of every tensor, fastest axis first. UserError for an unknown architecture."""
    kind = _kind(architecture, shapes)
    if "token_embd.weight" not in shapes:
        raise UserError("holds no token embeddings, so it is no language model", advice="name the file with the weights of the text model")
    found = {short: metadata.get(f"{architecture}.{key}") for short, key in {**_KEYS, **_OTHERS}.items()}
    if kind == "llama" and found["experts"]:
        kind = "mixtral"
    family = FAMILIES.get(kind, {})
    blocks = _blocks(shapes, found)
    read = {meaning: _one(found[meaning], len(blocks)) for meaning in _KEYS}
    read["layers"] = len(blocks)
    read |= _mlps(blocks, found, family) | _attention(blocks, read) | _mixers(blocks, found, read, family) | _whole(shapes)
    if read["latent"]:
        read |= _latent(found, int(read["rope_dim"] or 0))
    if kind == "llama4_text":
        read["chunk"] = _LLAMA4_CHUNK
    if found["own_embeddings"]:
        read["hidden_size_per_layer_input"] = found["own_embeddings"]
    config = {MEANINGS[meaning][0] if meaning in MEANINGS else meaning: value for meaning, value in read.items() if value is not None}
    return {"model_type": kind, **config}


def _kind(architecture: str, shapes: Iterable[str]) -> str:
    random = {family.gguf for family in RANDOM_FAMILIES.values()}
    if architecture not in ARCHITECTURES and architecture not in random:
        known = {*ARCHITECTURES, *random}
        raise UserError(f"GGUF architecture '{architecture}' is not supported", advice=did_you_mean(architecture, known))
    kind = ARCHITECTURES.get(architecture, architecture)
    return "deepseek_v2" if kind == "deepseek_v3" and not any("exp_probs_b" in name for name in shapes) else kind


def _blocks(shapes: Mapping[str, Shape], found: Mapping[str, Any]) -> list[_Block]:
    """The tensors of every layer, without those that only predict further tokens: the last ones, which a file may also leave out."""
    blocks: dict[int, dict[str, Shape]] = defaultdict(dict)
    for name, shape in shapes.items():
        if block := _BLOCK.match(name):
            blocks[int(block[1])][block[2]] = shape
    for meaning in ("layers", "hidden", "heads"):
        if not found[meaning]:
            raise UserError(f"the GGUF metadata lacks {_KEYS[meaning]}", key=_KEYS[meaning], advice="convert the model again")
    count = int(found["layers"])
    predicting = [number for number, block in blocks.items() if any(name.startswith("nextn.") for name in block)]
    if predicting:
        count = min(predicting)
    elif found["nextn"] and count - found["nextn"] > max(blocks, default=-1):
        count -= found["nextn"]
    missing = [number for number in range(count) if not blocks[number]]
    if missing:
        raise UserError(f"of its {count} layers {len(missing)} have no tensors, the first is {missing[0]}", advice="fetch the file again")
    return [blocks[number] for number in range(count)]


def _one(value: Any, count: int) -> Any:
    """A list with a value per layer as one value, if all layers that have one agree."""
    if not isinstance(value, list):
        return value
    own = {each for each in value[:count] if each}
    return own.pop() if len(own) == 1 else value[:count]


def _whole(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    return {
        "vocab": shapes["token_embd.weight"][1],
        "tied": "output.weight" not in shapes,
        "head_bias": "output.bias" in shapes,
    }


def _has(blocks: Iterable[_Block], name: str) -> bool:
    return any(name in block for block in blocks)


def _mlps(blocks: list[_Block], found: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Widths, from what the matrices that project back read: (width, model) of an MLP, (width, model, experts) of experts."""

    def width(name: str) -> Any:
        return _one([block[name][0] if name in block else 0 for block in blocks], len(blocks)) or None

    shared, dense = width("ffn_down_shexp.weight"), width("ffn_down.weight")
    mixture = [block for block in blocks if "ffn_gate_inp.weight" in block]
    read: dict[str, Any] = {
        "dense": dense or _one(found["dense"], len(blocks)),
        "expert_width": width("ffn_down_exps.weight"),
        "mlp_bias": _has(blocks, "ffn_down.bias"),
        "mlp_types": ["sparse" if block in mixture else "dense" for block in blocks] if mixture else None,
        "shared_width": shared or (dense if family.get("dense_is_shared") else None),
        "shared_count": int(bool(shared)),
        "expert_latent": next((block["ffn_latent_down.weight"][1] for block in mixture if "ffn_latent_down.weight" in block), None),
        "residual_dense": _has(mixture, "ffn_down.weight") or None,
    }
    if mixture:
        read["correction"] = _has(mixture, "exp_probs_b.bias") or _has(mixture, "exp_probs_b") or _has(mixture, "ffn_gate_inp.bias")
    return read


def _attention(blocks: list[_Block], read: Mapping[str, Any]) -> dict[str, Any]:
    """Biases, norms and gates of the layers with attention."""
    own = [block for block in blocks if not _recurrent(block)]
    norm = next((block["attn_q_norm.weight"] for block in own if "attn_q_norm.weight" in block), None)
    heads = read["heads"] if isinstance(read["heads"], int) else 1
    widths = (read["sliding.head_dim"], read["head_dim"] or read["hidden"] // heads)
    bias = _has(own, "attn_output.bias")
    return {
        "attention_bias": bias,
        "output_bias": bias,
        "qkv_bias": _has(own, "attn_q.bias") or _has(own, "attn_qkv.bias"),
        "qk_norm": norm is not None,
        "qk_norm_kind": None if norm is None or len(norm) > 1 else "per_head" if norm[0] in widths else "per_layer",
        "gate": _has(own, "attn_gate.weight") or None,
        "one_projection": any("attn_k.weight" in block and "attn_v.weight" not in block for block in own) or None,
    }


def _recurrent(block: _Block) -> bool:
    return any(name.startswith(("ssm_", "shortconv.")) for name in block)


def _mixers(blocks: list[_Block], found: Mapping[str, Any], read: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The kind of every layer, where periods do not say it, and the dimensions of those with a state."""
    pattern = found["pattern"]
    sliding = pattern if isinstance(pattern, list) else [False] * len(blocks)
    kinds = [_mixer(block, sliding=bool(slides)) for block, slides in zip(blocks, sliding, strict=False)]
    out: dict[str, Any] = {}
    if isinstance(pattern, list) or set(kinds) != {"full_attention"}:
        out["layer_types"] = kinds
    elif isinstance(pattern, int) and pattern > 1:
        out["sliding_pattern"] = pattern
    of_kind = {kind: [block for block, each in zip(blocks, kinds, strict=True) if each == kind] for kind in set(kinds)}
    out["sinks"] = _has(of_kind.get("full_attention", []), "attn_sinks.weight")
    if "sliding_attention" in of_kind:
        out["sliding.sinks"] = _has(of_kind["sliding_attention"], "attn_sinks.weight")
    if "conv" in of_kind:
        out |= {"mamba_conv": found["short"], "conv_bias": _has(blocks, "shortconv.conv.bias")}
    if "linear_attention" in of_kind:
        out |= _state(found, read, str(family.get("linear"))) | {"conv_bias": _has(blocks, "ssm_conv1d.bias")}
    return out


def _mixer(block: _Block, *, sliding: bool) -> str:
    if any(name.startswith("shortconv.") for name in block):
        return "conv"
    if _recurrent(block):
        return "linear_attention"
    if any(name.startswith("attn_") and not name.startswith("attn_norm") for name in block):
        return "sliding_attention" if sliding else "full_attention"
    return "moe" if "ffn_gate_inp.weight" in block else "mlp"


def _state(found: Mapping[str, Any], read: Mapping[str, Any], linear: str) -> dict[str, Any]:
    """Dimensions of layers with a state. llama.cpp uses the same keys for all kinds, with other meanings."""
    kernel, inner, state, rank, groups = (found[key] for key in ("kernel", "inner", "state", "rank", "groups"))
    needed = {"mamba2": (inner, state, rank), "mamba": (inner, state, rank), "gated_delta": (inner, state, rank, groups)}
    if not all(needed.get(linear, (found["kda"],))):
        raise UserError("the GGUF metadata lacks dimensions of its layers with a state (ssm.* or kda.*)", advice="convert the model again")
    if linear == "mamba2":
        return {
            "mamba_heads": rank, "mamba_dim": inner // rank, "mamba_groups": groups or 1, "mamba_state": state, "mamba_conv": kernel,
        }  # fmt: skip
    if linear == "mamba":
        return {"mamba_rank": rank, "mamba_expand": inner // read["hidden"], "mamba_state": state, "mamba_conv": kernel}
    if linear == "gated_delta":
        return {
            "linear_key_heads": groups, "linear_value_heads": rank, "linear_key_dim": state, "linear_value_dim": inner // rank,
            "linear_conv": kernel,
        }  # fmt: skip
    return {"linear_heads": read["heads"], "linear_dim": found["kda"], "linear_conv": kernel}


def _latent(found: Mapping[str, Any], rope: int) -> dict[str, Any]:
    """Widths of a head of multi-head latent attention. Newer files state those of the compressed keys first, and these as `*_mla`."""
    plain = found["key_mla"] or found["head_dim"]
    return {"plain_dim": plain - rope, "value_dim": found["value_mla"] or found["value_dim"], "head_dim": None, "kv_heads": None}
