"""Readers for what engines tell of themselves, in JSON or as Prometheus text: whatever it is, they take nothing on trust and raise nothing.

Knows no engine and no name of a field.
"""

from __future__ import annotations

import contextlib
import json
import math
from typing import TypeVar

from enginebench.domain import JSON

_Kind = TypeVar("_Kind", str, int, float, bool)
_DEEPEST = 64
"""Levels of arrays and objects; no engine's answer has a dozen."""


def parsed(body: bytes) -> JSON:
    """JSON that can be stored again; None for what is none, or is nested too deep.

    NaN and infinity, which JSON does not have and Python writes and reads, are None; half of a surrogate pair is a question mark.
    """
    try:
        return _storable(json.loads(body), _DEEPEST)
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
    """The value, if it is a JSON object; {} for anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: JSON) -> list[JSON]:
    """The value, if it is a JSON array; [] for anything else."""
    return value if isinstance(value, list) else []


def only(kind: type[_Kind], value: JSON) -> _Kind | None:
    """The value, if it is of exactly this kind: true is no int, and 1 no float."""
    return value if type(value) is kind else None


_SECRETS = ("api_key", "password", "secret", "hf_token", "env_vars", "watermark")


def without_secrets(value: JSON) -> JSON:
    """The value without what may be nobody else's business: engines tell their own arguments, keys among them."""
    if isinstance(value, dict):
        return {name: without_secrets(inner) for name, inner in value.items() if not any(word in name.lower() for word in _SECRETS)}
    return [without_secrets(inner) for inner in value] if isinstance(value, list) else value


def prometheus_totals(text: str) -> dict[str, float]:
    """Prometheus text as name -> value, summed over label sets (one per rank, in some engines). What is not a sample is left out, and so
    are NaN and infinity, which say that there is nothing to say."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        name, braced, rest = line.partition("{")
        if braced:
            rest = rest.rpartition("}")[2]
        else:
            name, _, rest = line.partition(" ")
        if name and not name.startswith("#"):
            with contextlib.suppress(ValueError, IndexError):  # a comment, a histogram's exemplar, or no Prometheus at all
                if math.isfinite(value := float(rest.split()[0])):
                    totals[name] = totals.get(name, 0.0) + value
    return totals
