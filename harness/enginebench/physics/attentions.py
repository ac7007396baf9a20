"""Attention layers, from the fields of a config: grouped heads, multi-head latent attention, windows, indexers and compressed tokens."""

from __future__ import annotations

from dataclasses import replace

from enginebench.physics.fields import Fields
from enginebench.physics.mixers import Attention, Selection


def attention(fields: Fields, kind: str, layer: int) -> Attention:
    """kind: 'full', 'sliding', 'chunked', 'indexed' or 'compressed N', as in `layer_kinds`."""
    plain = _latent(fields, kind, layer) if fields.get("latent") else _grouped(fields, kind, layer)
    if kind == "indexed":
        plain = _indexed(fields, plain, layer)
    if kind.startswith("compressed"):
        plain = _compressed(fields, plain, int(kind.partition(" ")[2]))
    if fields.defaults.get("gated_queries"):  # queries and a gate of the output are projected from queries with and without their norm
        extra = plain.heads * plain.query_latent * (plain.key_dim + 2 * plain.value_dim)
        plain = replace(plain, extra=plain.extra + extra)
    gate = fields.get("gate")
    if gate:
        width = plain.heads * (plain.value_dim if fields.defaults.get("gate_width", "head") == "element" else 1)
        extra = (fields.need("hidden") + bool(plain.bias and fields.defaults.get("gate_biased"))) * width + plain.heads * bool(
            fields.defaults.get("gate_bias")
        )
        plain = replace(plain, extra=plain.extra + extra)
    return replace(_with_extras(fields, plain, kind), borrowed=borrowed(fields, layer))


def _with_extras(fields: Fields, plain: Attention, kind: str) -> Attention:
    """With what few families have: biases by distance, convolutions of keys, values and output, sinks and masks from the input."""
    hidden, heads, kv = fields.need("hidden"), plain.heads, plain.kv_heads * plain.key_dim
    extra = copied = norm = convolved = 0
    if width := fields.get("relative"):
        reach = plain.window if kind == "sliding" and plain.window else fields.need("relative_reach")
        extra, copied = hidden * heads * width, width * reach
        norm = heads * width * bool(fields.defaults.get("relative_norm"))
    if kernel := fields.get("short_conv"):
        dynamic = 2 * hidden * plain.kv_heads * kernel * bool(kind == "full" and fields.defaults.get("dynamic_conv"))
        copied, convolved = copied + 2 * kv * kernel + dynamic, (2 * kv + 2 * hidden) * (kernel - 1)
    if first := fields.get("mixing_first"):  # queries and keys pass a convolution per channel, and one per head
        second, channels = fields.need("mixing_second"), (heads + plain.kv_heads) * plain.key_dim
        copied, norm = copied + channels * (first + 1 + plain.key_dim * second + 1), norm + plain.kv_heads
        convolved = channels * (first + second - 2) + kv // 2
    if fields.defaults.get("projected_sinks"):
        extra += hidden * heads
    if tokens := fields.get("sink_keys"):
        copied += tokens * (kv + plain.kv_heads * plain.value_dim * bool(fields.get("sink_values")))
    if fields.defaults.get("learnt_masks"):
        copied += plain.kv_heads * (kv + 1)
    return replace(
        plain, extra=plain.extra + extra, copied=plain.copied + copied, norm=plain.norm + norm, convolved=convolved,
        routed=bool(fields.defaults.get("routed_attention")),
    )  # fmt: skip


def borrowed(fields: Fields, layer: int) -> bool:
    """Whether a layer uses the keys and values of an earlier one."""
    if fields.get("sources"):
        return bool(fields.at("sources", layer) != layer)
    if last := fields.get("borrowing"):
        return layer >= int(fields.need("layers")) - int(last)
    return bool(fields.get("borrows") and layer % fields.need("borrow_factor"))


def _window(fields: Fields, kind: str) -> int | None:
    found = (
        fields.get("chunk")
        if kind == "chunked"
        else fields.get("window")
        if kind.startswith(("sliding", "compressed", "reference"))
        else None
    )
    return found if isinstance(found, int) and found > 0 else None


def _dimension(fields: Fields, what: str, kind: str, layer: int) -> int | None:
    """Of this layer, of its kind of attention, or of all."""
    of_kind = fields.written(f"{kind}.{what}") if kind in ("sliding", "full") and f"{kind}.{what}" in _OF_KIND else None
    of_layer = fields.at("layer.heads", layer) if what == "heads" else None
    found = of_layer or of_kind or fields.at(what, layer)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
        raise fields.unknown(what, found)
    return found


_OF_KIND = ("sliding.heads", "sliding.kv_heads", "sliding.head_dim", "sliding.value_dim", "full.kv_heads", "full.head_dim")


