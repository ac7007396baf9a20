"""Reads engines' replies about themselves, in JSON or Prometheus text. Input is untrusted; nothing here raises.

Does not know: engines, field names.
"""

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from enginebench.dialects.engine_state import accepted_at
from enginebench.domain import JSON

_Kind = TypeVar("_Kind", str, int, float, bool)
_MAX_DEPTH = 64
"""Levels of arrays and objects; real replies have fewer than twelve."""
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_POSITION = re.compile(r'[{,]position="(\d{1,4})"')
_SECRETS = ("api_key", "password", "secret", "hf_token", "env_vars", "watermark")


@dataclass(frozen=True)
class Reply:
    """The reply to a GET. Status 0: the connection was refused or reset; -1: no connection can succeed. The body then says why."""

    status: int
    body: bytes = b""

    def json(self) -> JSON:
        return parsed(self.body)

    @property
    def text(self) -> str:
        """The body as UTF-8 text; bytes that are not UTF-8 are replaced."""
        return self.body.decode(errors="replace")


Get = Callable[[str], Reply]
"""GET a path of the server under test. The harness provides it."""


def parsed(body: bytes) -> JSON:
    """Parse JSON into values that can be stored again; None if it is invalid or nested too deeply.

    NaN and infinity (which Python accepts, but JSON does not have) become None; a lone surrogate becomes a question mark.
    """
    try:
        return _storable(json.loads(body), _MAX_DEPTH)
    except (ValueError, RecursionError):
        return None


def _storable(value: JSON, levels: int) -> JSON:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _without_surrogates(value)
    if isinstance(value, dict | list) and not levels:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        return {_without_surrogates(name): _storable(inner, levels - 1) for name, inner in value.items()}
    return [_storable(inner, levels - 1) for inner in value] if isinstance(value, list) else value


def _without_surrogates(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def as_object(value: JSON) -> dict[str, JSON]:
    return value if isinstance(value, dict) else {}


def as_list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


def only(kind: type[_Kind], value: JSON) -> _Kind | None:
    """The value if it has exactly this type, else None. (true is not an int, 1 is not a float.)"""
    return value if type(value) is kind else None


class Fields:
    """Typed access to what should be a JSON object. Where it is not, or a value is missing or has another type, the result is None.

    A path like 'cache_config.block_size' or 'data.0.id' goes through objects and arrays.
    """

    def __init__(self, value: JSON) -> None:
        self.value = as_object(value)

    def at(self, path: str) -> JSON:
        """The value at that path, of any type."""
        found: JSON = self.value
        for key in path.split("."):
            if isinstance(found, list):
                found = found[int(key)] if key.isdigit() and int(key) < len(found) else None
            else:
                found = as_object(found).get(key)
        return found

    def text(self, path: str) -> str | None:
        return only(str, self.at(path))

    def whole(self, path: str) -> int | None:
        return only(int, self.at(path))

    def flag(self, path: str) -> bool | None:
        return only(bool, self.at(path))


def given(values: Mapping[str, JSON]) -> dict[str, JSON]:
    return {name: value for name, value in values.items() if value is not None}


def without_secrets(value: JSON) -> JSON:
    """The value without fields that may be secrets: engines report their arguments, which can include keys."""
    if isinstance(value, dict):
        return {name: without_secrets(inner) for name, inner in value.items() if not any(word in name.lower() for word in _SECRETS)}
    return [without_secrets(inner) for inner in value] if isinstance(value, list) else value


def prometheus_totals(text: str) -> dict[str, float]:
    """Prometheus text as name -> value, summed over label sets (some engines have one per rank), without NaN and infinity."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        name, braced, rest = line.partition("{")
        if braced:
            rest = rest.rpartition("}")[2]
        else:
            name, _, rest = line.partition(" ")
        if name and not name.startswith("#"):
            with contextlib.suppress(ValueError, IndexError):  # an exemplar of a histogram, or not Prometheus text
                if math.isfinite(value := float(rest.split()[0])):
                    totals[name] = totals.get(name, 0.0) + value
    return totals


def prometheus_mean(text: str, name: str) -> float | None:
    """A gauge's mean over the label sets that have it; None where there is none."""
    lines = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
    total = prometheus_totals("\n".join(lines)).get(name)
    return total / len(lines) if total is not None else None


def renamed(totals: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """The totals under neutral names; `names` maps neutral names to the engine's, and those that are missing are left out."""
    return {name: totals[theirs] for name, theirs in names.items() if theirs in totals}


def accepted_per_position(text: str, name: str) -> dict[str, float]:
    """A counter with the label `position`, from 0, under the neutral names of totals: {'accepted_at_1': 8.0, ...}."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith(name + "{") and (label := _POSITION.search(line)) and (value := prometheus_totals(line).get(name)) is not None:
            at = accepted_at(int(label[1]) + 1)
            found[at] = found.get(at, 0.0) + value
    return found


def prometheus_labels(text: str, name: str) -> dict[str, JSON]:
    """The labels of the first line of a metric, which hold an engine's configuration as text, as JSON values; {} where there is none."""
    line = next((line for line in text.splitlines() if line.startswith(name + "{")), "")
    words: dict[str, JSON] = {"True": True, "False": False, "None": None}
    labels = _LABEL.findall(line)
    return {key: words[value] if value in words else int(value) if value.isdigit() else value for key, value in labels}
