"""What a reader of a trace yields: the requests of a recording, each with its time, lengths, shared blocks and what it waits for.

A reader is one file in `enginebench.workload.trace_formats`. It declares by which keys or columns its files are known, and turns their
rows into entries. Does not know files, units of other formats, or how a trace is replayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from enginebench.workload.lengths import MAX_TOKENS

Row: TypeAlias = Mapping[str, Any]
"""One object of a JSON file, or one row of a CSV file by its columns."""
Unit: TypeAlias = Literal["", "seconds", "milliseconds", "microseconds", "nanoseconds"]
"""'': the times are dates or have a unit by definition, and the reader gives seconds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of a recording."""

    time: float
    """When it was sent, in the unit of its format, from any origin."""
    input_tokens: int
    output_tokens: int
    blocks: tuple[Hashable, ...] = ()
    """Equal ids are equal text, for as many tokens as `block_tokens`."""
    block_tokens: int = 0
    id: Hashable = None
    """Names the request for others; None: no other refers to it."""
    after: tuple[Hashable, ...] = ()
    """The requests that must have ended before this one is sent. What the file does not have is ignored."""
    delay: float | None = None
    """From the end of the last of them, in the unit of the format; None: it is sent at its time, but not before they have ended."""
    context: Hashable = None
    """The request whose prompt and answer this prompt begins with, where that is known from the session and not from blocks."""


Reader: TypeAlias = Callable[[Iterator[Row]], Iterable[Entry]]


@dataclass(frozen=True)
class TraceFormat:
    """One format of traces."""

    name: str
    """As `trace: NAME:FILE` states it."""
    title: str
    has: tuple[str, ...]
    """Keys of the first JSON object, or columns, by which a file is known. Of several formats the one with the most decides."""
    read: Reader
    unit: Unit
    """Of the times in a file."""
    source: str
    """Where the format is described."""
    table: bool = False
    """CSV, not JSON."""
    lost: str = ""
    """What of a recording cannot be replayed, as a clause."""


def count_of(value: Any) -> int:
    """A number of tokens, written as a whole number or as a float that is one. ValueError for anything else."""
    number = math.nan if isinstance(value, bool) else float(value)
    if not (number.is_integer() and 0 <= number <= MAX_TOKENS):
        raise ValueError(f"invalid number of tokens {value}")
    return int(number)


def time_of(value: Any) -> float:
    """A time as a number. ValueError for anything else."""
    number = math.nan if isinstance(value, bool) else float(value)
    if not math.isfinite(number):
        raise ValueError(f"invalid time {value}")
    return number


def moment_of(text: str) -> float:
    """Seconds since 1970 of a date and time, in UTC unless a zone is given; only differences are used."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def ids_of(value: Any, name: str) -> tuple[int, ...]:
    """A list of ids of blocks. ValueError for anything else."""
    if not isinstance(value, list) or not all(type(block) is int for block in value):
        raise ValueError(f"{name} is not a list of numbers")
    return tuple(value)


def fitting(blocks: Sequence[Hashable], tokens: int, block_tokens: int) -> tuple[Hashable, ...]:
    """The blocks that a prompt of so many tokens begins with: what is beyond its length is left out. ValueError for blocks of no tokens."""
    if blocks and not block_tokens:
        raise ValueError("the blocks of a prompt have no tokens")
    return tuple(blocks[: math.ceil(tokens / max(1, block_tokens))])
