"""The routed and shared experts of a layer, and its router, from the fields of a config."""

from __future__ import annotations

import math

from enginebench.physics.fields import Fields
from enginebench.physics.geometry import Experts


def experts(fields: Fields, layer: int) -> Experts:
    if fields.defaults.get("product_keys"):
        return _single_neurons(fields)
    count, used = fields.number("experts", layer), fields.number("top_k", layer)
    if not count:
        raise fields.unknown("experts", count)
    width = fields.number("expert_width" if fields.at("expert_width", layer) else "plain_width", layer)
    width += _chunks(fields)
    identities = fields.get("identities") or 0
    correction = bool(fields.defaults.get("router_bias") or _correction(fields, layer))
    return Experts(
        count, max(1, round(used * count / (count + identities))), width, _shared(fields, layer, width),
        shared_gate=bool(fields.get("shared_gate", default=False)), bias=bool(fields.defaults.get("expert_bias")),
        router_bias=correction, matrices=matrices(fields), router=_router(fields, layer, count, identities, correction=correction),
        latent=fields.get("expert_latent") or 0, latent_norms=int(fields.get("expert_latent_norm") or 0), identities=identities,
    )  # fmt: skip


def _chunks(fields: Fields) -> int:
    """Width that neighbouring experts have in common: a token computes it once for all of them that it chooses, so each counts a share."""
    own = fields.get("head_dim", 128) if fields.defaults.get("chunked") else 0
    return int(fields.get("chunk_width") or own) // int(fields.get("chunk_experts") or 2)


def experts_of_attention(fields: Fields) -> Experts:
    """What projects queries and output where a token chooses experts for them: one pair of matrices each."""
    count, used = fields.need("experts"), fields.need("top_k")
    return Experts(count, used, fields.need("kv_heads") * fields.need("head_dim"), matrices=2)


def _single_neurons(fields: Fields) -> Experts:
    """Experts of one neuron each, whose scores are sums of two of the router's rows: it has twice the root of their number."""
    count, hidden = fields.need("experts"), fields.need("hidden")
    return Experts(count, fields.need("top_k"), 1, matrices=2, router=2 * math.isqrt(count) * hidden)


def matrices(fields: Fields) -> int:
    """Of an MLP. relu2 has no gate in any known model."""
    return 2 if str(fields.get("activation", "")) == "relu2" else int(fields.defaults.get("matrices", 3))


def _router(fields: Fields, layer: int, count: int, identities: int, *, correction: bool) -> int | None:
    """Weights of a router that is not one matrix: an MLP, or one that scores shared experts too. None: one matrix."""
    hidden, width = fields.need("hidden"), fields.get("router_width")
    if width:
        choices = (count + identities) * (width + correction)
        return int(width * (hidden + 1) + width + 2 * width * (width + 1) + choices + width * (layer > 0))
    if fields.get("shared_scored"):
        return int((count + (fields.at("shared_count", layer) or 0)) * hidden + count * correction + 1)
    return None


def _correction(fields: Fields, layer: int) -> bool:
    """Whether the router has a bias per expert that only its choice uses. Layers that choose by a hash of the token have none."""
    kinds = fields.written("mlp_types")
    if layer < (fields.get("hashed") or 0) or (kinds and fields.at("mlp_types", layer) == "hash_moe"):
        return False
    found = fields.get("correction", default=False)
    return found == "noaux_tc" if isinstance(found, str) else bool(found)


def _shared(fields: Fields, layer: int, width: int) -> int:
    """The width of all shared experts together."""
    count, own = fields.at("shared_count", layer), fields.at("shared_width", layer)
    if not fields.get("shared_on", default=True):
        return 0
    if own is None:
        return width * (count or 0)
    if fields.defaults.get("shared_total") or count in (None, 1) or own == width * count:
        return int(own) if count != 0 else 0
    if own == width:
        return int(own * count)
    raise fields.unknown("shared_width", own)
