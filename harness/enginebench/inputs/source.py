"""Reads a YAML file together with the line of every key, so that errors can point to it.

Rejects duplicate keys (YAML parsers silently keep the last one) and accepts only plain data. Does not know: scenarios.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from enginebench.domain import JSON
from enginebench.errors import UserError

Location = tuple[str | int, ...]
"""A path into the data: keys and list indices from the root, e.g. ('loads', 0, 'concurrency')."""


_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, JSON] = {"true": True, "false": False}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Scalars as in YAML 1.2: `no`, `on`, 2026-01-01 and 1:30 are text, 010 is ten, 1e3 is a number."""


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|false)$"), list("tf")),
    ("int", re.compile(rf"(?:{_INT.pattern})$"), list("-+0123456789")),
    ("float", re.compile(rf"(?:{_FLOAT.pattern})$"), list("-+.0123456789")),
    ("merge", re.compile(r"<<$"), ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)


@dataclass(frozen=True)
class Source:
    file: Path
    text: str
    data: JSON
    lines: dict[Location, int] = field(default_factory=dict)
    """Line (from 1) of every key and list entry."""

    def line(self, location: Location) -> int | None:
        """Line of the deepest part of `location` that exists in the file."""
        for depth in range(len(location), -1, -1):
            if location[:depth] in self.lines:
                return self.lines[location[:depth]]
        return None

    def place(self, location: Location, index: int) -> Location:
        """Location of value number `index` of a sweep: in the list at `location`, or `location` itself for a single value."""
        return (*location, index) if (*location, index) in self.lines else location

    def error(self, message: str, location: Location, *, advice: str | None = None) -> UserError:
        return UserError(message, file=self.file, line=self.line(location), key=dotted(location) or None, advice=advice)


def dotted(location: Location) -> str:
    """('loads', 0, 'concurrency') -> 'loads[0].concurrency'."""
    out = ""
    for part in location:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def read(file: Path) -> Source:
    """Read a YAML file. UserError for a missing file, invalid UTF-8, invalid YAML and duplicate keys."""
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise UserError("is a pipe or a device, expected a YAML file", file=file, advice="write its content to a file")
        if (size := file.stat().st_size) > _MAX_BYTES and file.is_file():
            advice = "sweep a list of values instead of writing everything out"
            raise UserError(
                f"has {size / 1e6:.1f} MB, more than the {_MAX_BYTES / 1e6:.0f} MB of YAML that are read", file=file, advice=advice
            )
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("file not found", file=file) from None
    except IsADirectoryError:
        raise UserError("is a folder, expected a YAML file", file=file) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is not a text file in UTF-8 ({error.reason} at byte {error.start})", file=file) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from None
    return parse(text, file)


