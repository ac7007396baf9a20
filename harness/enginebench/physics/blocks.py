"""`block_configs`, with which architecture search describes every layer, as fields that `field_names` knows.

A block has an attention and an MLP, each of which may be missing, or replaced by one matrix; heads, widths and experts differ by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enginebench.errors import UserError

_KEY = "block_configs"
_MULTIPLE = 256


def unfolded(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without `block_configs`, and with what they say. UserError for a block that is not understood."""
    blocks = config.get(_KEY)
    plain = {key: value for key, value in config.items() if key != _KEY}
    if blocks is None:
        return plain
    if not isinstance(blocks, list) or not all(isinstance(part, Mapping) for block in blocks for part in _parts(block)):
        raise UserError(f"the config of {name} has {_KEY} that are not a list of blocks with 'attention' and 'ffn'", key=_KEY)
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if not isinstance(heads, int) or not isinstance(hidden, int):
        raise UserError(f"the config of {name} lacks num_attention_heads or hidden_size", key="num_attention_heads")
    per_layer = {i: {**_heads(*_parts(block)[:1], heads), **_mlp(_parts(block)[1], hidden)} for i, block in enumerate(blocks)}
    return {
        **plain, "num_hidden_layers": len(blocks), "per_layer_config": per_layer, "intermediate_size": config.get("intermediate_size") or 0,
        "layer_types": [_kind(_parts(block)[0], "full_attention") for block in blocks],
        "mlp_layer_types": [_kind(_parts(block)[1], "sparse" if _mixture(_parts(block)[1]) else "dense") for block in blocks],
    }  # fmt: skip


def _parts(block: Any) -> tuple[Any, Any]:
    return (block.get("attention") or {"no_op": True}, block.get("ffn") or {"no_op": True}) if isinstance(block, Mapping) else (None, None)


def _kind(part: Mapping[str, Any], otherwise: str) -> str:
    return next((kind for kind in ("no_op", "replace_with_linear") if part.get(kind)), otherwise)


def _heads(attention: Mapping[str, Any], heads: int) -> dict[str, Any]:
    group = attention.get("n_heads_in_group")
    own = heads // group if isinstance(group, int) and group > 0 else attention.get("num_key_value_heads")
    return {} if own is None else {"num_key_value_heads": own}


def _mixture(mlp: Mapping[str, Any]) -> Mapping[str, Any]:
    found = mlp.get("moe")
    return found if isinstance(found, Mapping) else {}


def _mlp(mlp: Mapping[str, Any], hidden: int) -> dict[str, Any]:
    width = mlp.get("intermediate_size")
    if width is None and isinstance(factor := mlp.get("ffn_mult"), int | float):
        width = -(-int(2 * factor * hidden / 3) // _MULTIPLE) * _MULTIPLE
    moe = _mixture(mlp)
    found = {
        "intermediate_size": width, "num_experts": moe.get("num_local_experts"),
        "moe_intermediate_size": moe.get("expert_intermediate_dim"),
        "shared_expert_intermediate_size": moe.get("shared_expert_intermediate_dim"),
        "num_experts_per_tok": moe.get("num_experts_per_tok"),
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}
