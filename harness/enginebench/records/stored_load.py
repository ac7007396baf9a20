"""Reads the loads of stored records: flat JSON with the fields of all kinds, of which one kind is chosen.

Knows no kind of load by name.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, PlainValidator, TypeAdapter

from enginebench.domain import Load, Search, kind_of


def read_load(data: Any) -> Load:
    """The load with these fields. ValueError (of pydantic) for anything else."""
    if not isinstance(data, Mapping):
        raise ValueError("a load is a JSON object")
    return _reader(kind_of(data)).validate_python(data)


@cache
def _reader(kind: type[Load]) -> TypeAdapter[Load]:
    return TypeAdapter(kind)


def _with_base(data: Any) -> Any:
    """The data of a search with its load read."""
    return {**data, "base": read_load(data.get("base"))} if isinstance(data, Mapping) else data


StoredLoad: TypeAlias = Annotated[Load, PlainValidator(read_load)]
"""Type of a field of a record that holds a load."""
StoredSearch: TypeAlias = Annotated[Search, BeforeValidator(_with_base)]
"""The same for a search."""
