"""The config.json that a GGUF file amounts to: its metadata by meaning (`field_names`), and what only its tensors show.

Metadata has widths, heads and windows; the names and shapes of the tensors say which layer has which mixer, experts, biases and norms.
Does not know: names of architectures and keys (`gguf_names`), files, and how sizes follow from a config (`config`).
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
from enginebench.physics.gguf_names import ARCHITECTURES, KEYS, OTHERS, RENAMED

_BLOCK = re.compile(r"blk\.(\d+)\.(.*)")
_LLAMA4_CHUNK = 8192
"""Tokens of one attention chunk of Llama 4, which GGUF files do not state."""

Shape = tuple[int, ...]
_Block = Mapping[str, Shape]


def wanted(architecture: str) -> set[str]:
    """The keys of metadata to read."""
    return {f"{architecture}.{key}" for key in (*KEYS.values(), *OTHERS.values())}


def gguf_config(architecture: str, metadata: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The equivalent config.json. shapes: of every tensor, fastest axis first. UserError for an unknown architecture."""
    kind = _kind(architecture, shapes)
    if "token_embd.weight" not in shapes:
        raise UserError("holds no token embeddings, so it is no language model", advice="name the file with the weights of the text model")
    found = {short: metadata.get(f"{architecture}.{key}") for short, key in {**KEYS, **OTHERS}.items()}
    _check(found, shapes)
    if kind == "llama" and found["experts"]:
        kind = "mixtral"
    family = FAMILIES.get(kind, {})
    blocks = _blocks(shapes, found)
    read = {meaning: _one(found[meaning], len(blocks)) for meaning in KEYS}
    read["layers"] = len(blocks)
    read |= _mlps(blocks, found, family) | _attention(blocks, read) | _mixers(blocks, found, read, family) | _whole(shapes)
    if read["latent"]:
        read |= _latent(found, int(read["rope_dim"] or 0))
    if kind == "llama4_text":
        read["chunk"] = _LLAMA4_CHUNK
    if found["own_embeddings"]:
        read |= _own_embeddings(found, shapes, blocks)
    config = {MEANINGS[meaning][0] if meaning in MEANINGS else meaning: value for meaning, value in read.items() if value is not None}
    return {"model_type": kind, **config}


def _check(found: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    """Raise UserError for metadata that are no whole numbers, and for tensors of layers with too few axes."""
    for short, value in found.items():
        several = isinstance(value, list) and short in _PER_LAYER
        if not all(isinstance(each, int) and 0 <= each <= _MOST.get(short, each) for each in (value if several else [value or 0])):
            key = {**KEYS, **OTHERS}[short]
            raise UserError(f"the GGUF metadata has {key}: {str(value)[:60]!r}, which is not understood", key=key)
    for name, shape in shapes.items():
        read = name.startswith("blk.") or name.endswith(_MATRICES)
        if read and (len(shape) < (2 if name.endswith(_MATRICES) else 1) or not all(shape)):
            raise UserError(f"the tensor {name} has the shape {list(shape)}, which is not understood", advice="fetch the file again")


_PER_LAYER = frozenset({"heads", "kv_heads", "head_dim", "value_dim", "window", "experts", "top_k", "dense", "pattern"})
_MOST = {"layers": 10_000}
_MATRICES = ("token_embd.weight", "laurel_l.weight", "ffn_latent_down.weight", "ffn_routed_down.weight")


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
            blocks[int(block[1])][RENAMED.get(block[2], block[2])] = shape
    for meaning in ("layers", "hidden", "heads"):
        if not found[meaning] or found[meaning] is True:
            raise UserError(f"the GGUF metadata lacks {KEYS[meaning]}", key=KEYS[meaning], advice="convert the model again")
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
    kinds = ["sparse" if block in mixture else "dense" if "ffn_down.weight" in block else "no_op" for block in blocks]
    read: dict[str, Any] = {
        "dense": dense or _one(found["dense"], len(blocks)),
        "expert_width": width("ffn_down_exps.weight"),
        "mlp_bias": _has(blocks, "ffn_down.bias"),
        "mlp_types": kinds if set(kinds) != {"dense"} else None,
        "chunk_width": next((block["ffn_down_chexps.weight"][0] for block in mixture if "ffn_down_chexps.weight" in block), None),
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
        "residual_blocks": 1 if _has(own, "attn_res_score.weight") else None,
        "one_projection": any("attn_k.weight" in block and "attn_v.weight" not in block for block in own) or None,
    }


def _recurrent(block: _Block) -> bool:
    return any(name.startswith(("ssm_", "shortconv.")) for name in block)


def _mixers(blocks: list[_Block], found: Mapping[str, Any], read: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The kind of every layer, where periods do not say it, and the dimensions of those with a state."""
    pattern = found["pattern"]
    sliding = pattern if isinstance(pattern, list) else [False] * len(blocks)
    if len(sliding) < len(blocks):
        raise UserError(f"the GGUF metadata describes {len(sliding)} of {len(blocks)} layers in {OTHERS['pattern']}", key=OTHERS["pattern"])
    alone = not any(_attends(block) and _has_mlp(block) for block in blocks)
    kinds = [_mixer(block, sliding=bool(slides), alone=alone) for block, slides in zip(blocks, sliding, strict=False)]
    out: dict[str, Any] = {}
    if found["index_block"]:
        out |= {"index_blocks": read["index_tokens"], "index_block": found["index_block"]}
    if found["index_block"] or "indexed_attention" not in kinds:
        out["index_tokens"] = None
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


def _attends(block: _Block) -> bool:
    return any(name.startswith("attn_") and not name.startswith(("attn_norm", "attn_res")) for name in block)


def _has_mlp(block: _Block) -> bool:
    return "ffn_down.weight" in block or "ffn_gate_inp.weight" in block


def _mixer(block: _Block, *, sliding: bool, alone: bool) -> str:
    """alone: every block is a mixer or an MLP."""
    if any(name.startswith("shortconv.") for name in block):
        return "conv"
    if _recurrent(block):
        return "linear_attention"
    if any(name.startswith("indexer.") for name in block):
        return "indexed_attention"
    if _attends(block):
        if not any(name.startswith(("attn_q", "attn_kv")) for name in block):
            return "replace_with_linear"
        return "sliding_attention" if sliding else "full_attention"
    return ("moe" if "ffn_gate_inp.weight" in block else "mlp") if alone else "no_op"


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


def _own_embeddings(found: Mapping[str, Any], shapes: Mapping[str, Shape], blocks: list[_Block]) -> dict[str, Any]:
    """Of models whose layers have embeddings of their own."""
    table, rank = shapes.get("per_layer_token_embd.weight"), blocks[0].get("laurel_l.weight")
    return {
        "own_embeddings": found["own_embeddings"], "own_vocab": table and table[1], "laurel": rank and rank[1],
        "alternates": found["alternates"],
    }  # fmt: skip


def _latent(found: Mapping[str, Any], rope: int) -> dict[str, Any]:
    """Widths of a head of multi-head latent attention. Newer files state those of the compressed keys first, and these as `*_mla`."""
    plain = found["key_mla"] or found["head_dim"]
    return {"plain_dim": plain - rope, "value_dim": found["value_mla"] or found["value_dim"], "head_dim": None, "kv_heads": None}
