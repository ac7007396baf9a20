"""Describes in words what is valid at a place of a YAML file, from the JSON schema of the class that validates it.

Covers types, bounds, examples and enumerations, but not the rules in validator code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from enginebench.inputs.source import Location

Schema: TypeAlias = Mapping[str, Any]
_UNITS = {"_ms": " of milliseconds", "_s": " of seconds"}
_TYPES = {"boolean": "true or false", "string": "text", "array": "a list"}


@dataclass(frozen=True)
class Shape:
    """A JSON schema. An empty one allows everything."""

    root: Schema

    @staticmethod
    @cache
    def of(model: type) -> Shape:
        """The shape of a pydantic model or dataclass; empty if a field cannot be described by a JSON schema."""
        try:
            return Shape(TypeAdapter(model).json_schema())
        except PydanticInvalidForJsonSchema:
            return Shape({})

    def keys(self, location: Location) -> list[str]:
        return [key for schema in self._at(location) for key in schema.get("properties", ())]

    def advice(self, location: Location) -> str | None:
        """What to write at `location`, e.g. 'write memory: 64GiB (text)' or 'write a whole number from 1 to 8'; None if unknown."""
        schemas = self._at(location)
        key = next((part for part in reversed(location) if isinstance(part, str)), "")
        unit = next((unit for ending, unit in _UNITS.items() if key.endswith(ending)), "")
        lists = [schema["items"] for schema in schemas if "items" in schema]
        forms = dict.fromkeys(_words(schema, unit) for schema in schemas if schema.get("items") not in schemas)
        forms |= dict.fromkeys(["a list of them to sweep"] if any(item in schemas for item in lists) else [])
        text = ", or ".join(filter(None, forms))
        example = next((f"{key}: {example}" for schema in schemas for example in schema.get("examples", ())), "")
        return f"write {example} ({text})" if example and text else f"write {text}" if text else None

    def _at(self, location: Location) -> Sequence[Schema]:
        """Every schema that applies to `location`, with each alternative as its own entry."""
        here = [*self._expanded(self.root)]
        for part in location:
            here = [found for schema in here for inner in _inside(schema, part) for found in self._expanded(inner)]
        return here

    def _expanded(self, schema: Schema) -> Iterator[Schema]:
        """The schema, and the targets of its reference and alternatives."""
        yield schema
        if "$ref" in schema:
            yield from self._expanded(self.root["$defs"][schema["$ref"].rpartition("/")[2]])
        for one in schema.get("anyOf", ()):
            yield from self._expanded(one)


def _inside(schema: Schema, part: str | int) -> Iterator[Schema]:
    """The schemas of the value at a key or an index."""
    if isinstance(part, int):
        found = [schema.get("items")]
    elif part in schema.get("properties", {}):
        found = [schema["properties"][part]]
    else:
        found = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    yield from (one for one in found if isinstance(one, dict))


def _words(schema: Schema, unit: str) -> str | None:
    """What a schema allows, in words, without its alternatives; None if it has no type, and for null."""
    kind = schema.get("type")
    if known := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " or ".join(map(str, known))
    if kind in ("integer", "number"):
        return f"a {'whole ' if kind == 'integer' else ''}number{unit}{_bounds(schema)}"
    if kind == "object":
        keys = ", ".join(schema.get("properties", ()))
        return f"a mapping with keys of {keys}" if keys else "a mapping (key: value)"
    return _TYPES.get(kind or "")


def _bounds(schema: Schema) -> str:
    least, above, most = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    from_ = f" from {least:,}" if least is not None else f" above {above:,}" if above is not None else ""
    to = f"{' to' if least is not None else ', up to' if above is not None else ' up to'} {most:,}" if most is not None else ""
    return from_ + to
