"""Reads JSON of any size with little memory: objects one after another, without what nobody asked for.

The parser is fed line by line, so that every object has the number of its line. Lists of numbers become `array('d')`, long texts are cut,
paths that are skipped are never built, and the items of a list of `rows` are handed over one by one instead of being kept. `NaN` and
`Infinity`, which Python's json writes, are read as such. Knows no tool's format.
"""

from __future__ import annotations

import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import ijson
import orjson

from enginebench.errors import UserError

Path_: TypeAlias = tuple[str, ...]
"""Keys from the object down; '*' stands for the items of a list."""

MOST_TEXT = 4096
"""Characters of a text that are kept."""
MOST_DEPTH = 64
MOST_KEPT = 1_000_000
"""Values of one object that are kept, except numbers of a list of numbers."""
MOST_NUMBERS = 12_000_000
"""Numbers in lists of one object that are kept: 96 MB."""
MOST_SILENT = 64 << 20
"""Bytes of one text or number: the parser holds all of it."""
_CHUNK = 1 << 16
_WHOLE_LINE = 1 << 20
_BY_LINE = 16 << 20
"""After so many bytes of one object, further lines of it are read many at once."""

_NAN, _INFINITE = b"1.5e308", b"1.25e308"
_SPECIAL = re.compile(rb"(?<![\w\"])(-?)(NaN|Infinity)(?=\s*(?:[,\]}]|\Z))")
_LARGE = 1e308
_READ_AS = {float(_NAN): math.nan, -float(_NAN): math.nan, float(_INFINITE): math.inf, -float(_INFINITE): -math.inf}


@dataclass(frozen=True)
class Skim:
    """What to leave out of an object, and what to take out of it while it is read."""

    skip: frozenset[Path_] = frozenset()
    """Values that are not built: texts of prompts and replies."""
    rows: Mapping[Path_, Callable[[Any], None]] = field(default_factory=dict)
    """A list -> what gets each of its items when it is complete; the list itself stays empty."""


def paths(*texts: str) -> frozenset[Path_]:
    """Paths from texts: 'requests.*.prompt' -> ('requests', '*', 'prompt')."""
    return frozenset(tuple(text.split(".")) for text in texts)


def read_objects(file: Path, skim: Skim | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of each object at the top level, or in a list there. UserError where the file is damaged or is no such file."""
    with open_file(file) as stream:
        builder, read = _Builder(file, skim or Skim()), 0
        if skim is None or not skim.rows:
            for read, found in _lines(stream):
                if found is not None:
                    yield read, found
            if read and not (more := stream.read(1)):
                return
            stream.seek(-len(more) if read else 0, os.SEEK_CUR)
        for line, events in _events(stream, file, read + 1):
            builder.line = line
            for event, value in events:
                builder.take(event, value)
            yield from builder.done
            builder.done.clear()


def _lines(stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(line, object; None: an empty line) as long as each line is an object: several times as fast as the parser, which goes on where the
    stream then stands, at the first other line.
    """
    line, start = 0, stream.tell()
    while (text := stream.readline(_WHOLE_LINE)) and len(text) < _WHOLE_LINE:
        try:
            found = orjson.loads(text) if text.strip() else None
        except orjson.JSONDecodeError:
            break
        if found is not None and not isinstance(found, dict):
            break
        line, start = line + 1, stream.tell()
        yield line, found
    stream.seek(start)


def open_file(file: Path) -> BinaryIO:
    """The file, open for reading, behind a byte order mark. UserError if it is none, or cannot be read."""
    if file.exists() and not file.is_file():  # reading a pipe would wait for ever
        raise UserError("cannot be read: it is not a file", file=file)
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from None
    if stream.read(3) != b"\xef\xbb\xbf":
        stream.seek(0)
    return stream


def _events(stream: BinaryIO, file: Path, line: int = 1) -> Iterator[tuple[int, list[tuple[str, Any]]]]:
    """(line, the parser's events of a piece of the file). The line is that on which the piece begins."""
    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events, use_float=True, multiple_values=True)
    depth, since, silent = 0, 0, 0
    while piece := _piece(stream, whole_lines=depth == 0 or since < _BY_LINE):
        try:
            parser.send(_SPECIAL.sub(_finite, piece) if b"NaN" in piece or b"Infinity" in piece else piece)
        except (ijson.JSONError, ValueError, OverflowError, UnicodeDecodeError) as error:
            raise _damaged(error, file, line) from None
        silent = 0 if events else silent + len(piece)
        depth += sum((event[:5] == "start") - (event[:3] == "end") for event, _ in events)
        since = since + len(piece) if depth else 0
        if silent > MOST_SILENT:
            raise UserError(f"has a text of more than {MOST_SILENT >> 20} MB, which no known tool writes", file=file, line=line)
        if depth > MOST_DEPTH:
            raise UserError("cannot be read: it is nested too deeply", file=file, line=line)
        yield line, events
        events.clear()
        line += piece.count(b"\n")
    try:
        parser.close()
    except ijson.JSONError as error:
        raise _damaged(error, file, line) from None
    yield line, events


def _damaged(error: Exception, file: Path, line: int) -> UserError:
    text = (str(error).splitlines() or ["?"])[0].strip().removeprefix("parse error: ").removeprefix("lexical error: ")
    why = "it ends too early" if "premature" in text.lower() or "incomplete" in text.lower() else text
    return UserError(f"is damaged: invalid JSON ({why})", file=file, line=line)


