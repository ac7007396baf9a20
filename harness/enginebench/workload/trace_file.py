"""Reads the file of a trace as rows: CSV by its columns, or JSON objects one per line, in a list, or one alone.

Recognises the format by the first row, or takes the one that `trace: NAME:FILE` states. Does not know what rows mean.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import orjson

from enginebench.errors import UserError, did_you_mean
from enginebench.workload.files import find, opened
from enginebench.workload.recording import Entry, Row, TraceFormat
from enginebench.workload.trace_formats import FORMATS, recognised

ADVICE = "docs/workloads.md shows the formats: " + ", ".join(f"{name} ({', '.join(its.has)})" for name, its in FORMATS.items())


def located(name: str, base: Path) -> tuple[Path, str | None]:
    """The file that a load's `trace` names, and the format that it states. UserError if there is no such file."""
    stated, colon, rest = name.partition(":")
    if colon and stated in FORMATS:
        return find(rest, base, "trace"), stated
    if colon and stated.replace("-", "").isalnum() and not (base / name).exists() and (base / rest).exists():
        raise UserError(f"unknown trace format '{stated}'", key="trace", advice=did_you_mean(stated, FORMATS))
    return find(name, base, "trace"), None


@dataclass
class TraceFile:
    """The entries of a file, and how it was recognised."""

    format: TraceFormat
    entries: list[Entry]


def read_entries(file: Path, stated: str | None) -> TraceFile:
    """UserError with file and line for an invalid file, and for one of unknown format."""
    with opened(file, errors="replace") as lines:
        rows = _Rows(lines, file)
        found = FORMATS[stated] if stated else recognised(rows.keys, table=rows.table)
        if found is None:
            raise UserError("unknown trace format", file=file, line=1, advice=ADVICE)
        if missing := [name for name in found.has if name not in rows.keys] if rows.table else []:
            raise UserError(f"a {found.name} trace has the column {missing[0]}", file=file, line=1, advice=ADVICE)
        try:
            return TraceFile(found, list(found.read(iter(rows))))
        except KeyError as error:
            what = "too few columns" if rows.table else f"no {error}"
            raise UserError(f"this row of a trace has {what}", file=file, line=rows.line, advice=ADVICE) from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"invalid row of a trace: {error}", file=file, line=rows.line, advice=ADVICE) from None


class _Rows:
    """The rows of an open file. Iterate once; `line` is that of the last row."""

    def __init__(self, lines: TextIO, file: Path) -> None:
        self.line, self._file = 0, file
        first = ""
        while not first.strip() and (read := next(lines, None)) is not None:
            first, self.line = read, self.line + 1
        self.table = first.lstrip()[:1] not in ("{", "[")
        self._start = self.line
        if self.table:
            self._columns = [name.strip() for name in next(csv.reader([first]), [])]
            if twice := next((name for name in self._columns if name and self._columns.count(name) > 1), None):
                raise UserError(f"two columns are called {twice}", file=file, line=self.line, advice="keep the one that is meant")
            self.keys: frozenset[str] = frozenset(self._columns)
            self._rows = self._of_table(lines)
        else:
            self._rows = self._of_json(first, lines)
            head = next(self._rows, None)
            self.keys = frozenset(head or ())
            self._rows = chain([] if head is None else [head], self._rows)

    def __iter__(self) -> Iterator[Row]:
        yield from self._rows

    def _of_table(self, lines: TextIO) -> Iterator[Row]:
        reader = csv.reader(lines)
        try:
            for row in reader:
                self.line = self._start + reader.line_num
                if row:
                    yield dict(zip(self._columns, row, strict=False))
        except csv.Error as error:
            line = self._start + reader.line_num
            raise UserError(f"invalid CSV: {error}", file=self._file, line=line, advice="check for an unclosed quote") from None

    def _of_json(self, first: str, lines: TextIO) -> Iterator[Row]:
        """One object per line if the first line is a whole object, else the file as one value: an object, or a list of them."""
        try:
            alone = isinstance(orjson.loads(first), dict)
        except orjson.JSONDecodeError:
            alone = False
        if not alone:
            yield from self._objects(self._parsed(first + lines.read()))
            return
        for number, line in enumerate(chain([first], lines), self._start):
            if line.strip():
                self.line = number
                yield from self._objects([self._parsed(line)])

    def _parsed(self, text: str) -> Any:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            line = self.line + (error.lineno - 1 if "\n" in text.strip() else 0)
            raise UserError(f"invalid row of a trace: {error.msg}", file=self._file, line=line, advice=ADVICE) from None

    def _objects(self, found: Any) -> Iterator[Row]:
        listed: Sequence[Any] = found if isinstance(found, list) else [found]
        for each in listed:
            if not isinstance(each, dict):
                raise UserError("invalid row of a trace: not a JSON object", file=self._file, line=self.line, advice=ADVICE)
            yield each
