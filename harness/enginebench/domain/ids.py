"""Plain JSON data of the domain classes, and ids as hashes of it.

Canonical JSON omits fields at their default, so a field added later (with a default) does not change the id of an older cell.
Does not know domain classes by name.
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
    JSON = Any  # without pydantic the load generator's processes start four times as fast


def plain(value: Any) -> JSON:
    """Dataclasses, mappings and sequences as plain JSON data, fields in declaration order.

    A dataclass with a method `stored` is stored as the mapping that it returns.
    """
    if value is None or type(value) in (str, int, float, bool):  # first, because nearly all are
        result: JSON = value
        return result
    if hasattr(value, "stored"):
        return {name: plain(item) for name, item in value.stored().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | array):
        return [plain(v) for v in value]
    return value if isinstance(value, int | float | str) else str(value)


def plain_object(value: Any) -> dict[str, JSON]:
    data = plain(value)
    if not isinstance(data, dict):
        raise TypeError(f"a {type(value).__name__} is not a JSON object")
    return data


def canonical(value: Any) -> dict[str, JSON]:
    """A dataclass as plain JSON without the fields that equal their default. Ids are hashed from it."""
    out: dict[str, JSON] = {}
    for name, default in _defaults(type(value)):  # type: ignore[arg-type]  # mypy doubts that a class is hashable
        item = getattr(value, name)
        if item is not default and item != default:
            out[name] = canonical(item) if dataclasses.is_dataclass(item) else plain(item)
    return out


@cache  # a plan of 10,000 cells asks 30,000 times
def _defaults(kind: type) -> tuple[tuple[str, Any], ...]:
    """Each field of a dataclass with the value that canonical JSON omits; MISSING: none.

    That is its default, unless the field's metadata has a `canonical_default`.
    """
    return tuple((field.name, field.metadata.get("canonical_default", _default(field))) for field in dataclasses.fields(kind))


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def fingerprint(data: JSON | dict[str, JSON]) -> str:
    """First 12 hex digits of SHA-256 over canonical JSON (sorted keys, no spaces)."""
    return short_hash(_text(data))


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _text(data: JSON) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def text_of(value: Any) -> str:
    """The canonical JSON text of a frozen dataclass, kept with it: the cells of a plan share their deployments and loads."""
    known: str | None = vars(value).get("_text")
    if known is None:
        known = _text(canonical(value))
        object.__setattr__(value, "_text", known)
    return known