def parse(text: str, file: Path) -> Source:
    """Like `read`, for a given text. `file` is used only in errors."""
    loader = _Loader(text)
    builder = _Builder(file, loader)
    try:
        return Source(file, text, builder.document(), builder.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be parsed"
        lines = text.splitlines()
        if mark and "\t" in lines[min(mark.line, len(lines) - 1)].partition("#")[0]:
            problem = "this line has a tab, which cannot indent: write spaces"
        raise UserError(f"invalid YAML: {problem}", file=file, line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise UserError(f"invalid YAML: {' '.join(str(error).split())}", file=file) from None
    finally:
        loader.dispose()


_MAX_BYTES = 4_000_000
_MAX_VALUES = 200_000
_MAX_DEPTH = 32
_MAX_DIGITS = 300
_COLLECTIONS = (None, "!", f"{_TAG}map", f"{_TAG}seq")
_MERGE = "<<"


@dataclass
class _Builder:
    """Builds plain data from YAML events and records the line of every key and list entry.

    The events are read here, because the composers of both libyaml and PyYAML recurse without a limit.
    """

    file: Path
    loader: Any
    lines: dict[Location, int] = field(default_factory=dict)
    order: list[Location] = field(default_factory=list)
    """The places in `lines` as they were met: those inside a value follow it."""
    anchors: dict[str, tuple[JSON, list[tuple[Location, int]]] | None] = field(default_factory=dict)
    """Name -> its value, and the lines inside it, by their places in it; None while it is read."""
    expanded: int = 0
    """Values that aliases have repeated."""

    def document(self) -> JSON:
        self.loader.get_event()  # the start of the stream
        if self.loader.check_event(yaml.StreamEndEvent):
            raise UserError("is empty", file=self.file)
        self.loader.get_event()  # the start of the document
        data = self._value(())
        self.loader.get_event()
        if not self.loader.check_event(yaml.StreamEndEvent):
            raise self._error("a second document begins here (---): write one per file", self.loader.peek_event())
        return data

    def _value(self, at: Location) -> JSON:
        event = self.loader.get_event()
        self._note(at, _line(event))
        first = len(self.order)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, at)
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            data = self._scalar(event)
        elif event.tag not in _COLLECTIONS:
            raise self._error(f"has the tag {event.tag[:60]}, which is not plain data", event)
        elif len(at) >= _MAX_DEPTH:
            raise self._error(f"is nested too deeply: more than {_MAX_DEPTH} levels", event)
        else:
            data = self._mapping(at) if isinstance(event, yaml.MappingStartEvent) else self._sequence(at)
        if event.anchor:
            self.anchors[event.anchor] = data, [(place[len(at) :], self.lines[place]) for place in self.order[first:]]
        return data

    def _note(self, at: Location, line: int) -> None:
        if at not in self.lines:
            self.lines[at] = line
            self.order.append(at)

    def _alias(self, event: yaml.AliasEvent, at: Location) -> JSON:
        if event.anchor not in self.anchors:
            raise self._error(f"*{event.anchor} has no &{event.anchor} before it", event)
        anchored = self.anchors[event.anchor]
        if anchored is None:
            raise self._error(f"*{event.anchor} is an alias inside its own value", event)
        data, inside = anchored
        self.expanded += len(inside)
        if self.expanded > _MAX_VALUES:
            raise self._error(f"an alias bomb: aliases of aliases repeat more than {_MAX_VALUES:,} values", event)
        if any(len(at) + len(place) > _MAX_DEPTH for place, _ in inside):
            raise self._error(f"is nested too deeply: more than {_MAX_DEPTH} levels", event)
        for place, line in inside:
            self._note((*at, *place), line)
        return data

    def _sequence(self, at: Location) -> JSON:
        out: list[JSON] = []
        while not self.loader.check_event(yaml.SequenceEndEvent):
            out.append(self._value((*at, len(out))))
        self.loader.get_event()
        return out

    def _mapping(self, at: Location) -> JSON:
        out: dict[str, JSON] = {}
        merged: list[JSON] = []
        first = len(self.order)
        while not self.loader.check_event(yaml.MappingEndEvent):
            event = self.loader.get_event()
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error("a key must be text", event)
            key = event.value
            here = (*at, key)
            if key == _MERGE and event.implicit[0]:  # `<<: *anchor`: keys of this mapping win
                value = self._value(here)
                merged += value if isinstance(value, list) else [value]
                if not all(isinstance(each, dict) for each in merged):
                    raise self._error("`<<` takes a mapping", event)
                continue
            if key in out:
                raise self._error("duplicate key", event, key=dotted(here))
            self._note(here, _line(event))
            out[key] = self._value(here)
        self.loader.get_event()
        for other in merged:
            out = {**other, **out} if isinstance(other, dict) else out
        for place in self.order[first:] if merged else ():
            if place[len(at)] == _MERGE:
                rest = place[len(at) + 1 :]
                self._note((*at, *(rest[1:] if rest and isinstance(rest[0], int) else rest)), self.lines[place])
        return out

    def _scalar(self, event: yaml.ScalarEvent) -> JSON:
        text = str(event.value)
        tag = event.tag if event.tag not in (None, "!") else self.loader.resolve(yaml.ScalarNode, text, event.implicit)
        kind = tag.removeprefix(_TAG)
        if kind in ("str", "merge"):
            return text
        if kind == "null":
            return None
        if kind == "bool" and text in _WORDS:
            return _WORDS[text]
        if kind in ("int", "float") and len(text) > _MAX_DIGITS:
            raise self._error(f"number too long ({len(text)} characters)", event)
        if kind == "int" and _INT.fullmatch(text):
            return int(text)
        if kind == "float" and _FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        raise self._error(f"'{text[:40]}' has the tag {tag[:60]}, which is not plain data", event)

    def _error(self, message: str, event: yaml.Event, *, key: str | None = None) -> UserError:
        return UserError(message, file=self.file, line=_line(event), key=key)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
