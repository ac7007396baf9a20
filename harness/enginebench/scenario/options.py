"""The `options` of a deployment: the values of a sweep, each validated against the adapter's own dataclass."""

import dataclasses
import itertools
import math
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from enginebench.adapter import Adapter
from enginebench.domain import JSON, plain
from enginebench.errors import did_you_mean
from enginebench.inputs.source import Location, Source
from enginebench.inputs.validation_errors import as_user_error

Axes = dict[str, list[JSON]]
"""Option name -> the values to sweep."""


def option_axes(options: dict[str, JSON], adapter: Adapter, source: Source, here: Location) -> Axes:
    """The values of each option. UserError for an option that the engine does not have."""
    listed = _list_options(adapter.options)
    axes: Axes = {}
    for key, value in options.items():
        if key not in listed:
            raise source.error(f"is not an option of {adapter.title}", (*here, key), advice=did_you_mean(key, listed))
        axes[key] = value if isinstance(value, list) and (not listed[key] or any(isinstance(v, list) for v in value)) else [value]
        if not axes[key]:
            raise source.error("is an empty list: the sweep would have no cells", (*here, key))
    return axes


def size(axes: Axes) -> int:
    return math.prod(len(values) for values in axes.values())


def combinations(axes: Axes, adapter: Adapter, source: Source, here: Location) -> list[dict[str, JSON]]:
    return [_validated(dict(zip(axes, point, strict=True)), adapter, source, here) for point in itertools.product(*axes.values())]


def _validated(options: dict[str, JSON], adapter: Adapter, source: Source, here: Location) -> dict[str, JSON]:
    try:
        checked: Any = _validator(adapter.options).validate_python(options)
    except ValidationError as error:
        raise as_user_error(error, source, adapter.options, here) from None
    return {key: plain(getattr(checked, key)) for key in options}


@cache  # building one takes longer than 1,000 validations
def _validator(options: type) -> TypeAdapter[Any]:
    return TypeAdapter(options)


@cache
def _list_options(options: type) -> dict[str, bool]:
    """Option name -> whether its value is a list (then only a list of lists is a sweep)."""
    hints = get_type_hints(options)
    return {
        f.name: any(get_origin(t) in (list, tuple) for t in (hints[f.name], *get_args(hints[f.name]))) for f in dataclasses.fields(options)
    }
