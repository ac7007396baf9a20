"""The requests of one cell as columns: stored as Parquet, and read by every metric.

One row per request. The events of all requests are in flat arrays with offsets, so an event costs about 20 bytes and no Python object.
Knows neither metrics nor the run folder, and not how a window is found.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from enginebench.domain import Sample
from enginebench.errors import UserError
from enginebench.records.window import Window

Ints = npt.NDArray[np.int64]

_ROW_COLUMNS = ("index", "asked_input_tokens", "asked_output_tokens", "due_ns", "sent_ns", "headers_ns", "end_ns")
_COUNT_COLUMNS = ("input_tokens", "output_tokens", "cached_tokens", "status_code")
_LATER_COLUMNS = {"first_answer_ns": 0, "local_tokens": -1, "reasoning_tokens": -1, "conversation": -1, "turn": 0}
"""Columns that older files lack, with their value for "unknown"."""
_TEXT_COLUMNS = ("outcome", "error", "finish_reason")
_TIMINGS = "server_timings"
"""Stored as JSON text: every engine has its own names, and they may differ between requests."""


@dataclass(frozen=True)
class Samples:
    """n requests with e output events. Times are ns of the client's monotonic clock; a count of -1 is unknown."""

    index: Ints
    """(n,) Position of the request in the load, from 0."""
    asked_input_tokens: Ints
    """(n,) Prompt tokens that the server should count; an estimate where the tokenizer is unknown."""
    asked_output_tokens: Ints
    """(n,) Tokens to generate, sent as the limit of the request."""
    due_ns: Ints
    """(n,) Scheduled arrival; equals sent_ns in a closed loop without delay."""
    sent_ns: Ints
    """(n,) Just before the first byte is written; 0: never sent."""
    headers_ns: Ints
    """(n,) Arrival of the response headers; 0: none came."""
    end_ns: Ints
    """(n,) When the response was complete or the error known."""
    input_tokens: Ints
    """(n,) Prompt tokens as the server counted them."""
    output_tokens: Ints
    """(n,) Generated tokens as the server counted them, reasoning included."""
    cached_tokens: Ints
    """(n,) Those of input_tokens that came from the prefix cache, as the server counted them."""
    status_code: Ints
    """(n,) HTTP status; -1: no response."""
    outcome: tuple[str, ...]
    """Per request 'ok', or an error class of `enginebench.loadgen.outcomes`."""
    error: tuple[str | None, ...]
    """Message of each failed request; None: it succeeded."""
    finish_reason: tuple[str | None, ...]
    """Why each generation ended, in the server's word ('length', 'stop'); None: not reported."""
    event_ns: Ints
    """(e,) Arrival of all output events, request after request."""
    event_tokens: npt.NDArray[np.int32]
    """(e,) Tokens of each output event; -1: unknown."""
    event_chars: npt.NDArray[np.int32]
    """(e,) Characters of each output event."""
    offsets: Ints
    """(n + 1,) The events of request i are [offsets[i], offsets[i+1])."""
    server_timings: tuple[Mapping[str, float] | None, ...]
    """The engine's own timings of each request, under its own names; None: it sends none."""
    first_answer_ns: Ints
    """(n,) Arrival of the first output event that is not reasoning; 0: none came, or an older file."""
    local_tokens: Ints
    """(n,) Output tokens counted with the checkpoint's own tokenizer; -1: not counted, as where the server counts."""
    reasoning_tokens: Ints
    """(n,) Those of output_tokens that are reasoning, as the server counted them."""
    conversation: Ints
    """(n,) Conversation that the request belongs to; -1: none."""
    turn: Ints
    """(n,) Index of the request in its conversation, from 0."""
    window_ns: tuple[int, int] | None = None
    """The part that metrics are computed from, including both ends; None: everything. Not stored."""

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Which requests succeeded."""
        return np.array([outcome == "ok" for outcome in self.outcome], dtype=bool)

    @cached_property
    def aborted(self) -> npt.NDArray[np.bool_]:
        """Which requests the load itself ended, as it asks for."""
        return np.array([outcome == "aborted" for outcome in self.outcome], dtype=bool)

    def within(self, window: Window | None) -> Self:
        """The same requests, to be measured in this window; None: over the whole load."""
        return replace(self, window_ns=None if window is None else (window.start_ns, window.end_ns))

    def only(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """Some of the requests, in the same window."""
        rows = {name: getattr(self, name)[chosen] for name in (*_ROW_COLUMNS, *_COUNT_COLUMNS, *_LATER_COLUMNS)}
        rows |= {name: tuple(compress(getattr(self, name), chosen)) for name in (*_TEXT_COLUMNS, _TIMINGS)}
        events = np.repeat(chosen, self.events)
        offsets = np.concatenate(([0], np.cumsum(self.events[chosen])))
        return replace(
            self, **rows, offsets=offsets, event_ns=self.event_ns[events], event_tokens=self.event_tokens[events],
            event_chars=self.event_chars[events],
        )  # fmt: skip

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Which requests belong to the window: those sent in it. A request that was never sent counts by its end."""
        return self.in_window(np.where(self.sent_ns > 0, self.sent_ns, self.end_ns))

    @cached_property
    def ended_inside(self) -> npt.NDArray[np.bool_]:
        """Which requests ended in the window."""
        return self.in_window(self.end_ns)

    def in_window(self, at: Ints) -> npt.NDArray[np.bool_]:
        """Which of these times are in the window."""
        start, end = self.window_ns or (np.iinfo(np.int64).min, np.iinfo(np.int64).max)
        return (start <= at) & (at <= end)

    @cached_property
    def events(self) -> Ints:
        """Number of output events per request."""
        return np.diff(self.offsets)

    @cached_property
    def stream_tokens(self) -> Ints:
        """Sum of the per-event token counts of each request; -1 if it has no events or the count of an event is unknown."""
        out = np.full(len(self), -1, dtype=np.int64)
        some = np.flatnonzero(self.events > 0)
        if len(some):
            starts = self.offsets[:-1][some]
            known = np.minimum.reduceat(self.event_tokens, starts) >= 0
            out[some[known]] = np.add.reduceat(self.event_tokens, starts, dtype=np.int64)[known]
        return out

    def edge(self, last: bool) -> Ints:
        """Arrival of the first (or last) output event of each request, in ns; 0 if it has none."""
        out = np.zeros(len(self), dtype=np.int64)
        some = self.events > 0
        out[some] = self.event_ns[(self.offsets[1:] - 1)[some]] if last else self.event_ns[self.offsets[:-1][some]]
        return out

    @classmethod
    def collect(cls, samples: Sequence[Sample]) -> Self:
        """Columns from the load generator's samples."""
        rows: dict[str, Any] = {name: _ints(getattr(s, name) for s in samples) for name in _ROW_COLUMNS}
        counts = (*_COUNT_COLUMNS, *_LATER_COLUMNS)
        rows |= {name: _ints(-1 if (v := getattr(s, name)) is None else v for s in samples) for name in counts}
        rows |= {name: tuple(getattr(s, name) for s in samples) for name in _TEXT_COLUMNS}
        offsets = np.concatenate(([0], np.cumsum([len(s.event_ns) for s in samples], dtype=np.int64)))
        return cls(
            **rows,
            server_timings=tuple(s.server_timings for s in samples),
            offsets=offsets,
            event_ns=_joined([s.event_ns for s in samples], "q"),
            event_tokens=_joined([s.event_tokens for s in samples], "i"),
            event_chars=_joined([s.event_chars for s in samples], "i"),
        )

    def write(self, path: Path) -> None:
        """Write as Parquet: one row per request, list columns for the events, delta-encoded and compressed."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        offsets = _arrow(self.offsets.astype(np.int32))
        numbers = (*_ROW_COLUMNS, *_COUNT_COLUMNS, *_LATER_COLUMNS)
        columns: dict[str, Any] = {name: _arrow(getattr(self, name)) for name in numbers}
        columns |= {name: _arrow_text(getattr(self, name)) for name in _TEXT_COLUMNS}
        for name in ("event_ns", "event_tokens", "event_chars"):
            columns[name] = pa.ListArray.from_arrays(offsets, _arrow(getattr(self, name)))
        columns[_TIMINGS] = _arrow_text([None if timings is None else json.dumps(dict(timings)) for timings in self.server_timings])
        deltas = {f"{name}.list.element": "DELTA_BINARY_PACKED" for name in ("event_ns", "event_tokens", "event_chars")}
        deltas |= dict.fromkeys(numbers, "DELTA_BINARY_PACKED")
        pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=list(_TEXT_COLUMNS), column_encoding=deltas)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The inverse of `write`, without the window. Older files may lack columns. UserError if the file is damaged."""
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise UserError(f"raw samples are damaged: {error.strerror}", file=path) from None

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Self:
        """The same of a file that was read. path: for errors."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(pa.BufferReader(content)) as file:  # read_table would import pandas, which takes half a second
                return cls._of_table(file.read().combine_chunks())
        except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError) as error:  # AttributeError: a column of another type
            raise UserError(f"raw samples are damaged: {(str(error).splitlines() or ['?'])[0]}", file=path) from None

    @classmethod
    def _of_table(cls, table: Any) -> Self:
        rows: dict[str, Any] = {name: _numbers(table[name].chunk(0)).astype(np.int64) for name in (*_ROW_COLUMNS, *_COUNT_COLUMNS)}
        there = {name for name in _LATER_COLUMNS if name in table.column_names}
        rows |= {name: _numbers(table[name].chunk(0)).astype(np.int64) for name in there}
        rows |= {name: np.full(len(table), absent, np.int64) for name, absent in _LATER_COLUMNS.items() if name not in there}
        rows |= {name: tuple(table[name].to_pylist()) for name in _TEXT_COLUMNS}
        timings = table[_TIMINGS].to_pylist() if _TIMINGS in table.column_names else [None] * len(table)
        rows[_TIMINGS] = tuple(None if text is None else json.loads(text) for text in timings)
        lists = {name: table[name].chunk(0) for name in ("event_ns", "event_tokens", "event_chars")}
        offsets = _numbers(lists["event_ns"].offsets).astype(np.int64)
        return cls(**rows, **{name: _flat(column) for name, column in lists.items()}, offsets=offsets - offsets[0])


def _arrow(values: npt.NDArray[np.int64] | npt.NDArray[np.int32]) -> Any:
    """The numbers as an Arrow array. `pa.array` would import pandas, which takes half a second."""
    import pyarrow as pa

    kind = pa.int64() if values.dtype == np.int64 else pa.int32()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _numbers(values: Any) -> Any:
    """An Arrow array of integers without nulls as numpy; `to_numpy` would import pandas. AttributeError for anything else."""
    import pyarrow as pa

    kinds = {pa.int64(): np.int64, pa.int32(): np.int32}
    if values.null_count or values.type not in kinds:
        raise AttributeError(f"a column of {values.type} instead of whole numbers")
    kind, buffer = kinds[values.type], values.buffers()[1]
    if buffer is None:
        return np.empty(0, kind)
    return np.frombuffer(buffer, kind, values.offset + len(values))[values.offset :]


def _flat(lists: Any) -> Any:
    """The concatenated lists of an Arrow list array. `flatten` would import pyarrow.compute, which takes a tenth of a second."""
    ends = _numbers(lists.offsets)
    return _numbers(lists.values)[ends[0] : ends[-1]]


def _arrow_text(values: Sequence[str | None]) -> Any:
    """Texts or nulls as an Arrow array, without `pa.array` as above."""
    import pyarrow as pa

    encoded = [(value or "").encode(errors="replace") for value in values]
    ends = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    known = np.packbits(np.array([value is not None for value in values], bool), bitorder="little")
    buffers = [pa.py_buffer(known), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.StringArray.from_buffers(len(encoded), buffers[1], buffers[2], buffers[0])


def _ints(values: Any) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _joined(parts: Sequence[array[int]], code: str) -> Any:
    whole = array(code)
    for part in parts:
        whole.extend(part)
    return np.frombuffer(whole, dtype=np.int64 if code == "q" else np.int32)
