"""The offset between two clocks, from round trips with delays that the test knows."""

from __future__ import annotations

import itertools
from array import array

from enginebench.domain import Sample
from enginebench.loadgen.clock import PINGS, Clock, Reading, RoundTrip, read_clock, reading_of
from hypothesis import given
from hypothesis import strategies as st

DELAYS = st.lists(st.tuples(st.integers(1, 10**8), st.integers(1, 10**8)), min_size=1, max_size=40)
MS = 1_000_000


def trips(delays: list[tuple[int, int]], offset_ns: int) -> list[RoundTrip]:
    """One after another, each with its delay there and back."""
    out, now = [], 10**12
    for there, back in delays:
        out.append(RoundTrip(now, now + there + offset_ns, now + there + back))
        now += there + back
    return out


@given(DELAYS, st.integers(-(10**15), 10**15))
def test_the_offset_is_within_its_error_whatever_the_delays_are(delays: list[tuple[int, int]], offset_ns: int) -> None:
    found = reading_of(trips(delays, offset_ns))
    assert abs(found.offset_ns - offset_ns) <= found.error_ns
    assert found.error_ns <= (min(map(sum, delays)) + 1) // 2, "half of the shortest round trip at most"
    assert found.round_trip_ns == min(map(sum, delays))


def test_a_slow_way_in_one_direction_makes_the_error_large_and_not_the_offset_wrong() -> None:
    found = reading_of(trips([(30 * MS, MS // 10)] * PINGS, 3_000 * MS))
    assert found.error_ns > 15 * MS
    assert abs(found.offset_ns - 3_000 * MS) <= found.error_ns
    one_quick = reading_of(trips([(30 * MS, MS // 10)] * 9 + [(MS // 10, MS // 10)], 3_000 * MS))
    assert one_quick.error_ns <= MS // 10, "one quick round trip is enough"


def test_it_asks_at_least_as_often_as_it_says() -> None:
    asked = itertools.count()
    read_clock(lambda: next(asked))
    assert next(asked) == PINGS >= 32


def reading(at_ns: int, offset_ns: int, error_ns: int = 5) -> Reading:
    return Reading(at_ns, offset_ns, error_ns, 2 * error_ns)


def test_a_clock_that_runs_fast_is_corrected_along_the_load() -> None:
    """50 parts in a million over 100 s: 5 ms in the end, 2.5 ms in the middle."""
    clock = Clock(reading(0, 1_000 * MS), reading(100_000 * MS, 1_005 * MS, 7))
    assert (clock.drift_ns, clock.error_ns) == (5 * MS, 7)
    assert clock.offset_ns(51_002 * MS) == 1_002 * MS + MS // 2 + 100 or abs(clock.offset_ns(51_002 * MS) - 1_002_500_000) < 200
    assert Clock(reading(5, 9), reading(5, 11)).offset_ns(100) == 9, "two readings at one time say nothing of a drift"


def test_correcting_shifts_a_request_as_a_whole_and_leaves_what_never_was() -> None:
    clock = Clock(reading(0, -250 * MS), reading(10_000 * MS, -250 * MS))
    sample = Sample(3, 5, 5, due_ns=1_000 * MS, sent_ns=1_001 * MS, end_ns=1_500 * MS)
    sample.event_ns = array("q", [1_100 * MS, 1_100 * MS, 1_499 * MS])
    clock.correct([sample])
    assert (sample.due_ns, sample.sent_ns, sample.end_ns) == (1_250 * MS, 1_251 * MS, 1_750 * MS)
    assert list(sample.event_ns) == [1_350 * MS, 1_350 * MS, 1_749 * MS]
    assert (sample.headers_ns, sample.first_answer_ns) == (0, 0)
    unsent = Sample(4, 5, 5, end_ns=1_500 * MS)
    clock.correct([unsent])
    assert (unsent.sent_ns, unsent.end_ns) == (0, 1_750 * MS)
