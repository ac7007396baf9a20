"""Reads a YAML file together with the line of every key, so that errors can point to it.

Rejects duplicate keys (YAML parsers silently keep the last one) and accepts only plain data. Does not know: scenarios.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

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
    """One YAML file."""

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
        """A UserError that points at `location`."""
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
    loader = None
    try:
        _check_depth(text, file)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise UserError("is empty", file=file)
        builder = _Builder(file)
        data = builder.build(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be parsed"
        raise UserError(f"invalid YAML: {problem}", file=file, line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise UserError(f"invalid YAML: {error}", file=file) from None
    finally:
        if loader is not None:
            loader.dispose()
    return Source(file, text, data, builder.lines)


_MAX_NODES = 1_000_000
_MAX_DEPTH = 32
_MAX_DIGITS = 300


def _check_depth(text: str, file: Path) -> None:
    """Reject deep nesting before composing the document: the composer recurses in C, and its stack could overflow."""
    loader, depth = _Loader(text), 0
    try:
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    raise UserError("is nested too deeply", file=file, line=event.start_mark.line + 1 if event.start_mark else None)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    finally:
        loader.dispose()


@dataclass
class _Builder:
    """Builds plain data from YAML nodes and records the line of every key and list entry."""

    file: Path
    lines: dict[Location, int] = field(default_factory=dict)
    nodes: int = 0

    def build(self, node: yaml.Node, at: Location) -> JSON:
        self.nodes += 1
        if len(at) > _MAX_DEPTH or self.nodes > _MAX_NODES:  # an alias in itself, or exponential nesting of aliases
            raise self._error("is nested too deeply (an alias that contains itself?)", node)
        self.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*at, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101  # the only other kind
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, at: Location) -> dict[str, JSON]:
        out: dict[str, JSON] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error("a key must be text", key_node)
            if key_node.tag == f"{_TAG}merge":  # `<<: *anchor`: keys of this mapping win
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = str(key_node.value)
            here = (*at, key)
            if key in out:
                raise self._error("duplicate key", key_node, key=dotted(here))
            self.lines[here] = key_node.start_mark.line + 1
            out[key] = self.build(value_node, here)
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                raise self._error("`<<` takes a mapping", other)
            data = self.build(other, at)
            out = (data if isinstance(data, dict) else {}) | out
        return out

    def _scalar(self, node: yaml.ScalarNode) -> JSON:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if kind in ("str", "merge"):
            return text
        if kind == "null":
            return None
        if kind == "bool" and text in _WORDS:
            return _WORDS[text]
        if kind in ("int", "float") and len(text) > _MAX_DIGITS:
            raise self._error(f"number too long ({len(text)} characters)", node)
        if kind == "int" and _INT.fullmatch(text):
            return int(text)
        if kind == "float" and _FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        raise self._error(f"'{text[:40]}' has the tag {node.tag[:60]}, which is not plain data", node)

    def _error(self, message: str, node: yaml.Node, *, key: str | None = None) -> UserError:
        return UserError(message, file=self.file, line=node.start_mark.line + 1, key=key)
