"""Recorded arrivals and lengths, put in order for a replay: whole sessions, each request with what it waits for.

`enginebench.workload.trace_formats` has the formats. Rows without input or output are failed requests, and are omitted. Does not know texts
or tokenizers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from enginebench.errors import UserError
from enginebench.workload.files import modified
from enginebench.workload.recording import Entry, TraceFormat
from enginebench.workload.trace_file import ADVICE, located, read_entries
from enginebench.workload.trace_order import ordered, present

_FEWEST_FOR_UNIT = 10
_SHORTEST_GAP_S, _LONGEST_GAP_S = 1e-3, 600.0
"""Mean time between requests of a service whose trace is plausible: from 1,000 a second to one in ten minutes."""
_UNITS = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
TIME_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
"""As a scenario writes them."""


@dataclass(frozen=True)
class Wait:
    """What a request of a session waits for."""

    rows: tuple[int, ...]
    """Earlier rows that must have ended."""
    delay_s: float | None
    """Time after the last of them; None: it is sent at its own time, but not before."""
    context: int = -1
    """The row whose prompt and answer its prompt begins with; -1: none is known."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A trace in order of sessions by their start, one value per request. A request alone is a session."""

    due_s: npt.NDArray[np.float64]
    """Seconds from the first request to the start of the session, at the speed of the recording."""
    own_s: npt.NDArray[np.float64]
    """Seconds from the first request to this one."""
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    blocks: tuple[tuple[int, ...], ...]
    """The blocks that each prompt begins with, numbered in order of their first appearance; empty if not recorded."""
    waits: Mapping[int, Wait]
    """Row -> what it waits for; others are sent when they are due."""
    sessions: npt.NDArray[np.int64]
    """Number of the session of each row."""
    format: TraceFormat
    block_tokens: int = 0
    omitted: int = 0
    """Requests without input or output, which are left out."""
    note: str = ""
    """How its times were read, as a sentence; empty for dates."""

    def __len__(self) -> int:
        return len(self.blocks)

    def first(self, count: int) -> Trace:
        columns = {name: getattr(self, name)[:count] for name in ("due_s", "own_s", "input_tokens", "output_tokens", "blocks", "sessions")}
        return replace(self, **columns, waits={row: wait for row, wait in self.waits.items() if row < count})

    @cached_property
    def distinct_blocks(self) -> int:
        return 1 + max(chain.from_iterable(self.blocks), default=-1)

    @property
    def notes(self) -> Iterator[str]:
        """What a reader of the results must know, one sentence each."""
        if self.note:
            yield self.note
        if self.waits:
            count = len(np.unique(self.sessions[list(self.waits)]))
            paused = sum(wait.delay_s is not None for wait in self.waits.values())
            when = (
                "after the recorded pause"
                if paused == len(self.waits)
                else "after the recorded pause or, without one, not before their time"
            )
            yield f"{count:,} sessions: {len(self.waits):,} requests are sent when those before them have ended, {when}"
        if self.omitted:
            yield f"{self.omitted:,} requests without input or output are left out"

    @property
    def shares(self) -> bool:
        return sum(map(len, self.blocks)) > self.distinct_blocks or any(wait.context >= 0 for wait in self.waits.values())

    @property
    def largest(self) -> int:
        return int((self.input_tokens + self.output_tokens).max(initial=0))


def read_trace(name: str, base: Path, time_unit: str | None = None) -> Trace:
    """The trace in a file, cached until the file changes. UserError with file and line for an invalid trace.

    time_unit: that of its times, 's', 'ms', 'us' or 'ns'; None: that of its format, unless another one is far more plausible.
    """
    file, stated = located(name, base)
    return _read(file, stated, time_unit, modified(file))


