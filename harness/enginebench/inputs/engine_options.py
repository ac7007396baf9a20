"""An engine's options as a frozen dataclass in which each option declares its command line flag.

    page_size: int | None = option("--page-size", reported="page_size")
    \"\"\"Tokens per KV page.\"\"\"

Does not know engines. Order on the command line is the order of the fields.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from enginebench.domain import JSON, Deployment, Parallelism

_Options = TypeVar("_Options")


def option(flag: str | None = None, default: Any = None, *, reported: str | None = None) -> Any:
    """A field of an options dataclass.

    flag: written with the option's value where that is not None. True writes the flag alone, False writes nothing.
    reported: where the engine reports the value, in whatever form the adapter's `resolved` looks it up (see `reported_options`).
    """
    return dataclasses.field(default=default, metadata={"flag": flag, "reported": reported})


def options_as(kind: type[_Options], deployment: Deployment) -> _Options:
    """The deployment's options as the adapter's own dataclass. They were validated when the scenario was read."""
    key = kind, id(deployment.options)
    known = _known.get(key)
    if known is None or known[0] is not deployment.options:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        known = _known[key] = deployment.options, _reader(cast("type", kind)).validate_python(dict(deployment.options))
    options: _Options = known[1]
    return options


_known: dict[tuple[type, int], tuple[Mapping[str, JSON], Any]] = {}
"""(dataclass, id of options) -> the options and what was read: an adapter asks many times, and thousands of deployments share options."""
_MOST_KNOWN = 10_000


@cache
def _reader(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def declared_flags(options: Any) -> dict[str, JSON]:
    """Flag -> value of every option that declares one; {} for None."""
    fields = dataclasses.fields(options) if options is not None else ()
    return {field.metadata["flag"]: getattr(options, field.name) for field in fields if field.metadata.get("flag")}


def flags_of(values: Mapping[str, JSON]) -> list[str]:
    """['--flag', 'value', ...] in the order of the mapping.

    None, False and an empty list leave the flag out, and with it the engine's default in place. True writes the flag alone, a list the flag
    once with all its items, an object its JSON.
    """
    return [word for flag, value in values.items() for word in _words(flag, value)]


def _words(flag: str, value: JSON) -> list[str]:
    if value is None or value is False or value == []:
        return []
    if isinstance(value, Mapping):
        return [flag, json.dumps(dict(value))]
    items = value if isinstance(value, list) else [] if value is True else [value]
    return [flag, *map(str, items)]


def spread_flags(spread: Parallelism, **flags: str) -> dict[str, JSON]:
    """Flag -> size for every kind of parallelism above 1: pp="--pp-size" writes it only where pp > 1."""
    return {flag: getattr(spread, kind) for kind, flag in flags.items() if getattr(spread, kind) > 1}


def on_off(flag: str, value: bool | None) -> dict[str, JSON]:
    """{'--flag': True} for True, {'--no-flag': True} for False, {} for None."""
    return {} if value is None else {flag if value else flag.replace("--", "--no-", 1): True}


def reported_options(kind: type, value_at: Callable[[str], JSON]) -> dict[str, JSON]:
    """Option -> the value that the engine reports, for options that declare where; `value_at` looks that up."""
    places = {field.name: field.metadata.get("reported") for field in dataclasses.fields(kind)}
    found = {name: value_at(place) for name, place in places.items() if place}
    return {name: value for name, value in found.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """An engine without options of its own."""


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """Options that engines with continuous batching share; None leaves the engine's default in place."""

    prefix_cache: bool = False
    """Let a prompt reuse the KV of an earlier one. Off: a repeated prompt is computed again, every time."""
    chunked_prefill: bool | None = None
    """Split long prompts over steps, together with decodes."""
    batch_tokens: int | None = None
    """Most tokens of one forward pass."""
    stream_interval: int = option("--stream-interval", 1)
    """Tokens in one event of a stream."""
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Further environment variables of the engine and the libraries below it."""
    extra: tuple[str, ...] = ()
    """Further flags of the engine's server, passed through unchanged."""