def _finite(found: re.Match[bytes]) -> bytes:
    return found[1] + (_NAN if found[2] == b"NaN" else _INFINITE)


def _piece(stream: BinaryIO, *, whole_lines: bool) -> bytes:
    """A line or a part of one, or many lines; never half of a word such as Infinity."""
    piece = stream.readline(_CHUNK) if whole_lines else stream.read(_CHUNK)
    while piece[-1:].isalpha() and (more := stream.read(1)):
        piece += more
        if len(piece) > 2 * _CHUNK:
            break
    return piece


class _Builder:
    """Builds objects from a parser's events."""

    def __init__(self, file: Path, skim: Skim) -> None:
        self.file, self.line, self.done = file, 1, list[tuple[int, dict[str, Any]]]()
        self._skim = skim
        self._stack: list[Any] = []
        """The containers that are open. A list of numbers is an array."""
        self._keys: list[str] = []
        """For each open container the key of its next value; '*' in a list."""
        self._plain: list[bool] = []
        """For each open container whether it is a list whose numbers are neither skipped nor handed over."""
        self._skipped = 0
        """Containers that are open in a value that is skipped."""
        self._list_of_records = False
        self._begun = 1
        self._kept = self._numbers = 0

    def take(self, event: str, value: Any) -> None:
        if event == "number" and self._plain and self._plain[-1] and not self._skipped and isinstance(self._stack[-1], array):
            self._stack[-1].append(_READ_AS.get(value, value) if abs(value) > _LARGE else value)
            self._count_number()
        elif event == "map_key":
            if not self._skipped:
                self._keys[-1] = value
        elif event == "start_map":
            self._open({})
        elif event == "start_array":
            self._open(array("d"))
        elif event in ("end_map", "end_array"):
            self._close()
        elif not self._skipped:
            self._put(value)

    def _open(self, container: Any) -> None:
        if self._skipped or (self._stack and self._path() in self._skim.skip):
            self._skipped += 1
            return
        if not self._stack:
            if isinstance(container, array) and not self._list_of_records:
                self._list_of_records = True
                return
            self._begun, self._kept, self._numbers = self.line, 0, 0
        self._stack.append(container)
        self._keys.append("" if isinstance(container, dict) else "*")
        path = self._path()
        self._plain.append(isinstance(container, array) and path not in self._skim.skip and path[:-1] not in self._skim.rows)

    def _close(self) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        if not self._stack:
            self._list_of_records = False
            return
        made = self._stack.pop()
        self._keys.pop()
        self._plain.pop()
        if self._stack:
            self._put(made)
        elif isinstance(made, dict):
            self.done.append((self._begun, made))

    def _put(self, value: Any) -> None:
        if not self._stack:
            return  # a single number or text is no record
        into, path = self._stack[-1], self._path() if self._skim.skip or self._skim.rows else ()
        if path in self._skim.skip:
            return
        if isinstance(value, str):
            value = value[:MOST_TEXT]
        elif isinstance(value, float):
            value = _READ_AS.get(value, value)
        if isinstance(into, dict):
            into[self._keys[-1]] = value
            self._count()
        elif path[-1:] == ("*",) and (handle := self._skim.rows.get(path[:-1])) is not None:
            self._kept = self._numbers = 0  # an item's values are gone with it
            handle(value)
        elif isinstance(into, array) and type(value) in (int, float):
            into.append(value)
            self._count_number()
        else:
            if isinstance(into, array):
                into = self._as_list(into)
            into.append(value)
            self._count()

    def _as_list(self, numbers: Any) -> list[Any]:
        """The open list as one of other values."""
        self._stack[-1] = list(numbers)
        return self._stack[-1]  # type: ignore[no-any-return]

    def _path(self) -> Path_:
        return tuple(self._keys)

    def _count(self) -> None:
        self._kept += 1
        if self._kept > MOST_KEPT:
            raise UserError(
                f"has an object of more than {MOST_KEPT:,} values, which no known tool writes", file=self.file, line=self._begun
            )

    def _count_number(self) -> None:
        self._numbers += 1
        if self._numbers > MOST_NUMBERS:
            raise UserError(f"has an object with more than {MOST_NUMBERS:,} numbers", file=self.file, line=self._begun)


def paths_in(file: Path) -> Iterator[frozenset[str]]:
    """The paths of the first object of a file ('a.*.b'), more and more of them as it is read; no more when it ends."""
    seen: set[str] = set()
    keys: list[str] = []
    in_record = False
    with open_file(file) as stream:
        for _, events in _events(stream, file):
            before = len(seen)
            for event, value in events:
                if event == "map_key":
                    keys[-1] = value
                    if len(keys) <= _DEEPEST_PATH and len(seen) < _MOST_PATHS:
                        seen.add(".".join(keys))
                elif event == "start_map":
                    in_record = True
                    keys.append("")
                elif event == "start_array":
                    keys.extend(["*"] if in_record else [])
                elif event in ("end_map", "end_array") and keys:
                    keys.pop()
                    if not keys:
                        yield frozenset(seen)
                        return
            if len(seen) > before:
                yield frozenset(seen)
    if not in_record:
        raise UserError("has no records", file=file)


_DEEPEST_PATH, _MOST_PATHS = 6, 5_000
