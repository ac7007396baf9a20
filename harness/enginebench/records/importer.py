"""What an importer is: a function that turns one record of another tool's file, JSON or CSV, into cells with stated figures."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from enginebench.domain import JSON, Deployment, Load
from enginebench.errors import UserError


@dataclass(frozen=True)
class ImportedCell:
    """One cell as the source states it. Lengths that the source does not state are 'data'; other fields of the load keep their defaults."""

    deployment: Deployment
    """The server, as far as the source describes it."""
    load: Load
    """What the source sent."""
    figures: Mapping[str, float]
    """Figure ('ttft_p50', 'output_throughput', ...) -> value in the metric's unit (docs/metrics.md)."""
    completed: int
    """Successful requests. Percentiles that need more of them are left out; without any the cell has failed."""
    wall_s: float | None = None
    """Duration of the load."""


@dataclass(frozen=True)
class ForeignRecord:
    """A JSON object, or a row of a CSV file, with the place where it begins. UserError for a value that is missing or invalid."""

    file: Path
    """The file it was read from."""
    line: int
    """Where it begins in the file, from 1; of a CSV row the line on which it ends."""
    data: Mapping[str, JSON]
    """Key -> value as the file has it; values of a CSV file are text, '' where a cell is empty."""

    def number(self, key: str) -> float:
        """A finite number. CSV has it as text."""
        value = self._need(key)
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # what is not a number raises
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"must be a number, not {value!r}", key)
        return number

    def whole(self, key: str) -> int:
        """A count: a whole number of 0 or more."""
        number = self.number(key)
        if number < 0 or number != int(number):
            raise self.error(f"must be a whole number, not {number:g}", key)
        return int(number)

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self._need(key)
        if not isinstance(value, str) or not value:
            raise self.error(f"must be a text, not {value!r}", key)
        return value

    def has(self, key: str) -> bool:
        """Whether there is a value: not null, and in CSV not empty."""
        return self.data.get(key) not in (None, "")

    def figures(self, names: Mapping[str, tuple[str, float]]) -> dict[str, float]:
        """The figures that the record states. names: key -> (figure, factor to the metric's unit)."""
        return {figure: self.number(key) * factor for key, (figure, factor) in names.items() if self.has(key)}

    def error(self, message: str, key: str | None = None) -> UserError:
        """An error at this record."""
        return UserError(message, file=self.file, line=self.line, key=key)

    def _need(self, key: str) -> JSON:
        if not self.has(key):
            raise self.error(f"the file is damaged or incomplete: it has no '{key}'")
        return self.data[key]


def read_records(file: Path) -> tuple[ForeignRecord, ...]:
    """The records of a file, at least one: JSON objects, alone, in a list or one after another; otherwise the rows of a CSV file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}", file=file) from None
    is_json = text.lstrip()[:1] in ("{", "[")
    found = tuple(ForeignRecord(file, line, data) for line, data in (_json(text, file) if is_json else _csv(text, file)))
    if not found:
        raise UserError("has no records", file=file)
    return found


def _json(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of every JSON object on the top level or in a list there."""
    decoder, at = json.JSONDecoder(), 0
    while (at := at + len(text[at:]) - len(text[at:].lstrip())) < len(text):
        line = text.count("\n", 0, at) + 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", line)
            raise UserError(f"is damaged: invalid JSON ({getattr(error, 'msg', error)})", file=file, line=line) from None
        yield from ((line, each) for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict))


def _csv(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of every row below the header."""
    reader = csv.DictReader(text.splitlines())
    try:
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise UserError(f"is damaged: invalid CSV ({error})", file=file, line=reader.line_num) from None


Read: TypeAlias = Callable[[ForeignRecord], Iterable[ImportedCell]]


@dataclass(frozen=True, eq=False)
class Importer:
    """One importer, as `importer` declares it."""

    tool: str
    """'vllm bench serve'."""
    recognised_by: tuple[str, ...]
    """Keys that every record of the tool has, and no other tool's."""
    read: Read
    """Turns one record into its cells. UserError if the record is incomplete."""

    @property
    def text(self) -> str:
        """'vllm bench serve (has model_id, num_prompts)'."""
        return f"{self.tool} (has {', '.join(self.recognised_by)})"


def importer(tool: str, *, recognised_by: tuple[str, ...]) -> Callable[[Read], Importer]:
    """Declare the decorated function as the importer of a tool's files: JSON objects, one or several, or CSV with a header."""
    return lambda read: Importer(tool, recognised_by, read)
