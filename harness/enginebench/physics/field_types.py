"""Of which type the value of a field must be, by its meaning: whole numbers, flags, lists of one per layer, texts.

Does not know what the values mean together (`layer_kinds`, `mixtures` ...), so that those need not check types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from enginebench.errors import UserError
from enginebench.physics.field_names import MEANINGS

_FLAGS = frozenset({
    "tied", "attention_bias", "qkv_bias", "output_bias", "qk_norm", "sinks", "one_projection", "borrows", "windowed", "sink_values",
    "sandwich", "rounded", "mlp_bias", "wide_if_borrowing", "bias", "experts_on", "shared_on", "shared_gate", "shared_scored",
    "residual_dense", "dense_beside", "conv_bias", "mamba_bias", "linear_full_gate", "head_bias", "expert_latent_norm", "sliding.sinks",
})  # fmt: skip
_TEXTS = frozenset({"qk_norm_kind", "activation", "state_type"})
_LISTS = frozenset({
    "sources", "index_kinds", "compressions", "ngram_layers", "layer.heads", "attention_flags", "sliding_flags", "sliding_listed",
    "rope_flags", "sparse_flags", "full_layers", "full_layers_from_1", "mlp_types", "dense_listed",
})  # fmt: skip
_PER_LAYER = frozenset({
    "heads", "kv_heads", "value_dim", "latent", "plain_dim", "dense", "plain_width", "experts", "top_k", "expert_width",
    "shared_count", "shared_width",
})  # fmt: skip
"""Numbers that may be a list with one per layer."""
_OTHERS: Mapping[str, tuple[type, ...]] = {
    "gate": (bool, int, str), "correction": (bool, int, str), "experts_freq": (int, list), "experts_listed": (str, list),
    "sliding_pattern": (int, str), "compression_of": (dict,), "mamba_rank": (int, str), "rounded_factor": (int, float),
    "layer_types": (list, str), "pattern": (str, list), "window": (int, list), "mamba_expand": (int, float),
}  # fmt: skip
_FORMS = {"mamba_rank": re.compile("auto"), "experts_listed": re.compile(r"\s*\d+\s*(,\s*\d+\s*)*"),
          "sliding_pattern": re.compile("[A-Za-z]+")}  # fmt: skip
"""Of a text, where a field may be one."""
_NEGATIVE = frozenset({"window", "chunk", "experts_last", "window_from"})
"""Numbers that configs give as -1 for 'none'."""
_POSITIVE = frozenset({
    "layers", "hidden", "vocab", "context", "heads", "attention_period", "experts_period", "full_every", "rounded_to", "ngram_size",
    "ngram_multiple", "borrow_factor", "loop_passes",
})  # fmt: skip
_MOST: Mapping[str, int] = {"layers": 10_000, "loop_passes": 100, "ngram_size": 100, "ngram_heads": 1000}
"""What a computation is in proportion to: a typing error must not run for hours."""


def check(name: str, config: Mapping[str, Any], per_layer: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise UserError for the first field whose value is of another type than its meaning."""
    for meaning, keys in MEANINGS.items():
        for fields in (config, *per_layer.values()):
            for key in keys:
                value = fields.get(key)
                if value is not None and (wrong := _wrong(meaning, value, one=fields is not config)):
                    raise UserError(f"the config of {name} has {key}: {_short(value)}, which {wrong}", key=key)


def by_layer(name: str, found: object) -> dict[int, Mapping[str, Any]]:
    """`per_layer_config` by number of the layer."""
    if not found:
        return {}
    if not isinstance(found, Mapping) or not all(str(key).isdigit() and isinstance(value, Mapping) for key, value in found.items()):
        raise UserError(f"the config of {name} has a per_layer_config that is no table of fields by layer", key="per_layer_config")
    return {int(layer): fields for layer, fields in found.items()}


def _wrong(meaning: str, value: Any, *, one: bool) -> str | None:
    """What is wrong with a value, as the end of a sentence. one: it is of one layer, so that it is no list."""
    if isinstance(value, str) and meaning in _FORMS and not _FORMS[meaning].fullmatch(value):
        return "is not understood"
    if meaning == "layer_types" and _list(value) and not all(isinstance(each, str) for each in value):
        return "is no list of kinds"
    if meaning in _OTHERS:
        types = _OTHERS[meaning]
        if isinstance(value, int | float) and value < 0 and meaning not in _NEGATIVE:
            return "is below zero"
        return None if isinstance(value, types) and not (isinstance(value, bool) and bool not in types) else "is not understood"
    if meaning in _FLAGS:
        return None if isinstance(value, bool) or value in (0, 1) else "is neither true nor false"
    if meaning in _TEXTS:
        return None if isinstance(value, str) else "is no text"
    if meaning in _LISTS:
        return None if _list(value) and not any(isinstance(each, list | dict) for each in value) else "is no list"
    if meaning in _PER_LAYER and _list(value) and not one:
        return next((wrong for each in value if each is not None and (wrong := _no_number(meaning, each))), None)
    return _no_number(meaning, value)


def _no_number(meaning: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return "is not understood: it must be a whole number"
    if value < 0 and meaning not in _NEGATIVE:
        return "is below zero"
    if value == 0 and meaning in _POSITIVE:
        return "must be at least 1"
    most = _MOST.get(meaning)
    return f"is above {most}" if most and value > most else None


def _list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _short(value: object) -> str:
    written = repr(value)
    return written if len(written) <= 60 else written[:57] + "..."
