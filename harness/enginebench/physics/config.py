"""Converts a config.json to a `Model`: every field by its meaning (`fields`), what a family leaves unsaid from `families`.

A model type that no family names is read from its fields alone, if all of them are understood, and the model has a note. What is not
understood is a UserError that names it, because a guess would be silently wrong. Chunked attention (Llama 4) is a window of one chunk.
"""

from __future__ import annotations

import math
from dataclasses import replace

from enginebench.checkpoints.families import FAMILIES as RANDOM_FAMILIES
from enginebench.errors import UserError
from enginebench.physics import streams
from enginebench.physics.attentions import attention, borrowed
from enginebench.physics.families import ALIASES, ARCHITECTURES, FAMILIES, UNSUPPORTED
from enginebench.physics.fields import Config, Fields, text_part
from enginebench.physics.geometry import Layer, Mixer, Model
from enginebench.physics.layer_kinds import kinds
from enginebench.physics.mixtures import experts, experts_of_attention, matrices
from enginebench.physics.recurrences import recurrence


def from_config(name: str, config: Config) -> Model:
    """The model that a config.json describes (of a multimodal model, the text part). UserError if it is unknown or incomplete."""
    text = text_part(config)
    kind = _type(text)
    family = FAMILIES.get(kind)
    fields = Fields(name, text, family or {})
    _check(fields, known=family is not None)
    count = _layers(fields)
    found = kinds(fields, count)
    layers = _arranged(fields, tuple(_layer(fields, i, mixer, mlp) for i, (mixer, mlp) in enumerate(found)))
    table, entry = streams.entry(fields)
    guess = f"model type '{kind}' is new: its fields were understood, its norms and biases are assumed to be the usual ones"
    notes = () if family is not None else (guess,)
    return Model(
        name, fields.need("hidden"), fields.need("vocab"), bool(fields.get("tied", default=False)), fields.need("context"), layers,
        final_norm=streams.after_last(fields), head_bias=bool(fields.get("head_bias", default=False)),
        head_rows=fields.get("head_rows") if fields.defaults.get("head_cut") else None, table=table, entry=entry, notes=notes,
    )  # fmt: skip


def _check(fields: Fields, *, known: bool) -> None:
    """Raise UserError for fields that are not understood. known: the model type is in the table of families."""
    if news := fields.not_understood(family=known):
        raise UserError(
            f"the config of {fields.name} has {_listed(news)}, which may change the number of weights and is not understood",
            key=news[0], advice=f"add its meaning to {_TABLE}",
        )  # fmt: skip
    activation = str(fields.get("activation", "silu"))
    if not known and activation not in _GATED:
        key = fields.called("activation")
        raise UserError(
            f"the model type of {fields.name} is new, and {key} '{activation}' does not say whether its MLPs have a gate", key=key
        )


_GATED = frozenset({"silu", "swish", "swiglu", "swigluoai", "gelu_pytorch_tanh", "relu2"})
"""Activations of which all known families that use them have a gate (or, for relu2, none)."""
_TABLE = "harness/enginebench/physics/field_names.py"


def _layers(fields: Fields) -> int:
    """The number of layers, which some configs only list."""
    listed = fields.written("pattern") or fields.written("layer_types")
    return len(listed) if fields.written("layers") is None and listed else fields.need("layers")


def _type(text: Config) -> str:
    written = str(text.get("model_type"))
    alike = (family.counted_as for family in RANDOM_FAMILIES.values() if family.counted_as and written in (family.hf_type, family.gguf))
    kind = next(alike, written)
    kind = ALIASES.get(kind, kind)
    classes = text.get("architectures")
    known = (
        [ARCHITECTURES[name] for name in classes if isinstance(name, str) and name in ARCHITECTURES] if isinstance(classes, list) else []
    )
    kind = known[0] if known else kind
    if kind in UNSUPPORTED:
        raise UserError(f"model type '{kind}' is not supported: {UNSUPPORTED[kind]}", key="model_type")
    return kind


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more fields" if len(names) > 3 else "")


def _arranged(fields: Fields, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers as a step passes them: blocks of two halves as two layers, and every further pass of a loop at the end."""
    if fields.defaults.get("twice"):
        return tuple(half for layer in layers for half in (layer, replace(layer, experts=None)))
    if fields.defaults.get("routed_attention"):
        routed = experts_of_attention(fields)
        halves = ((replace(layer, experts=routed), replace(layer, attention=None, norm=0)) for layer in layers)
        return tuple(half for pair in halves for half in pair)
    passes = (fields.get("loop_passes") or 1) - 1
    loop = [replace(layer, repeated=True, experts=None) for i, layer in enumerate(layers) if streams.looped(fields, i)]
    return layers + tuple(loop) * passes


def _layer(fields: Fields, layer: int, mixer: str, mlp: str) -> Layer:
    hidden, defaults = fields.need("hidden"), fields.defaults
    routed = experts(fields, layer) if mlp == "experts" else None
    beside = routed and (fields.get("residual_dense") or defaults.get("dense_beside") or defaults.get("twice"))
    dense = _dense(fields, layer, beside=bool(beside)) if mlp == "dense" or beside else 0
    parts = (mixer != "none") + (mlp != "none")
    return Layer(
        _mixer(fields, mixer, layer), routed, dense, matrices=matrices(fields),
        dense_bias=bool(fields.get("mlp_bias", fields.get("bias", default=False))),
        norm=streams.block(fields, layer, mixer, parts=parts, experts=routed is not None),
        beside=streams.beside(fields, layer) + hidden**2 * [mixer, mlp].count("matrix"), table=streams.ngram_table(fields, layer),
    )  # fmt: skip


def _dense(fields: Fields, layer: int, *, beside: bool) -> int:
    if beside and fields.defaults.get("beside_is_hidden"):
        return fields.need("hidden")
    if fields.defaults.get("dense_is_shared"):
        return fields.need("shared_width")
    doubled = fields.get("wide_if_borrowing") and borrowed(fields, layer)
    return _rounded(fields, fields.number("dense", layer) * (1 + bool(doubled)))


def _rounded(fields: Fields, width: int) -> int:
    """Two thirds of the stated width, rounded up to a multiple, where a family does so."""
    if not (fields.defaults.get("rounded") and fields.get("rounded")):
        return width
    multiple = fields.get("rounded_to", 256)
    return int(multiple * math.ceil(int((fields.get("rounded_factor") or 1) * (2 * width // 3)) / multiple))


def _mixer(fields: Fields, kind: str, layer: int) -> Mixer | None:
    if kind in ("none", "matrix"):
        return None
    return recurrence(fields, kind) if kind in ("linear", "conv") else attention(fields, kind, layer)
