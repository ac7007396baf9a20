"""The search for the highest load: it ends within its bound, near the limit if there is one, and for any sequence of answers."""

from __future__ import annotations

import math

from enginebench.domain import ClosedLoop, Search
from enginebench.domain.search import MAX_PROBES, Bracket
from hypothesis import given
from hypothesis import strategies as st

bounds = st.tuples(st.floats(0.1, 100), st.floats(0.1, 1000)).map(sorted)
precisions = st.floats(0.01, 1)


def search(start: float, stop: float, precision: float, *, whole: bool = False) -> Search:
    return Search(ClosedLoop(), "concurrency" if whole else "rate", start, stop, precision)


def run(searched: Search, answers: st.DataObject | float) -> tuple[list[float], Bracket]:
    """The levels in order and the end. answers: a limit below which a level passes, or hypothesis to invent each answer."""
    known: dict[float, bool | None] = {}
    while (level := searched.bracket(known).next_level) is not None:
        assert level not in known
        known[level] = level <= answers if isinstance(answers, int | float) else answers.draw(st.sampled_from([True, False, None]))
    return list(known), searched.bracket(known)


@given(bounds, precisions, st.floats(0.01, 2000))
def test_against_a_limit_it_ends_in_time_and_near_it(between: list[float], precision: float, limit: float) -> None:
    start, stop = between
    searched = search(start, stop, precision)
    levels, end = run(searched, limit)
    assert len(levels) <= searched.most_probes
    if limit < start:
        assert end.passed is None
        assert levels == [start]
    elif limit >= stop:
        assert end.passed == stop
    else:
        assert end.passed is not None
        assert end.failed is not None
        assert end.passed <= limit < end.failed
        resolution = 0.011  # three significant digits
        near = end.failed / end.passed <= (1 + precision) * (1 + 1e-6) or end.failed / end.passed <= 1 + resolution
        assert near or len(levels) == MAX_PROBES


@given(st.tuples(st.integers(1, 500), st.integers(1, 500)).map(sorted), precisions, st.integers(0, 600))
def test_whole_levels_stay_whole(between: list[int], precision: float, limit: int) -> None:
    searched = search(between[0], between[1], precision, whole=True)
    levels, end = run(searched, limit)
    assert all(float(level).is_integer() for level in levels)
    assert len(levels) <= searched.most_probes
    if between[0] <= limit < between[1]:
        assert end.passed is not None
        assert end.failed is not None
        assert end.passed <= limit < end.failed
        near = end.failed <= max(end.passed + 1, end.passed * (1 + precision) * (1 + 1e-6))
        assert near or len(levels) == MAX_PROBES


@given(bounds, precisions, st.booleans(), st.data())
def test_it_ends_for_any_answers(between: list[float], precision: float, whole: bool, data: st.DataObject) -> None:
    start, stop = (math.ceil(between[0]), math.ceil(between[1])) if whole else between
    searched = search(start, stop, precision, whole=whole)
    levels, _ = run(searched, data)
    assert len(levels) <= searched.most_probes
    assert all(start <= level <= stop for level in levels)


def test_an_unknown_answer_ends_it() -> None:
    assert search(1, 64, 0.1).bracket({1: True, 2: True, 4: None}) == Bracket(2, None, 4, None)


def test_levels_off_its_path_are_ignored() -> None:
    assert search(1, 64, 0.1).bracket({1: True, 3: False, 64: False}) == Bracket(1, None, None, 2)


def test_the_levels_of_an_ordinary_search() -> None:
    assert run(search(1, 64, 0.1), 5.2)[0] == [1, 2, 4, 8, 5.66, 4.76, 5.19]
    assert run(search(1, 256, 0.1), 5.2)[0] == [1, 4, 16, 8, 5.66, 4.76, 5.19]
    assert run(search(1, 256, 0.1, whole=True), 11)[0] == [1, 4, 16, 8, 11, 13, 12]


@given(bounds, precisions)
def test_no_search_takes_more_than_ten_cells(between: list[float], precision: float) -> None:
    start, stop = between
    searched = search(start, stop, precision)
    assert max(map(len, searched.paths())) == searched.most_probes <= MAX_PROBES == 10


def test_ten_cells_reach_the_default_precision_over_the_default_range() -> None:
    assert search(1, 256, 0.1).most_probes <= MAX_PROBES
    levels, end = run(search(1, 256, 0.1), 5.2)
    assert (end.passed, end.failed, len(levels)) == (5.19, 5.66, 7)
