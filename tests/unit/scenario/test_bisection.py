"""The search for the highest load: it ends within its bound, near the truth where there is one, and whatever it is told."""

from __future__ import annotations

import math

from enginebench.scenario.bisection import Search, most_probes
from hypothesis import given
from hypothesis import strategies as st

bounds = st.tuples(st.floats(0.1, 100), st.floats(0.1, 1000)).map(sorted)
precisions = st.floats(0.01, 1)


def tried(search: Search, answers: st.DataObject | float) -> list[float]:
    """The levels in order. answers: a limit below which a level passes, or hypothesis to invent an answer each time."""
    levels: list[float] = []
    while (level := search.next_level()) is not None:
        levels.append(level)
        ok = level <= answers if isinstance(answers, int | float) else answers.draw(st.sampled_from([True, False, None]))
        search.tell(level, ok)
    return levels


@given(bounds, precisions, st.floats(0.01, 2000))
def test_against_a_limit_it_ends_in_time_and_near_it(between: list[float], precision: float, limit: float) -> None:
    start, stop = between
    search = Search(start, stop, precision)
    levels = tried(search, limit)
    assert len(levels) <= most_probes(Search(start, stop, precision))
    if limit < start:
        assert search.passed is None
        assert levels == [start]
    elif limit >= stop:
        assert search.passed == stop
    else:
        assert search.passed is not None
        assert search.failed is not None
        assert search.passed <= limit < search.failed
        resolution = 0.011  # three significant digits
        assert search.failed / search.passed <= (1 + precision) * (1 + 1e-6) or search.failed / search.passed <= 1 + resolution


@given(st.tuples(st.integers(1, 500), st.integers(1, 500)).map(sorted), precisions, st.integers(0, 600))
def test_whole_levels_stay_whole(between: list[int], precision: float, limit: int) -> None:
    search = Search(between[0], between[1], precision, whole=True)
    levels = tried(search, limit)
    assert all(float(level).is_integer() for level in levels)
    assert len(levels) <= most_probes(Search(between[0], between[1], precision, whole=True))
    if between[0] <= limit < between[1]:
        assert search.passed is not None
        assert search.failed is not None
        assert search.passed <= limit < search.failed
        assert search.failed <= max(search.passed + 1, search.passed * (1 + precision) * (1 + 1e-6))


@given(bounds, precisions, st.booleans(), st.data())
def test_it_ends_whatever_it_is_told(between: list[float], precision: float, whole: bool, data: st.DataObject) -> None:
    start, stop = (math.ceil(between[0]), math.ceil(between[1])) if whole else between
    levels = tried(Search(start, stop, precision, whole=whole), data)
    assert len(levels) == len(set(levels)) <= most_probes(Search(start, stop, precision, whole=whole))
    assert all(start <= level <= stop for level in levels)


def test_what_nobody_can_tell_ends_it() -> None:
    search = Search(1, 64, 0.1)
    for ok in (True, True, None):
        level = search.next_level()
        assert level is not None
        search.tell(level, ok)
    assert (search.passed, search.failed, search.unknown, search.next_level()) == (2, None, 4, None)


def test_the_levels_of_an_ordinary_search() -> None:
    assert tried(Search(1, 256, 0.1), 5.2) == [1, 2, 4, 8, 5.66, 4.76, 5.19]
    assert tried(Search(1, 256, 0.1, whole=True), 11) == [1, 2, 4, 8, 16, 11, 13, 12]
    assert most_probes(Search(1, 256, 0.1)) == 12
