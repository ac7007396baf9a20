"""The offset between the monotonic clocks of two hosts, from round trips. Does not know: sockets.

When a host has read its clock at `remote`, between `sent` and `received` of this process, its offset (remote - here) is between
remote - received and remote - sent, whatever the delays of the two ways are. What all round trips allow is the offset with its error: at
most half of the shortest round trip, and never too small for delays that differ.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import Final

from enginebench.domain import Sample

PINGS: Final = 64


@dataclass(frozen=True)
class RoundTrip:
    sent_ns: int
    remote_ns: int
    received_ns: int

    @property
    def took_ns(self) -> int:
        return self.received_ns - self.sent_ns


@dataclass(frozen=True)
class Reading:
    """The offset of a host's clock at one time."""

    at_ns: int
    """On the clock of this process."""
    offset_ns: int
    """The host's clock minus that of this process."""
    error_ns: int
    """The offset is off by at most this."""
    round_trip_ns: int
    """The shortest one."""


def read_clock(ask: Callable[[], int], pings: int = PINGS) -> Reading:
    """ask: returns the other host's clock, after one round trip."""
    return reading_of([_round_trip(ask) for _ in range(pings)])


def _round_trip(ask: Callable[[], int]) -> RoundTrip:
    sent_ns = monotonic_ns()
    remote_ns = ask()
    return RoundTrip(sent_ns, remote_ns, monotonic_ns())


def reading_of(trips: Sequence[RoundTrip]) -> Reading:
    """What these round trips, one after another within a fraction of a second, say of the offset."""
    shortest = min(trips, key=lambda each: each.took_ns)
    low = max(each.remote_ns - each.received_ns for each in trips)
    high = min(each.remote_ns - each.sent_ns for each in trips)
    low, high = min(low, high), max(low, high)  # a clock that is slewed meanwhile may cross them, by less than a microsecond
    return Reading((shortest.sent_ns + shortest.received_ns) // 2, (low + high) // 2, (high - low + 1) // 2, shortest.took_ns)


@dataclass(frozen=True)
class Clock:
    """A host's clock over a load: read before and after, and taken to run evenly between."""

    before: Reading
    after: Reading

    @property
    def drift_ns(self) -> int:
        """By how much the offset has grown."""
        return self.after.offset_ns - self.before.offset_ns

    @property
    def error_ns(self) -> int:
        return max(self.before.error_ns, self.after.error_ns)

    def offset_ns(self, remote_ns: int) -> int:
        """The offset at an instant of the host's clock."""
        span_ns = self.after.at_ns - self.before.at_ns
        since_ns = remote_ns - self.before.offset_ns - self.before.at_ns
        return self.before.offset_ns + (self.drift_ns * since_ns // span_ns if span_ns > 0 else 0)

    def correct(self, samples: Sequence[Sample]) -> None:
        """Put the times of samples on the clock of this process. Each request is shifted as a whole, so that its latencies stay exact."""
        for sample in samples:
            by_ns = self.offset_ns(sample.sent_ns or sample.end_ns)
            for name in ("due_ns", "sent_ns", "headers_ns", "end_ns", "first_answer_ns"):
                if at_ns := getattr(sample, name):  # 0: there is none
                    setattr(sample, name, at_ns - by_ns)
            sample.event_ns = array("q", [at_ns - by_ns for at_ns in sample.event_ns])
