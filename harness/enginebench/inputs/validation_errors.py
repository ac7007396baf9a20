"""Converts validation errors of pydantic to one sentence with line, key and advice."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from enginebench.domain.formatting import counted
from enginebench.errors import UserError, did_you_mean
from enginebench.inputs.shape import Shape
from enginebench.inputs.source import Location, Source

_EXPECTED = {
    "a whole number": ("int_type", "int_parsing", "int_from_float"), "a number": ("float_type", "float_parsing"),
    "a finite number": ("finite_number",), "text (put it in quotes)": ("string_type",), "true or false": ("bool_type", "bool_parsing"),
    "a mapping (key: value)": ("model_type", "model_attributes_type", "dict_type", "dataclass_type"), "a list": ("list_type", "tuple_type"),
}  # fmt: skip
_MESSAGES = {kind: f"must be {expected}, got {{got}}" for expected, kinds in _EXPECTED.items() for kind in kinds} | {
    "missing": "is missing",
    "greater_than_equal": "must be at least {ge:,}, got {got}",
    "less_than_equal": "must be at most {le:,}, got {got}",
    "greater_than": "must be more than {gt}, got {got}",
    "too_short": "is empty: at least one entry is needed",
    "string_pattern_mismatch": "must match {pattern}, got {got}",
}
"""pydantic's kind of error -> our message; the others keep pydantic's."""


def as_user_error(error: ValidationError, source: Source, model: type, at: Location = ()) -> UserError:
    """The first error as a UserError at its place in `source`.

    model: the pydantic model or dataclass that validated the data. at: location of the validated data in the file.
    """
    # A misspelt key causes two errors: an unknown key and a missing one. Report the unknown one.
    details = min(error.errors(), key=lambda e: (e["type"] == "missing", source.line((*at, *e["loc"])) or 0))
    places = {_in_file((*at, *e["loc"]), source, absent=e["type"] == "missing") for e in error.errors()}
    location = _in_file((*at, *details["loc"]), source, absent=details["type"] == "missing")
    message, advice = _message(details, location[len(at) :], Shape.of(model))
    more = len(places) - 1  # several alternatives that do not fit one value are one problem
    if more:
        advice = f"{advice + '; ' if advice else ''}{counted(more, 'more problem')} after this one"
    return source.error(message, location, advice=advice)


def _in_file(location: Location, source: Source, *, absent: bool) -> Location:
    """Drop the parts that pydantic adds: the index of a single value that became a list, and the name of an alternative.

    absent: the last part is a missing key.
    """
    kept: Location = ()
    for depth, part in enumerate(location, 1):
        if (*kept, part) in source.lines or (absent and depth == len(location)):
            kept = (*kept, part)
    return kept


def _message(details: ErrorDetails, location: Location, shape: Shape) -> tuple[str, str | None]:
    kind, got = details["type"], _shown(details["input"])
    context: Mapping[str, Any] = details.get("ctx", {})
    if kind == "extra_forbidden":
        return "is not a known key", did_you_mean(str(location[-1]), shape.keys(location[:-1]))
    if kind == "literal_error":
        known = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        return f"cannot be {got}", did_you_mean(str(details["input"]), known)
    message = _MESSAGES[kind].format(got=got, **context) if kind in _MESSAGES else details["msg"]
    return message, shape.advice(location)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
