"""Reads engines' replies about themselves, in JSON or Prometheus text. Input is untrusted; nothing here raises.

Does not know: engines, field names.
"""

from __future__ import annotations

import contextlib
import json
import math
from typing import TypeVar

from enginebench.domain import JSON

_Kind = TypeVar("_Kind", str, int, float, bool)
_MAX_DEPTH = 64
"""Levels of arrays and objects; real replies have fewer than twelve."""


def parsed(body: bytes) -> JSON:
    """Parse JSON into values that can be stored again; None if it is invalid or nested too deeply.

    NaN and infinity (which Python accepts, but JSON does not have) become None; a lone surrogate becomes a question mark.
    """
    try:
        return _storable(json.loads(body), _MAX_DEPTH)
    except (ValueError, RecursionError):
        return None


def _storable(value: JSON, levels: int) -> JSON:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict | list) and not levels:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        return {_text(name): _storable(inner, levels - 1) for name, inner in value.items()}
    return [_storable(inner, levels - 1) for inner in value] if isinstance(value, list) else value


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def as_object(value: JSON) -> dict[str, JSON]:
    """The value if it is a JSON object, else {}."""
    return value if isinstance(value, dict) else {}


def as_list(value: JSON) -> list[JSON]:
    """The value if it is a JSON array, else []."""
    return value if isinstance(value, list) else []


def only(kind: type[_Kind], value: JSON) -> _Kind | None:
    """The value if it has exactly this type, else None. (true is not an int, 1 is not a float.)"""
    return value if type(value) is kind else None


_SECRETS = ("api_key", "password", "secret", "hf_token", "env_vars", "watermark")


def without_secrets(value: JSON) -> JSON:
    """The value without fields that may be secrets: engines report their arguments, which can include keys."""
    if isinstance(value, dict):
        return {name: without_secrets(inner) for name, inner in value.items() if not any(word in name.lower() for word in _SECRETS)}
    return [without_secrets(inner) for inner in value] if isinstance(value, list) else value


def prometheus_totals(text: str) -> dict[str, float]:
    """Prometheus text as name -> value, summed over label sets (some engines have one per rank), without NaN and infinity."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        name, braced, rest = line.partition("{")
        if braced:
            rest = rest.rpartition("}")[2]
        else:
            name, _, rest = line.partition(" ")
        if name and not name.startswith("#"):
            with contextlib.suppress(ValueError, IndexError):  # an exemplar of a histogram, or not Prometheus text
                if math.isfinite(value := float(rest.split()[0])):
                    totals[name] = totals.get(name, 0.0) + value
    return totals
