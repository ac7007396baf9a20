"""Turns pydantic's validation errors into one sentence with the line, the key and what to write instead."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from enginebench.errors import UserError, did_you_mean
from enginebench.scenario.source import Location, Source

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text (put it in quotes)",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "dataclass_type": "a mapping (key: value)",
    "list_type": "a list",
    "tuple_type": "a list",
}


def complain(error: ValidationError, source: Source, model: type[BaseModel], at: Location = ()) -> UserError:
    """The first thing that is wrong, as a UserError at its place in `source`; `at` is where the validated data stands."""
    # A misspelt key is also a missing key: what is written wrong explains more than what is not written.
    details = min(error.errors(), key=lambda e: (e["type"] == "missing", source.line((*at, *e["loc"])) or 0))
    location = _in_file((*at, *details["loc"]), source)
    message, advice = _say(details, model)
    more = error.error_count() - 1
    if more:
        advice = f"{advice + '; ' if advice else ''}{more} more problem{'s' if more > 1 else ''} after this one"
    return source.error(message, location, advice=advice)


def _in_file(location: Location, source: Source) -> Location:
    """Drop the list index that a single value got when it was turned into a list of one."""
    kept: Location = ()
    for part in location:
        if (*kept, part) in source.lines or not isinstance(part, int):
            kept = (*kept, part)
    return kept


def _say(details: ErrorDetails, model: type[BaseModel]) -> tuple[str, str | None]:
    kind, got = details["type"], _shown(details["input"])
    context: Mapping[str, Any] = details.get("ctx", {})
    if kind == "extra_forbidden":
        return "is not a known key", did_you_mean(str(details["loc"][-1]), _fields_at(model, details["loc"][:-1]))
    if kind == "missing":
        return "is missing", None
    if kind == "literal_error":
        known = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        return f"cannot be {got}", did_you_mean(str(details["input"]), known)
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}, got {got}", None
    if kind == "less_than_equal":
        return f"must be at most {context['le']:,}, got {got}", None
    if kind == "greater_than":
        return f"must be more than {context['gt']}, got {got}", None
    if kind == "too_short":
        return "is empty: at least one entry is needed", None
    if kind == "string_pattern_mismatch":
        return f"{got} is not of the form {context['pattern']}", _example(details["loc"], model)
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, got {got}", _example(details["loc"], model)
    return details["msg"], None


_UNITS = {"_ms": "write milliseconds as a plain number, e.g. 500", "_s": "write seconds as a plain number, e.g. 60"}


def _example(location: Location, model: type[BaseModel]) -> str | None:
    """What may be written at `location`: the example that its field gives, or the unit that its name ends in."""
    named = _in_schema(location)
    field = _field_at(model, named)
    if field is not None and field.examples:
        return f"write {named[-1]}: {field.examples[0]}"
    key = str(named[-1]) if named else ""
    return next((advice for ending, advice in _UNITS.items() if key.endswith(ending)), None)


def _in_schema(location: Location) -> Location:
    """The location up to its last key: an index there counts the values of a sweep."""
    while location and isinstance(location[-1], int):
        location = location[:-1]
    return location


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that may stand at `location` inside `model`."""
    here = _model_at(model, location)
    return [field.alias or name for name, field in here.model_fields.items()] if here else []


def _field_at(model: type[BaseModel], location: Location) -> FieldInfo | None:
    here = _model_at(model, location[:-1])
    return here.model_fields.get(str(location[-1])) if here and location else None


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    here: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(part)
            here = _inner_model(field.annotation) if field else None
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _inner_model(annotation: Any) -> Any:
    """The model inside Optional[...], Annotated[...], list[...] and dict[..., ...]."""
    if get_origin(annotation) in (Annotated, Union, types.UnionType, list, dict):
        found = [_inner_model(arg) for arg in get_args(annotation)]
        return next((f for f in found if isinstance(f, type) and issubclass(f, BaseModel)), None)
    return annotation