@lru_cache(maxsize=4)
def _read(file: Path, stated: str | None, time_unit: str | None, _modified: int) -> Trace:
    read = read_entries(file, stated)
    if time_unit is not None and not read.format.unit:
        message = f"the times of a trace of {read.format.title} are dates or have a unit of their own"
        raise UserError(message, file=file, key="time_unit", advice="leave `time_unit` out")
    entries = present(read.entries)
    if not entries:
        raise UserError("the trace has no request with both input and output", file=file, advice=ADVICE)
    sizes = {entry.block_tokens for entry in entries if entry.blocks}
    if len(sizes) > 1:
        raise UserError(
            f"blocks of {' and '.join(map(str, sorted(sizes)))} tokens in one trace", file=file, advice="split it by block size"
        )
    order = ordered(entries, file)
    times = np.array([entry.time for entry in entries])
    times = times - times.min()
    unit, why, factor = _unit(times, read.format, time_unit)
    return _arranged(entries, order, times * factor, factor, read.format, sizes, len(read.entries), _note(file, unit, why, times * factor))


def _arranged(
    entries: Sequence[Entry], sessions: Sequence[Sequence[int]], times_s: npt.NDArray[np.float64], factor: float, found: TraceFormat,
    sizes: set[int], found_rows: int, note: str,
) -> Trace:  # fmt: skip
    order = [row for session in sessions for row in session]
    at = {row: place for place, row in enumerate(order)}
    names = {entry.id: at[row] for row, entry in enumerate(entries) if entry.id is not None}
    numbers: dict[Hashable, int] = {}
    blocks = tuple(tuple(numbers.setdefault(block, len(numbers)) for block in entries[row].blocks) for row in order)
    waits: dict[int, Wait] = {}
    for place, row in enumerate(order):
        entry = entries[row]
        if after := tuple(names[name] for name in entry.after if name in names):
            delay = None if entry.delay is None else max(0.0, entry.delay) * factor
            waits[place] = Wait(after, delay, _context(entry, entries, order, names))
    sizes_of = [len(session) for session in sessions]
    starts = np.array([times_s[session[0]] for session in sessions])
    return Trace(
        np.repeat(starts, sizes_of), times_s[order], np.array([entries[row].input_tokens for row in order], np.int64),
        np.array([entries[row].output_tokens for row in order], np.int64), blocks, waits, np.repeat(np.arange(len(sessions)), sizes_of),
        found, next(iter(sizes), 0), found_rows - len(entries), note,
    )  # fmt: skip


def _context(entry: Entry, entries: Sequence[Entry], order: Sequence[int], names: Mapping[Hashable, int]) -> int:
    """The row that the prompt repeats, if it is long enough to hold its prompt, its answer and something new."""
    place = names.get(entry.context, -1) if entry.context is not None else -1
    if place < 0 or entry.blocks:
        return -1
    before = entries[order[place]]
    return place if not before.blocks and entry.input_tokens > before.input_tokens + before.output_tokens else -1


# -- units ---------------------------------------------------------------------------------------------------------------------


def _unit(times: npt.NDArray[np.float64], found: TraceFormat, stated: str | None) -> tuple[str, str, float]:
    """Unit of the times, why it is not that of the format, and what they are multiplied by to become seconds."""
    if stated is not None:
        unit = TIME_UNITS[stated]
        return unit, "as stated", _UNITS[unit]
    if not found.unit:
        return "", "", 1.0
    unit, why = found.unit, ""
    gap_s = float(times.max()) / max(1, len(times) - 1) * _UNITS[unit]
    if len(times) >= _FEWEST_FOR_UNIT and gap_s:
        plausible = (
            name for name, factor in {unit: _UNITS[unit], **_UNITS}.items()
            if _SHORTEST_GAP_S <= gap_s * factor / _UNITS[found.unit] <= _LONGEST_GAP_S
        )  # fmt: skip
        unit = next(plausible, unit)
        why = f"as {found.unit} would not be plausible" if unit != found.unit else ""
    return unit, why, _UNITS[unit]


def _note(file: Path, unit: str, why: str, times_s: npt.NDArray[np.float64]) -> str:
    if not unit:
        return ""
    last = float(times_s.max())
    rate = f"{len(times_s) / last:,.3g} requests/s on average" if last else "all requests at once"
    return f"times of {file.name} are read as {unit}{', ' + why if why else ''}: {rate} (`time_unit` and `time_scale` change that)"
