"""Recorded arrivals and lengths, read from a file: three published formats, distinguished by their first line.

    Mooncake   JSON lines: timestamp (ms), input_length, output_length and, optionally, hash_ids of blocks of 512 tokens
    Azure      CSV: TIMESTAMP (date and time), ContextTokens, GeneratedTokens
    BurstGPT   CSV: Timestamp (s), Request tokens, Response tokens, and further columns

Rows without input or output are failed requests, and are omitted. Does not know texts or tokenizers.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from enginebench.errors import UserError
from enginebench.workload.files import find, modified
from enginebench.workload.lengths import MAX_TOKENS

_FEWEST_FOR_UNIT = 10
_SHORTEST_GAP_S, _LONGEST_GAP_S = 1e-3, 600.0
"""Mean time between requests of a service whose trace is plausible: from 1,000 a second to one in ten minutes."""
BLOCK_TOKENS = 512
"""Tokens of one block of a Mooncake trace."""
_ADVICE = (
    "a trace is JSON lines with timestamp, input_length and output_length (Mooncake), or CSV with the columns "
    "TIMESTAMP, ContextTokens, GeneratedTokens (Azure) or Timestamp, Request tokens, Response tokens (BurstGPT)"
)
_Row: TypeAlias = tuple[float, int, int, tuple[int, ...]]
"""Time in s, input tokens, output tokens, ids of blocks."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A trace in order of time, one value per request."""

    due_s: npt.NDArray[np.float64]
    """Seconds after the first request, at the speed of the recording."""
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    blocks: tuple[tuple[int, ...], ...]
    """The blocks that each prompt begins with, numbered in order of their first appearance; empty if not recorded."""
    note: str = ""
    """How its times were read, as a sentence; empty for dates."""

    def __len__(self) -> int:
        return len(self.blocks)

    def first(self, count: int) -> Trace:
        return Trace(self.due_s[:count], self.input_tokens[:count], self.output_tokens[:count], self.blocks[:count], self.note)

    @cached_property
    def distinct_blocks(self) -> int:
        return 1 + max(chain.from_iterable(self.blocks), default=-1)

    @property
    def shares(self) -> bool:
        return sum(map(len, self.blocks)) > self.distinct_blocks

    @property
    def largest(self) -> int:
        return int((self.input_tokens + self.output_tokens).max(initial=0))


def read_trace(name: str, base: Path) -> Trace:
    """The trace in a file, cached until the file changes. UserError with file and line for an invalid trace."""
    file = find(name, base, "trace")
    return _read(file, modified(file))


@lru_cache(maxsize=4)
def _read(file: Path, _modified: int) -> Trace:
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        rows = sorted((row for row in _rows(lines, file) if row[1] and row[2]), key=lambda row: row[0])
        lines.seek(0)
        header = next((line for line in lines if line.strip()), "").lstrip()
    if not rows:
        raise UserError("the trace has no request with both input and output", file=file, advice=_ADVICE)
    numbers: dict[int, int] = {}
    blocks = tuple(tuple(numbers.setdefault(block, len(numbers)) for block in row[3]) for row in rows)
    times = np.array([row[0] for row in rows])
    times, lengths = times - times[0], np.array([row[1:3] for row in rows], np.int64)
    declared = "milliseconds" if header.startswith("{") else "seconds" if "Timestamp" in header else ""
    unit, factor = _unit_of(times, declared) if declared else ("", 1.0)
    rate = f"{len(rows) / (times[-1] * factor):,.3g} requests/s on average" if times[-1] else "all requests at once"
    why = f", as {declared} would not be plausible" if unit != declared else ""
    note = f"times of {file.name} are read as {unit}{why}: {rate} (`time_scale` changes that)" if declared else ""
    return Trace(times * factor, lengths[:, 0], lengths[:, 1], blocks, note)


def _unit_of(times_s: npt.NDArray[np.float64], declared: str) -> tuple[str, float]:
    """The unit of a trace's numbers, and what the times, read in the declared unit, are multiplied by.

    It is another one only if the declared one means a mean gap between requests that no recorded service has, and that one does not.
    """
    units = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
    gap_s = float(times_s[-1]) / max(1, len(times_s) - 1)
    if len(times_s) < _FEWEST_FOR_UNIT or not gap_s:
        return declared, 1.0
    factors = {unit: units[unit] / units[declared] for unit in (declared, *units)}
    return next(
        ((unit, factor) for unit, factor in factors.items() if _SHORTEST_GAP_S <= gap_s * factor <= _LONGEST_GAP_S), (declared, 1.0)
    )


def _rows(lines: Iterable[str], file: Path) -> Iterator[_Row]:
    source = iter(lines)
    first, start = "", 0
    while not first.strip() and (line := next(source, None)) is not None:
        first, start = line, start + 1
    parse: Callable[[Any], _Row]
    if first.lstrip().startswith("{"):
        found: Iterable[tuple[int, Any]] = ((number, line) for number, line in enumerate(chain([first], source), start) if line.strip())
        parse = _mooncake
    else:
        reader = csv.reader(source)
        found = ((reader.line_num + start, row) for row in _csv_rows(reader, start, file) if row)
        parse = _csv([name.strip() for name in next(csv.reader([first]), [])], file)
    for number, item in found:
        try:
            row = parse(item)
        except IndexError:
            raise UserError("this row of a trace has too few columns", file=file, line=number, advice=_ADVICE) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"invalid row of a trace: {error}", file=file, line=number, advice=_ADVICE) from None
        except KeyError as error:
            raise UserError(f"this row of a trace has no {error}", file=file, line=number, advice=_ADVICE) from None
        yield row


def _csv_rows(reader: Iterator[list[str]], start: int, file: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        number = getattr(reader, "line_num", 0) + start
        raise UserError(f"invalid CSV: {error}", file=file, line=number, advice="check for an unclosed quote") from None


def _mooncake(line: str) -> _Row:
    row = orjson.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    tokens, blocks = _count(row["input_length"]), row.get("hash_ids", [])
    if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
        raise ValueError("hash_ids is not a list of numbers")
    if blocks and len(blocks) not in (tokens // BLOCK_TOKENS, math.ceil(tokens / BLOCK_TOKENS)):
        raise ValueError(f"{len(blocks)} hash_ids for {tokens} tokens cannot be blocks of {BLOCK_TOKENS}")
    return _seconds(row["timestamp"]) / 1000, tokens, _count(row["output_length"]), tuple(blocks)


def _csv(header: list[str], file: Path) -> Callable[[list[str]], _Row]:
    for columns, seconds in _FORMATS.items():
        if set(columns) <= set(header):
            when, context, generated = map(header.index, columns)
            return lambda row: (seconds(row[when]), _count(row[context]), _count(row[generated]), ())
    raise UserError("unknown trace format", file=file, line=1, advice=_ADVICE)


def _count(value: Any) -> int:
    """A number of tokens, written as a whole number or as a float that is one."""
    number = float(value)
    if not (number.is_integer() and 0 <= number <= MAX_TOKENS):
        raise ValueError(f"invalid number of tokens {value}")
    return int(number)


def _seconds(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"invalid time {value}")
    return number


def _moment(text: str) -> float:
    """Seconds since 1970 of a date and time, in UTC unless a zone is given; only differences are used."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_FORMATS: Mapping[tuple[str, str, str], Callable[[str], float]] = {
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"): _moment,
    ("Timestamp", "Request tokens", "Response tokens"): _seconds,
}
"""Columns of the CSV formats for time, input and output, and the parser of the time."""