def _grouped(fields: Fields, kind: str, layer: int) -> Attention:
    routed = fields.defaults.get("routed_attention") and fields.need("kv_heads") * fields.need("top_k")
    heads = routed or _dimension(fields, "heads", kind, layer) or fields.need("heads")
    kv_heads = _dimension(fields, "kv_heads", kind, layer) or heads
    parts = (fields.at("plain_dim", layer) or 0) + (fields.get("rope_dim") or 0)  # of which only one has positions
    width = _dimension(fields, "head_dim", kind, layer) or parts or fields.need("hidden") // heads
    value = _dimension(fields, "value_dim", kind, layer) or width
    bias = bool(fields.get("attention_bias", fields.get("bias", default=False)))
    one = bool(fields.defaults.get("one_cache"))
    groups, rank = fields.get("output_groups"), fields.get("output_latent")
    return Attention(
        heads, kv_heads, width, value, window=_window(fields, kind), keeps_all=kind == "reference", bias=bool(fields.get("qkv_bias", bias)),
        output_bias=bool(fields.get("output_bias", bias)), sinks=_sinks(fields, kind),
        norm=_norm(fields, heads, 0 if fields.get("borrowing") and borrowed(fields, layer) else kv_heads, width) + one * width,
        query_latent=fields.get("query_latent") or 0, output_latent=(groups, rank) if groups and rank else None,
        one_projection=one or bool(fields.get("one_projection") and kind == "full"), one_cache=one,
    )  # fmt: skip


def _sinks(fields: Fields, kind: str) -> bool:
    of_kind = fields.get("sliding.sinks") if kind == "sliding" else None
    return bool(fields.get("sinks", default=False) if of_kind is None else of_kind)


def _norm(fields: Fields, heads: int, kv_heads: int, width: int) -> int:
    """Weights of the norms of queries and keys; kv_heads: 0 without keys of its own."""
    if not fields.get("qk_norm"):
        return 0
    kind = fields.written("qk_norm_kind") or fields.defaults.get("qk_norm_kind", "per_head")
    if kind not in _NORMS:
        raise fields.unknown("qk_norm_kind", kind)
    keys = bool(kv_heads) * width
    found = {"head": width + keys, "all": (heads + kv_heads) * width, "queries": heads * width, "key": keys, "none": 0}
    return found[_NORMS[kind]]


_NORMS = {"per_head": "head", "head": "head", "per_layer": "all", "all": "all", "queries": "queries", "key": "key", "none": "none"}


def _latent(fields: Fields, kind: str, layer: int) -> Attention:
    rope = fields.get("rope_dim") or 0
    rotated = fields.at("rope_flags", layer) if fields.get("rope_flags") else (layer + 1) % 4
    unrotated = rope * bool(fields.defaults.get("unrotated") and not rotated)
    rope -= unrotated
    heads = fields.at("heads", layer) or fields.need("heads")
    bias = bool(fields.get("attention_bias", default=False))
    latent, query = fields.at("latent", layer), fields.get("query_latent") or 0
    plain = fields.at("plain_dim", layer)
    width = (fields.need("plain_dim") if plain is None else plain) + unrotated + rope
    return Attention(
        heads, heads, width, fields.need("value_dim"), latent=latent, rope_dim=rope,
        query_latent=query, norm=rope * bool(fields.defaults.get("key_norm")),
        output_bias=bias, copied=bias * (query + (latent + rope) * (not borrowed(fields, layer))),
        extra=2 * heads * bool(fields.defaults.get("score_scales")), window=_window(fields, kind), sinks=_sinks(fields, kind),
    )  # fmt: skip


def _indexed(fields: Fields, plain: Attention, layer: int) -> Attention:
    """Queries of the indexer come from the compressed queries where there are any; all its heads share one key per token."""
    hidden, heads, dim = fields.need("hidden"), fields.need("index_heads"), fields.need("index_dim")
    blocks = fields.get("index_blocks")
    tokens = blocks * fields.need("index_block") if blocks else fields.need("index_tokens")
    own = fields.at("index_kinds", layer) != "shared"
    plain_index = bool(fields.defaults.get("plain_index"))
    if fields.get("index_tokens") and not plain_index:
        weights = heads * dim * (plain.query_latent or hidden) + dim * hidden + 2 * dim + hidden * heads
    else:
        weights = (heads + 1) * dim * hidden + 2 * dim
    weights += 2 * (hidden + heads) * bool(fields.defaults.get("index_norm"))
    pool = fields.get("index_pool") or 1
    if pool > 1 and not plain_index:
        weights += dim * (pool + hidden)
    selection = Selection(tokens, heads if own else 0, dim if own else 0, pool=pool)
    return replace(plain, selection=selection, copied=plain.copied + weights * own)


def _compressed(fields: Fields, plain: Attention, every: int) -> Attention:
    """Tokens beyond the window are summarised, `every` of them in one entry; with few of them an indexer chooses among the entries."""
    hidden, width, dim = fields.need("hidden"), plain.key_dim, fields.need("index_dim")
    chosen = every == _CHOSEN
    overlap = 2 if chosen else 1
    weights = overlap * width * (2 * hidden + every) + width
    if chosen:
        heads = fields.need("index_heads")
        weights += overlap * dim * (2 * hidden + every) + dim + heads * dim * plain.query_latent + heads * hidden
        selection = Selection(fields.need("index_tokens"), heads, dim, every)
    else:
        selection = Selection(None, every=every)
    return replace(plain, selection=selection, copied=weights)


_CHOSEN = 4
"""Tokens per entry where an indexer chooses entries (DeepSeek V4)."""
