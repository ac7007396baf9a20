"""Plain JSON data of the nouns, and ids as hashes of it.

Fields at their default are left out of canonical JSON, so a field added later (with a default) does not change the id of an older cell.
Knows no noun by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pydantic import JsonValue

    JSON: TypeAlias = JsonValue
else:
    JSON = Any  # the load generator's processes start in a quarter of the time without pydantic


def plain(value: Any) -> JSON:
    """Dataclasses, mappings and sequences as plain JSON data, fields in declaration order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | array):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def plain_object(value: Any) -> dict[str, JSON]:
    """A dataclass or mapping as a JSON object."""
    data = plain(value)
    if not isinstance(data, dict):
        raise TypeError(f"a {type(value).__name__} is no JSON object")
    return data


def canonical(value: Any) -> dict[str, JSON]:
    """A dataclass as plain JSON without the fields that equal their default: what ids are hashed from."""
    out: dict[str, JSON] = {}
    for name, default in _defaults(type(value)):  # type: ignore[arg-type]  # mypy doubts that a class is hashable
        item = getattr(value, name)
        if item != default:
            out[name] = canonical(item) if dataclasses.is_dataclass(item) else plain(item)
    return out


@cache  # a plan of 10,000 cells asks 30,000 times
def _defaults(kind: type) -> tuple[tuple[str, Any], ...]:
    """Each field of a dataclass with its default, MISSING where it has none."""
    return tuple(
        (f.name, f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default) for f in dataclasses.fields(kind)
    )


def fingerprint(data: JSON | dict[str, JSON]) -> str:
    """First 12 hex digits of SHA-256 over canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
