"""Field types of YAML models: bounded numbers, and fields that take one value or a list to sweep."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _as_list(value: Any) -> Any:
    if isinstance(value, list):
        if not value:
            raise PydanticCustomError("empty_sweep", "is an empty list: the sweep would have no cells; write a value or leave the key out")
        return value
    return [value]


def _tokens(value: Any) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000_000
    if number or (isinstance(value, str) and value.strip()):
        return value
    raise PydanticCustomError("tokens", "cannot be {got}", {"got": repr(value)[:60]})


def _sweep_schema(schema: dict[str, Any]) -> None:
    lists = [kind for kind in schema.pop("anyOf", [schema]) if kind.get("type") == "array"]
    items = lists[0].pop("items", {})
    schema.pop("type", None)
    schema["anyOf"] = [items, {"type": "array", "items": items, "minItems": 1}]


Count = Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
Few = Annotated[int, Field(ge=1, le=65_536, strict=True)]
"""A number of things that each need a socket, a process or a device."""
Seed = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False, strict=True, examples=[60])]
Wait = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False, strict=True, examples=[5])]
Rate = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False, strict=True)]
Factor = Annotated[float, Field(gt=0, le=1_000, allow_inf_nan=False, strict=True)]
Turns = Annotated[int, Field(ge=1, le=1_000, strict=True)]
Expression = Annotated[str, Field(min_length=1, max_length=4_000)]
Tokens = Annotated[Annotated[int, Field(ge=1, le=10_000_000)] | str, BeforeValidator(_tokens), Field(examples=["uniform(64,256)"])]
"""A number or an expression of `enginebench.workload`."""
Milliseconds = Annotated[float, Field(gt=0, le=10_000_000, allow_inf_nan=False, strict=True, examples=[500])]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
ListOf = BeforeValidator(_as_list)
"""One value or a list of values; always a list after validation."""


class Strict(BaseModel):
    """A model that rejects unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


def sweep_field(default: Any, doc: str) -> Any:
    """A field that takes one value or a list of values to sweep, stored as a list. default `...`: required."""
    if default is ...:
        return Field(json_schema_extra=_sweep_schema, description=doc)
    return Field(default_factory=lambda: [default], json_schema_extra=_sweep_schema, description=doc)


def sweep_or(doc: str) -> Any:
    """Like `sweep_field`, with a default that depends on other fields: None until the loads are expanded."""
    return Field(None, json_schema_extra=_sweep_schema, description=doc)
