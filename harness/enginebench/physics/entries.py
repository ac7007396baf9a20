"""The entries of the catalogues: those of enginebench, and a user's own `hardware.yaml` and `models.yaml`.

A user's file is read from the configuration folder and from the current folder. Its entries come before those of enginebench, and those of
the current folder before both. Checks the form of a user's file (file, line and key); it does not know what an entry means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from enginebench.errors import UserError, did_you_mean
from enginebench.inputs.source import Source, read
from enginebench.machine.folders import user_files as user_files

_DATA = Path(__file__).with_name("data")
_LAYOUT = 1


@dataclass(frozen=True, eq=False)
class Listed:
    """One entry as it is written."""

    data: Mapping[str, Any]
    section: str
    name: str
    source: Source | None = None
    """The user's file; None: enginebench's own."""

    def error(self, message: str, *keys: str | int, advice: str | None = None) -> UserError:
        assert self.source is not None  # noqa: S101  # a test reads all of enginebench's own
        return self.source.error(message, (self.section, self.name, *keys), advice=advice)


State = tuple[tuple[Path, int, int], ...]
"""The user's files by path, time of change and size: what is computed from them may be kept until they change."""


def state(file: str) -> State:
    found = []
    for path in user_files(file):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((path, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def own(file: str, section: str) -> dict[str, Listed]:
    """Those of enginebench."""
    return {name: Listed(data, section, name) for name, data in _built_in(file, section).items()}


def users(section: str, found: State) -> dict[str, Listed]:
    """Those of the user's files. UserError with file, line and key if one is no catalogue."""
    return {each.name: each for path, _, _ in found for each in _of_user(read(path), section)}


@cache
def _built_in(file: str, section: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where there is one
    data = yaml.load((_DATA / file).read_text(encoding="utf-8"), loader)  # noqa: S506  # a safe one
    if data["schema_version"] != _LAYOUT:
        raise ValueError(f"{file} has schema version {data['schema_version']}, expected {_LAYOUT}")
    found: dict[str, Any] = data[section]
    return found


def _of_user(source: Source, section: str) -> Iterator[Listed]:
    data = source.data
    foreign = "if it belongs to another program, rename it or run bench in another folder"
    if not isinstance(data, dict) or (section not in data and not any(key in ("schema_version", "devices", "models") for key in data)):
        near = did_you_mean(next(iter(data), ""), [section]) if isinstance(data, dict) else f"begin with {section}:"
        raise source.error(f"is no catalogue of {section}: the key `{section}` is missing", (), advice=f"{near}; {foreign}")
    for key in data:
        if key not in (section, "schema_version"):
            raise source.error("is not a known key", (key,), advice=did_you_mean(key, [section, "schema_version"]))
    if data.get("schema_version", _LAYOUT) != _LAYOUT:
        raise source.error(f"must be {_LAYOUT}, got {data['schema_version']}", ("schema_version",))
    entries = data.get(section)
    if not isinstance(entries, dict) or not entries:
        raise source.error(
            "must be a mapping of names to entries", (section,), advice=f"write {section}: and below it a name with its keys"
        )
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise source.error("must be a mapping of keys to values", (section, name))
        yield Listed(entry, section, name, source)
