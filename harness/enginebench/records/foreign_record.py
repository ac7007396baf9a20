"""One object of another tool's file, with its place: access to its values that says what is missing or invalid."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebench.errors import UserError

MOST_SECONDS = 4e9
"""The largest time that is believed: seconds since 1970 are fewer until 2096."""


@dataclass(frozen=True)
class ForeignRecord:
    """A JSON object, or a row of a CSV file. A key is a name, or a path through objects ('metrics.ttft.p50').

    UserError for a value that is missing or invalid.
    """

    file: Path
    """The file it was read from."""
    line: int | None
    """Where it begins in the file, from 1; of a CSV row the line on which it ends. None: unknown, of an item of a list."""
    data: Mapping[str, Any]
    """Key -> value as the file has it. A list of numbers is an `array('d')`; values of a CSV file are text, '' where a cell is empty."""

    def number(self, key: str) -> float:
        """A finite number. CSV has it as text."""
        value = self._need(key)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"must be a number, not {_short(value)}", key)
        return number

    def positive(self, key: str) -> float:
        """A number above 0."""
        number = self.number(key)
        if number <= 0:
            raise self.error(f"must be positive, not {number:g}", key)
        return number

    def whole(self, key: str) -> int:
        """A count: a whole number of 0 or more."""
        number = self.number(key)
        if number < 0 or number != int(number):
            raise self.error(f"must be a whole number, not {number:g}", key)
        return int(number)

    def seconds(self, key: str, factor: float = 1.0) -> float:
        """A duration, or a time on any clock, of 0 or more. factor: seconds in the unit of the file."""
        value = self.number(key) * factor
        if not 0 <= value < MOST_SECONDS:
            raise self.error(f"must be a time of 0 or more, not {_short(self.get(key))}", key)
        return value

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self._need(key)
        if not isinstance(value, str) or not value:
            raise self.error(f"must be a text, not {_short(value)}", key)
        return value

    def numbers(self, key: str) -> Sequence[float]:
        """A list of numbers; null is NaN."""
        value = self._need(key)
        if isinstance(value, array):
            return value
        if not isinstance(value, list) or not all(item is None or type(item) in (int, float) for item in value):
            raise self.error(f"must be a list of numbers, not {_short(value)}", key)
        return [math.nan if item is None else item for item in value]

    def part(self, key: str) -> ForeignRecord:
        """An object within this one."""
        value = self._need(key)
        if not isinstance(value, Mapping):
            raise self.error(f"must be an object, not {_short(value)}", key)
        return ForeignRecord(self.file, self.line, value)

    def parts(self, key: str) -> list[ForeignRecord]:
        """A list of objects within this one."""
        value = self._need(key)
        if isinstance(value, array) and not len(value):
            return []
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise self.error(f"must be a list of objects, not {_short(value)}", key)
        return [ForeignRecord(self.file, self.line, item) for item in value]

    def has(self, key: str) -> bool:
        """Whether there is a value: not null, and in CSV not empty."""
        return self.get(key) not in (None, "")

    def get(self, key: str) -> Any:
        """The value, unchecked; None where there is none."""
        if key in self.data:
            return self.data[key]
        at: Any = self.data
        for name in key.split("."):
            at = at.get(name) if isinstance(at, Mapping) else None
        return at

    def numbers_in(self, key: str, names: Sequence[str] | Mapping[str, str]) -> dict[str, float]:
        """The numbers that an object within this one has under these names, for `Dialect.figures`."""
        part = self.part(key)
        return {name: part.number(name) for name in names if part.has(name)}

    def figures(self, names: Mapping[str, tuple[str, float]]) -> dict[str, float]:
        """The figures that the record states. names: key -> (figure, factor to the metric's unit)."""
        return {figure: self.number(key) * factor for key, (figure, factor) in names.items() if self.has(key)}

    def error(self, message: str, key: str | None = None) -> UserError:
        """An error at this record."""
        return UserError(message, file=self.file, line=self.line, key=key)

    def _need(self, key: str) -> Any:
        if not self.has(key):
            raise self.error(f"the file is damaged or incomplete: it has no '{key}'")
        return self.get(key)


def _short(value: object) -> str:
    text = repr(value.tolist() if isinstance(value, array) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
