"""Layers that keep a state, from the fields of a config: Mamba, linear attention of several kinds, convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from enginebench.errors import UserError
from enginebench.physics.fields import Fields
from enginebench.physics.mixers import Recurrence


def recurrence(fields: Fields, kind: str) -> Recurrence:
    """kind: 'linear' or 'conv', as in `layer_kinds`."""
    name = "conv" if kind == "conv" else fields.defaults.get("linear") or _guessed(fields)
    return _KINDS[name](fields)


def _guessed(fields: Fields) -> str:
    """The kind of linear layers of an unknown family, by the fields that describe them."""
    for meaning, name in (
        ("mamba_heads", "mamba2"),
        ("mamba_state", "mamba"),
        ("linear_key_heads", "gated_delta"),
        ("linear_heads", "kda"),
    ):
        if fields.get(meaning):
            return name
    raise UserError(f"the config of {fields.name} has linear layers, but no field that says of which kind", key="model_type")


def _bits(fields: Fields) -> float:
    return 32 if str(fields.get("state_type", "")) == "float32" else 16


def _mamba2(fields: Fields) -> Recurrence:
    hidden, heads, state = fields.need("hidden"), fields.need("mamba_heads"), fields.need("mamba_state")
    width = fields.get("mamba_dim")
    inner = heads * width if isinstance(width, int) else int(fields.get("mamba_expand", 2) * hidden)
    mixed = inner + 2 * fields.get("mamba_groups", 1) * state
    kernel, bias = fields.get("mamba_conv", 4), fields.get("conv_bias", default=True)
    projected = inner + mixed + heads
    weights = hidden * projected + mixed * (kernel + bias) + 3 * heads + inner * hidden
    weights += fields.get("mamba_bias", default=False) * (projected + hidden)
    return Recurrence("Mamba-2", heads, weights, inner, inner * state, mixed * (kernel - 1), projected, _bits(fields))


def _mamba(fields: Fields) -> Recurrence:
    hidden, state = fields.need("hidden"), fields.need("mamba_state")
    inner = int(fields.get("mamba_expand", 2) * hidden)
    rank = fields.get("mamba_rank", "auto")
    rank = math.ceil(hidden / 16) if rank == "auto" else rank
    kernel, bias = fields.get("mamba_conv", 4), fields.get("conv_bias", default=True)
    weights = hidden * 2 * inner + inner * (kernel + bias) + inner * (rank + 2 * state) + rank * inner + inner
    weights += inner * state + inner + inner * hidden + fields.get("mamba_bias", default=False) * (2 * inner + hidden)
    norm = rank + 2 * state if fields.defaults.get("mamba_norms") else 0
    return Recurrence("Mamba", inner, weights, norm, inner * state, inner * (kernel - 1), 2 * inner, _bits(fields))


def _gated_delta(fields: Fields) -> Recurrence:
    hidden, keys, values = fields.need("hidden"), fields.need("linear_key_heads"), fields.need("linear_value_heads")
    key, value = keys * fields.need("linear_key_dim"), values * fields.need("linear_value_dim")
    kernel = fields.need("linear_conv")
    mixed = 2 * key + value
    weights = hidden * (mixed + value + 2 * values) + mixed * kernel + 2 * values + value * hidden
    state = values * fields.need("linear_key_dim") * fields.need("linear_value_dim")
    return Recurrence(
        "gated delta rule", keys, weights, fields.need("linear_value_dim"), state, mixed * (kernel - 1), mixed + value, _bits(fields)
    )


def _kda(fields: Fields) -> Recurrence:
    hidden, dim = fields.need("hidden"), fields.get("linear_dim") or fields.need("head_dim")
    heads = fields.get("linear_heads") or fields.need("heads")
    width, kernel = heads * dim, fields.get("linear_conv", 4)
    low_rank = dim * (hidden + width)
    full = fields.defaults.get("linear_full_rank", False)
    decay = hidden * width if full else low_rank
    gate = hidden * width if full or fields.get("linear_full_gate") else low_rank
    weights = 4 * hidden * width + 3 * width * kernel + heads + width + hidden * heads + decay + gate
    return Recurrence("Kimi delta attention", heads, weights, dim, heads * dim * dim, 3 * width * (kernel - 1), 5 * width, _bits(fields))


def _lightning(fields: Fields) -> Recurrence:
    hidden, heads = fields.need("hidden"), fields.need("heads")
    dim = fields.get("head_dim") or hidden // heads
    width = heads * dim
    norm = width + (2 * dim if fields.get("qk_norm") else 0)
    return Recurrence("lightning attention", heads, 5 * hidden * width, norm, heads * dim * dim, 0, 4 * width, _bits(fields))


def _conv(fields: Fields) -> Recurrence:
    hidden, kernel, bias = fields.need("hidden"), fields.get("mamba_conv", 3), fields.get("conv_bias", default=False)
    weights = 4 * hidden * hidden + hidden * kernel + bias * 5 * hidden
    return Recurrence("short convolution", hidden, weights, 0, 0, hidden * (kernel - 1), 3 * hidden)


_KINDS: Mapping[str, Callable[[Fields], Recurrence]] = {
    "mamba": _mamba, "mamba2": _mamba2, "gated_delta": _gated_delta, "kda": _kda, "lightning": _lightning, "conv": _conv,
}  # fmt: skip
