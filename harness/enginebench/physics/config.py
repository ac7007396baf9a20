"""Converts a config.json to a `Model`: every field by its meaning (`fields`), what a family leaves unsaid from `families`.

A model type that no family names is read from its fields alone, if all of them are understood, and the model has a note. What is not
understood is a UserError that names it, because a guess would be silently wrong. Chunked attention (Llama 4) is a window of one chunk.
"""

from __future__ import annotations

import math
from dataclasses import replace

from enginebench.checkpoints.families import FAMILIES as RANDOM_FAMILIES
from enginebench.errors import UserError
from enginebench.physics.attentions import attention
from enginebench.physics.families import ALIASES, ARCHITECTURES, FAMILIES, UNSUPPORTED
from enginebench.physics.fields import Config, Fields, text_part
from enginebench.physics.geometry import Experts, Layer, Mixer, Model
from enginebench.physics.layer_kinds import kinds
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
    layers = tuple(_layer(fields, i, mixer, mlp) for i, (mixer, mlp) in enumerate(found))
    if fields.defaults.get("twice"):
        layers = tuple(half for layer in layers for half in (layer, replace(layer, experts=None)))
    hidden = fields.need("hidden")
    final = hidden * (1 + bool(fields.defaults.get("norm_bias"))) + _stream_weights(fields, after=True)
    guess = f"model type '{kind}' is new: its fields were understood, its norms and biases are assumed to be the usual ones"
    notes = () if family is not None else (guess,)
    return Model(
        name, hidden, fields.need("vocab"), bool(fields.get("tied", default=False)), fields.need("context"), layers, final_norm=final,
        head_bias=bool(fields.get("head_bias", default=False)), notes=notes,
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
    kind = next((ARCHITECTURES[name] for name in text.get("architectures") or () if name in ARCHITECTURES), kind)
    if kind in UNSUPPORTED:
        raise UserError(f"model type '{kind}' is not supported: {UNSUPPORTED[kind]}", key="model_type")
    return kind


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more fields" if len(names) > 3 else "")


def _layer(fields: Fields, layer: int, mixer: str, mlp: str) -> Layer:
    hidden, defaults = fields.need("hidden"), fields.defaults
    experts = _experts(fields, layer) if mlp == "experts" else None
    beside = experts and (fields.get("residual_dense") or defaults.get("dense_beside") or defaults.get("twice"))
    dense = _dense(fields, layer, beside=bool(beside)) if mlp == "dense" or beside else 0
    norms = defaults.get("norms", 2) + (defaults.get("expert_norms", 0) if experts else 0)
    norms *= 1 + bool(defaults.get("norm_bias"))
    norms += 2 * (fields.get("norm_gate") or 0) * (1 + bool(experts))
    return Layer(
        _mixer(fields, mixer, layer), experts, dense, matrices=_matrices(fields),
        dense_bias=bool(fields.get("mlp_bias", fields.get("bias", default=False))),
        norm=norms * hidden + _stream_weights(fields, after=False),
    )  # fmt: skip


def _dense(fields: Fields, layer: int, *, beside: bool) -> int:
    if beside and fields.defaults.get("beside_is_hidden"):
        return fields.need("hidden")
    if fields.defaults.get("dense_is_shared"):
        return fields.need("shared_width")
    return _rounded(fields, fields.number("dense", layer))


def _rounded(fields: Fields, width: int) -> int:
    """Two thirds of the stated width, rounded up to a multiple, where a family does so."""
    if not (fields.defaults.get("rounded") and fields.get("rounded")):
        return width
    multiple = fields.get("rounded_to", 256)
    return int(multiple * math.ceil(int((fields.get("rounded_factor") or 1) * (2 * width // 3)) / multiple))


def _mixer(fields: Fields, kind: str, layer: int) -> Mixer | None:
    if kind == "none":
        return None
    return recurrence(fields, kind) if kind in ("linear", "conv") else attention(fields, kind, layer)


def _matrices(fields: Fields) -> int:
    """Of an MLP. relu2 has no gate in any known model."""
    return 2 if str(fields.get("activation", "")) == "relu2" else int(fields.defaults.get("matrices", 3))


def _experts(fields: Fields, layer: int) -> Experts:
    count, used = fields.number("experts", layer), fields.number("top_k", layer)
    width = fields.number("expert_width" if fields.at("expert_width", layer) else "plain_width", layer)
    identities = fields.get("identities") or 0
    return Experts(
        count, max(1, round(used * count / (count + identities))), width, _shared(fields, layer, width),
        shared_gate=bool(fields.defaults.get("shared_gate")), bias=bool(fields.defaults.get("expert_bias")),
        router_bias=bool(fields.defaults.get("router_bias") or _correction(fields, layer)), matrices=_matrices(fields),
        latent=fields.get("expert_latent") or 0, latent_norm=bool(fields.get("expert_latent_norm")), identities=identities,
    )  # fmt: skip


def _correction(fields: Fields, layer: int) -> bool:
    """Whether the router has a bias per expert that only its choice uses. Layers that choose by a hash of the token have none."""
    kinds = fields.written("mlp_types")
    if layer < (fields.get("hashed") or 0) or (kinds and kinds[layer] == "hash_moe"):
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


def _stream_weights(fields: Fields, *, after: bool) -> int:
    """Weights that mix several residual streams, around a mixer and an MLP, or after the last layer."""
    streams, kind = fields.get("streams") or 0, fields.defaults.get("streams_kind")
    if not streams or kind is None:
        return 0
    wide = streams * fields.need("hidden")
    if after:
        return 0 if kind == "headless" else streams * (wide + 1) + 1
    outputs, scales = (streams * (streams + 2), 3) if kind in ("full", "headless") else (2 * streams, 2)
    return 2 * (outputs * (wide + 1) + scales)
