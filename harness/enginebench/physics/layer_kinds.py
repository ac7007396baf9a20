"""Which layer of a config is of which kind: its mixer (full or sliding attention, linear, ...) and its MLP (dense, experts, none)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enginebench.errors import UserError, did_you_mean
from enginebench.physics.field_names import MEANINGS
from enginebench.physics.fields import Fields

_MIXERS = {
    **dict.fromkeys(("full_attention", "attention", "global", "global_attention", "full", "full_mask", "hybrid"), "full"),
    **dict.fromkeys(
        ("sliding_attention", "sliding_window", "sliding_window_attention", "sliding", "local", "local_attention", "hybrid_sliding"),
        "sliding",
    ),
    **dict.fromkeys(("chunked_attention", "chunked"), "chunked"),
    **dict.fromkeys(("linear_attention", "linear", "mamba", "mamba2", "ssm", "recurrent", "gated_deltanet", "kda", "lightning"), "linear"),
    **dict.fromkeys(("conv", "short_conv", "convolution"), "conv"),
    **dict.fromkeys(("indexed_attention", "deepseek_sparse_attention", "minimax_m3_sparse", "block_sparse_attention"), "indexed"),
    "compressed_sparse_attention": "compressed 4",
    "heavily_compressed_attention": "compressed 128",
    "reference_sliding_attention": "reference",
    **dict.fromkeys(("moe", "mlp", "no_op"), "none"),
    "replace_with_linear": "matrix",
}
_MLPS = {
    **dict.fromkeys(("sparse", "moe", "hash_moe"), "experts"),
    "dense": "dense",
    "no_op": "none",
    "replace_with_linear": "matrix",
}
_LETTERS = {"M": ("linear", "none"), "*": ("full", "none"), "-": ("none", "dense"), "E": ("none", "experts")}
"""Of Nemotron-H's pattern, whose blocks are a mixer or an MLP."""


def kinds(fields: Fields, count: int) -> list[tuple[str, str]]:
    """The kinds of mixer and MLP of every layer."""
    if pattern := fields.written("pattern"):
        return [_letter(fields, letter) for letter in pattern if letter != "|"]
    if (types := _types(fields)) and {"moe", "mlp"} & set(types):
        mlps = {"moe": "experts", "mlp": "dense"}
        return [(_named(fields, "layer_types", each, _MIXERS), mlps.get(each, "none")) for each in types]
    mixers = _mixers(fields, count)
    return [(mixers[i], _mlp(fields, i)) for i in range(count)]


def _mlp(fields: Fields, layer: int) -> str:
    """The kind of MLP of a layer. Whether it has experts is said in many ways (`has_experts`)."""
    listed = fields.written("mlp_types")
    if listed is not None and len(listed) <= layer:
        raise UserError(
            f"{fields.called('mlp_types')} has {len(listed)} values, but there is a layer {layer}", key=fields.called("mlp_types")
        )
    if listed is not None and (kind := _named(fields, "mlp_types", listed[layer], _MLPS)) in ("none", "matrix"):
        return kind
    return "experts" if has_experts(fields, layer) else "dense"


def _types(fields: Fields) -> Sequence[str] | None:
    found = fields.get("layer_types")
    return found if isinstance(found, Sequence) and not isinstance(found, str) else None


def _letter(fields: Fields, letter: str) -> tuple[str, str]:
    if letter not in _LETTERS:
        raise fields.unknown("pattern", letter)
    return _LETTERS[letter]


def _named(fields: Fields, meaning: str, name: Any, known: dict[str, str]) -> str:
    if str(name) not in known:
        key = fields.called(meaning)
        advice = did_you_mean(str(name), known)
        raise UserError(f"the config of {fields.name} has a layer of unknown kind '{name}' in {key}", key=key, advice=advice)
    return known[str(name)]


