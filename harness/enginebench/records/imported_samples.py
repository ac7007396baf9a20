"""Collects the single requests of another tool's file as columns, and makes `Samples` of them.

A request costs about 100 bytes and a gap 8 while it is collected. Times are seconds of any one clock; only differences are used. Beyond
MOST_GAPS gaps only first and last events are kept.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from enginebench.errors import UserError
from enginebench.records.cell import Lack
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.samples import Samples

Array: TypeAlias = npt.NDArray[Any]
MOST_REQUESTS = 1_000_000
MOST_GAPS = 1_500_000
MOST_SECONDS, MOST_SPAN_S = 1e11, 1e8
UNKNOWN = -1
_START_NS = 1_000_000_000
"""When the first request was sent, on the clock of the samples, where 0 means never."""


@dataclass
class GapLists:
    """The gaps of many requests, from a list of lists; beyond MOST_GAPS only their sums."""

    lists: list[Sequence[float]] | None = field(default_factory=list)
    """None: there are too many."""
    sums: array[float] = field(default_factory=lambda: array("d"))
    total: int = 0

    def add(self, item: ForeignRecord) -> None:
        """The gaps of the next request, a list of numbers. UserError for anything else."""
        gaps = item.numbers("")
        self.sums.append(sum(gaps))
        self.total += len(gaps)
        if self.lists is not None:
            self.lists.append(gaps)
        if self.total > MOST_GAPS:
            self.lists = None

    def of(self, i: int) -> tuple[Sequence[float] | None, float]:
        """(gaps of a request, or None if they were not kept; their sum)."""
        return None if self.lists is None else self.lists[i], self.sums[i]


@dataclass
class Requests:
    """The requests of one cell. `add` once for each; the order is that of the file."""

    asked_input: array[int] = field(default_factory=lambda: array("q"))
    asked_output: array[int] = field(default_factory=lambda: array("q"))
    input_tokens: array[int] = field(default_factory=lambda: array("q"))
    output_tokens: array[int] = field(default_factory=lambda: array("q"))
    local_tokens: array[int] = field(default_factory=lambda: array("q"))
    cached_tokens: array[int] = field(default_factory=lambda: array("q"))
    sent_s: array[float] = field(default_factory=lambda: array("d"))
    due_s: array[float] = field(default_factory=lambda: array("d"))
    first_s: array[float] = field(default_factory=lambda: array("d"))
    last_s: array[float] = field(default_factory=lambda: array("d"))
    errors: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Position of each failed request -> error class and message."""
    gaps_ns: array[int] = field(default_factory=lambda: array("q"))
    gap_counts: array[int] = field(default_factory=lambda: array("q"))
    no_gaps: bool = False
    """Whether only first and last events are known, at least for one request."""

    def __len__(self) -> int:
        return len(self.sent_s)

    def add(
        self,
        *,
        sent_s: float | None = None,
        due_s: float | None = None,
        first_s: float | None = None,
        last_s: float | None = None,
        gaps_s: Sequence[float] | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        local_tokens: int | None = None,
        cached_tokens: int | None = None,
        asked_input: int | None = None,
        asked_output: int | None = None,
        error: str | None = None,
        outcome: str = "error",
    ) -> None:
        """One request. sent_s, due_s: on the file's clock; None: not stated. first_s, last_s: from when it was sent to its first and last
        output event; None: none came. gaps_s: between its output events; None: not stated. input_tokens, output_tokens: as the server
        counted; local_tokens: output as the tool's tokenizer counted. error: why it failed.
        """
        n = len(self.sent_s)
        if n >= MOST_REQUESTS:
            raise UserError(f"has more than {MOST_REQUESTS:,} requests of one load; import a part of it")
        if error is not None:
            self.errors[n] = (outcome, error[:200])
        _check(n, sent_s, due_s, first_s, last_s, min(gaps_s, default=0.0) if gaps_s is not None else None)
        if last_s is None and first_s is not None:
            last_s = first_s + sum(gaps_s or ())
        self.sent_s.append(math.nan if sent_s is None else sent_s)
        self.due_s.append(math.nan if due_s is None else due_s)
        self.first_s.append(math.nan if first_s is None else first_s)
        self.last_s.append(math.nan if last_s is None else last_s)
        for column, value in (
            (self.asked_input, asked_input), (self.asked_output, asked_output), (self.input_tokens, input_tokens),
            (self.output_tokens, output_tokens), (self.local_tokens, local_tokens), (self.cached_tokens, cached_tokens),
        ):  # fmt: skip
            column.append(UNKNOWN if value is None else int(value))
        self._add_gaps(gaps_s, streamed=first_s is not None and error is None)

    def _add_gaps(self, gaps_s: Sequence[float] | None, *, streamed: bool) -> None:
        self.no_gaps = self.no_gaps or (gaps_s is None and streamed) or len(self.gaps_ns) + len(gaps_s or ()) > MOST_GAPS
        if self.no_gaps:
            self.gaps_ns = array("q")
        else:
            self.gaps_ns.extend(round(gap * 1e9) for gap in gaps_s or ())
        self.gap_counts.append(len(gaps_s or ()))

    @property
    def most_in_flight(self) -> int:
        """The most requests that were in flight at once, by their times."""
        sent = np.frombuffer(self.sent_s)
        ends = sent + np.nan_to_num(np.frombuffer(self.last_s))
        order = np.argsort(np.concatenate([ends, sent]), kind="stable")  # at equal times an end comes first
        steps = np.concatenate([np.full(len(ends), -1), np.ones(len(sent), int)])[order]
        return int(np.cumsum(steps).max(initial=0))

    def lacks(self, *, open_loop: bool) -> tuple[Lack, ...]:
        """What its samples lack. In a closed loop a request is due when it is sent."""
        sent = ~np.isnan(np.frombuffer(self.sent_s))
        lacks: list[Lack] = []
        if not sent.all():
            lacks.append("start times")
        if open_loop and (not sent.all() or np.isnan(np.frombuffer(self.due_s)).any()):
            lacks.append("due times")
        if self.no_gaps:
            lacks.append("gaps")
        if (np.frombuffer(self.asked_output, np.int64) < 0).any():
            lacks.append("asked lengths")
        return tuple(lacks)

    def samples(self, *, open_loop: bool = True) -> Samples:
        """The requests as samples. Without start times all are sent at once; without gaps a request has at most two events."""
        n = len(self)
        known = np.frombuffer(self.sent_s)
        sent_s = known - known.min() if n and not np.isnan(known).any() else np.zeros(n)
        sent = _START_NS + np.round(sent_s * 1e9).astype(np.int64)
        due = sent if not open_loop or not n or np.isnan(self.due_s).any() else _START_NS + _ns(np.frombuffer(self.due_s) - known.min())
        first, last = np.frombuffer(self.first_s), np.frombuffer(self.last_s)
        ok = np.ones(n, bool)
        ok[list(self.errors)] = False
        streamed = ~np.isnan(first) & ok
        event_ns, offsets = self._events(sent, streamed, first, np.where(np.isnan(last), first, last))
        end = np.where(np.isnan(last), sent, sent + _ns(np.nan_to_num(last)))
        some = np.diff(offsets) > 0
        end[some] = np.maximum(end[some], event_ns[offsets[1:][some] - 1])
        whole: dict[str, Any] = {
            name: np.frombuffer(getattr(self, name), np.int64)
            for name in ("input_tokens", "output_tokens", "local_tokens", "cached_tokens")
        }
        asked_in, asked_out = (np.frombuffer(column, np.int64) for column in (self.asked_input, self.asked_output))
        counted = np.where(whole["output_tokens"] >= 0, whole["output_tokens"], whole["local_tokens"])
        nothing, unknown = (np.broadcast_to(np.int64(value), (n,)) for value in (0, UNKNOWN))
        failed = [self.errors.get(i, ("ok", None)) for i in range(n)]
        return Samples(
            **whole, index=np.arange(n), asked_input_tokens=np.where(asked_in >= 0, asked_in, whole["input_tokens"]).clip(0),
            asked_output_tokens=np.where(asked_out >= 0, asked_out, counted).clip(0), due_ns=due, sent_ns=sent, headers_ns=nothing,
            end_ns=end, status_code=unknown, outcome=tuple(outcome for outcome, _ in failed), error=tuple(text for _, text in failed),
            finish_reason=(None,) * n, event_ns=event_ns, event_tokens=np.full(len(event_ns), UNKNOWN, np.int32),
            event_chars=np.zeros(len(event_ns), np.int32), offsets=offsets, server_timings=(None,) * n, first_answer_ns=nothing,
            reasoning_tokens=unknown, conversation=unknown, turn=nothing,
        )  # fmt: skip

    def _events(self, sent: Array, streamed: Array, first: Array, last: Array) -> tuple[Array, Array]:
        """(arrivals of all events, offsets of the requests)."""
        more = np.frombuffer(self.gap_counts, np.int64) if not self.no_gaps else (last > first).astype(np.int64)
        counts = np.where(streamed, 1 + more, 0)
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        rows = np.flatnonzero(counts)
        start = sent[rows] + _ns(first[rows])
        if self.no_gaps:
            event_ns = np.repeat(start, counts[rows])
            two = rows[counts[rows] > 1]
            event_ns[offsets[two] + 1] = sent[two] + _ns(last[two])
            return event_ns, offsets
        steps = np.zeros(int(offsets[-1]), np.int64)
        gaps = np.frombuffer(self.gaps_ns, np.int64)
        wanted = np.repeat(streamed, more)
        inner = np.ones(len(steps), bool)
        inner[offsets[rows]] = False
        steps[inner] = gaps[wanted]
        total = np.cumsum(steps)
        return total - np.repeat(total[offsets[rows]] - start, counts[rows]), offsets


def _check(n: int, sent_s: float | None, due_s: float | None, *spans_s: float | None) -> None:
    """UserError for times that cannot be: before the request was sent, or beyond any clock."""
    if not all(at is None or abs(at) < MOST_SECONDS for at in (sent_s, due_s)) or not all(
        s is None or 0 <= s < MOST_SPAN_S for s in spans_s
    ):
        raise UserError(f"is damaged: request {n + 1} has a time that cannot be")


def _ns(seconds: Array) -> Array:
    return np.round(seconds * 1e9).astype(np.int64)
