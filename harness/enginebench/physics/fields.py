"""Reads a config.json by the meaning of its fields (`field_names`), and reports what it does not understand.

A field is read by its meaning, whatever a family calls it. Fields of nested objects have dotted names ('ffn_config.moe_top_k'). Does not
know: what follows from the values (`config`), and what a family leaves unsaid (`families`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enginebench.errors import UserError
from enginebench.physics.blocks import unfolded
from enginebench.physics.field_names import MEANINGS, SIZED, WITHOUT_SIZE
from enginebench.physics.field_types import by_layer, check

Config = Mapping[str, Any]

_NESTED = ("attn_config", "ffn_config", "linear_attn_config", "sparse_attention_config", "attention_other_setting", "loop_config")
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config", "language_model_config", "text_model_config")


def text_part(config: Config) -> Config:
    """The part of a config that describes the language model; it inherits what only the whole states."""
    inner = next((config[key] for key in _TEXT if isinstance(config.get(key), Mapping)), None)
    if inner is None:
        return config
    inner = text_part(inner)
    inherited = {key: config[key] for key in ("model_type", "tie_word_embeddings", "architectures") if key in config}
    return {**inherited, **inner}


class Fields:
    """Reads a config by meaning. `defaults` are those of the family, where the config says nothing."""

    def __init__(self, name: str, config: Config, defaults: Config) -> None:
        self.name, self.defaults = name, defaults
        config = unfolded(name, config)
        if defaults.get("modalities"):  # lists with one value for text and one for pictures, which have experts of their own
            config = {
                key: value[0] if key.startswith("moe_") and isinstance(value, list) and value else value for key, value in config.items()
            }
        self.per_layer = by_layer(name, config.get("per_layer_config"))
        """Fields of single layers, as transformers writes them."""
        nested = {
            f"{key}.{inner}": value for key in _NESTED if isinstance(config.get(key), Mapping) for inner, value in config[key].items()
        }
        self.config = {**{key: value for key, value in config.items() if key not in (*_NESTED, "per_layer_config")}, **nested}
        check(name, self.config, self.per_layer)

    def written(self, meaning: str) -> Any:
        """What the config itself says, or None."""
        return next((self.config[key] for key in MEANINGS[meaning] if self.config.get(key) is not None), None)

    def get(self, meaning: str, default: Any = None) -> Any:
        found = self.written(meaning)
        return self.defaults.get(meaning, default) if found is None else found

    def need(self, meaning: str) -> int:
        found = self.get(meaning)
        if found is None:
            raise UserError(f"the config of {self.name} lacks {MEANINGS[meaning][0]}", key=MEANINGS[meaning][0])
        if isinstance(found, bool) or not isinstance(found, int):
            raise self.unknown(meaning, found)
        return found

    def at(self, meaning: str, layer: int, default: Any = None) -> Any:
        """The value of one layer, if the config has a list with one per layer."""
        own = self.per_layer.get(layer)
        if own is not None and (key := next((key for key in MEANINGS[meaning] if own.get(key) is not None), None)):
            return own[key]
        found = self.get(meaning, default)
        if isinstance(found, Sequence) and not isinstance(found, str):
            if len(found) <= layer:
                raise UserError(f"{self.called(meaning)} has {len(found)} values, but there is a layer {layer}", key=self.called(meaning))
            return found[layer]
        return found

    def number(self, meaning: str, layer: int) -> int:
        """The whole number of one layer. UserError if there is none."""
        found = self.at(meaning, layer)
        if found is None:
            return self.need(meaning)
        if isinstance(found, bool) or not isinstance(found, int):
            raise self.unknown(meaning, found)
        return found

    def called(self, meaning: str) -> str:
        return next((key for key in MEANINGS[meaning] if self.config.get(key) is not None), MEANINGS[meaning][0])

    def unknown(self, meaning: str, value: object) -> UserError:
        key = self.called(meaning)
        return UserError(f"the config of {self.name} has {key}: {value!r}, which is not understood", key=key)

    def not_understood(self, *, family: bool) -> list[str]:
        """Names of fields that may change the number of weights and are not in the table. family: the model type is known, so that only
        fields whose names are about sizes can be news."""
        known = {key for keys in MEANINGS.values() for key in keys} | set(self.defaults.get("fields", ()))
        found = []
        for key, value in self.config.items():
            plain = key.partition(".")[2] or key
            nested_copy = plain != key and (plain in known or plain in self.config)
            if (
                key in known
                or nested_copy
                or value in (None, False, 0, "", [], {})
                or isinstance(value, float | str)
                or WITHOUT_SIZE.search(plain)
            ):
                continue
            if key in ("model_type", *_TEXT) or (family and not SIZED.search(plain)):
                continue
            found.append(key)
        return found