def _mixers(fields: Fields, count: int) -> list[str]:
    """From whichever field the config describes them with."""
    everywhere = _everywhere(fields)
    needed = fields.defaults.get("needs", ())
    if needed and all(fields.written(meaning) is None for meaning in needed):
        raise UserError(f"the config of {fields.name} lacks {MEANINGS[needed[0]][0]}", key=MEANINGS[needed[0]][0])
    if types := _types(fields):
        found = [_named(fields, "layer_types", each, _MIXERS) for each in types]
    elif (listed := fields.written("sliding_listed")) is not None:
        found = ["sliding" if i in listed else "full" for i in range(count)]
    elif (ratios := fields.written("compressions")) is not None:
        found = [f"compressed {ratio}" if ratio else "sliding" for ratio in ratios]
    elif (flags := fields.written("attention_flags")) is not None:
        found = ["full" if flag else "linear" for flag in flags]
    elif (flags := fields.written("sliding_flags")) is not None:
        found = ["sliding" if flag else "full" for flag in flags]
    elif (flags := fields.written("sparse_flags")) is not None:
        found = ["indexed" if flag else "full" for flag in flags]
    elif fields.get("chunk") and not fields.written("window"):
        rotated = fields.written("rope_flags") or [(i + 1) % 4 != 0 for i in range(count)]
        found = ["chunked" if each else "full" for each in rotated]
    else:
        found = [_periodic(fields, i, count) or everywhere for i in range(count)]
    if len(found) < count:
        raise UserError(f"the config of {fields.name} describes {len(found)} of its {count} layers", key=fields.called("layers"))
    if fields.defaults.get("full_is_indexed") and fields.get("index_tokens"):
        found = ["indexed" if kind == "full" else kind for kind in found]
    return found[:count]


def _everywhere(fields: Fields) -> str:
    if fields.get("index_tokens"):
        return "indexed"
    return "sliding" if fields.get("windowed") and fields.get("window") else "full"


def _periodic(fields: Fields, layer: int, count: int) -> str | None:
    """The kind of a layer whose place in a period decides it; None if the config has no period."""
    other = fields.defaults.get("other", "linear")
    for meaning, first in (("full_layers", 0), ("full_layers_from_1", 1)):
        if (listed := fields.written(meaning)) is not None:
            return "full" if layer + first in listed else other
    if (every := fields.get("full_every")) is not None:
        tail = fields.defaults.get("full_tail") and layer >= count // every * every
        return "full" if (layer + 1) % every == 0 or tail else other
    if (period := fields.get("attention_period")) is not None:
        return "full" if layer % period == fields.get("attention_offset", 0) else "linear"
    if (pattern := fields.get("sliding_pattern")) and fields.get("window"):
        if isinstance(pattern, str):
            return "sliding" if pattern[layer % len(pattern)] == "L" else "full"
        return "sliding" if (layer + 1) % pattern else "full"
    if fields.get("windowed") and (first := fields.get("window_from")) is not None:
        return "sliding" if layer >= first else "full"
    return None


def has_experts(fields: Fields, layer: int) -> bool:
    """Whether a layer has routed experts: every rule of the config that is there must allow it."""
    if (fields.at("experts", layer) or 0) <= 1 or not fields.get("experts_on", default=True):
        return False
    if (types := fields.written("mlp_types")) is not None:
        return _named(fields, "mlp_types", types[layer], _MLPS) == "experts"
    if (listed := fields.written("experts_listed")) is not None:
        numbers = [int(each) for each in listed.split(",")] if isinstance(listed, str) else listed
        return layer in numbers
    if (period := fields.get("experts_period")) is not None:
        return bool(layer % period == fields.get("experts_offset", 0))
    freq = fields.at("experts_freq", layer, 1)
    if isinstance(fields.get("experts_freq"), Sequence) or freq == 0:
        return bool(freq)
    last, every = fields.get("experts_last"), fields.get("experts_every", 1)
    if every == 0 or layer in (fields.get("dense_listed") or ()) or (isinstance(last, int) and 0 <= last < layer):
        return False
    return bool(layer >= (fields.get("dense_first") or 0) and layer % freq == 0 and (layer + 1) % every == 0)
