"""YAML with a memory: the data of a file and the line of every key, so that an error can point at what was written.

Knows nothing of scenarios. Refuses duplicate keys (YAML parsers keep the last one silently) and reads only plain data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from enginebench.errors import UserError
from enginebench.nouns import JSON

Location = tuple[str | int, ...]
"""A path into the data: keys and list indices from the root, e.g. ('loads', 0, 'concurrency')."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader without YAML 1.1's surprises: only true/false are booleans, so `no`, `on` and `y` stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))


@dataclass(frozen=True)
class Source:
    """The data of one YAML file, its text, and where each part of it stands."""

    file: Path
    text: str
    data: JSON
    lines: dict[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int | None:
        """Line (from 1) of the deepest part of `location` that exists in the file."""
        for depth in range(len(location), -1, -1):
            if location[:depth] in self.lines:
                return self.lines[location[:depth]]
        return None

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
    """Read a YAML file. UserError for a missing file, bytes that are not UTF-8, bad YAML and duplicate keys."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("there is no such file", file=file) from None
    except IsADirectoryError:
        raise UserError("is a folder, expected a YAML file", file=file) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is not a text file in UTF-8 ({error.reason} at byte {error.start})", file=file) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from None
    return parse(text, file)


def parse(text: str, file: Path) -> Source:
    """As `read`, for text at hand; `file` is only named in errors."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise UserError("is empty", file=file)
        lines: dict[Location, int] = {}
        data = _build(node, (), lines, file, loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be parsed"
        raise UserError(f"is not valid YAML: {problem}", file=file, line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise UserError(f"is not valid YAML: {error}", file=file) from None
    finally:
        loader.dispose()
    return Source(file, text, data, lines)


_MAX_NODES = 1_000_000
_MAX_DEPTH = 32


def _build(node: yaml.Node, at: Location, lines: dict[Location, int], file: Path, loader: yaml.SafeLoader) -> JSON:
    if len(at) > _MAX_DEPTH or len(lines) > _MAX_NODES:  # an alias inside itself, or aliases of aliases of aliases
        raise UserError("is nested too deeply (an alias that contains itself?)", file=file, line=node.start_mark.line + 1)
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)  # `<<: *anchor`
        out: dict[str, JSON] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*at, key)
            if key in out:
                raise UserError("stands twice", file=file, line=key_node.start_mark.line + 1, key=dotted(here))
            lines[here] = key_node.start_mark.line + 1
            out[key] = _build(value_node, here, lines, file, loader)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*at, i), lines, file, loader) for i, item in enumerate(node.value)]
    value: JSON = loader.construct_object(node, deep=True)
    return value
