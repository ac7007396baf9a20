"""A stream that ends without what its siblings end with was cut, however properly its response ended."""

from __future__ import annotations

from enginebench.domain import Sample
from enginebench.loadgen.run import _fail_cut_streams

ALL = frozenset({"finish_reason", "usage", "[DONE]"})


def samples(*marks: set[str] | frozenset[str]) -> list[Sample]:
    return [Sample(index, 1, 1, end_marks=frozenset(each)) for index, each in enumerate(marks)]


def outcomes(found: list[Sample]) -> list[str]:
    return [sample.outcome for sample in found]


def test_what_most_streams_end_with_is_expected_of_all() -> None:
    found = samples(ALL, ALL, ALL, set(), {"usage", "[DONE]"})
    assert _fail_cut_streams(found, frozenset()) == ALL
    assert outcomes(found) == ["ok", "ok", "ok", "cut", "cut"]
    assert found[3].error == "the stream ended without finish_reason, usage, [DONE], with which this server's other streams end"


def test_servers_that_never_send_an_end_are_left_alone() -> None:
    found = samples(set(), set(), {"finish_reason"})
    assert _fail_cut_streams(found, frozenset()) == frozenset()
    assert outcomes(found) == ["ok"] * 3


def test_the_warm_up_shows_what_to_expect() -> None:
    found = samples(set(), set())
    _fail_cut_streams(found, frozenset({"finish_reason"}))
    assert outcomes(found) == ["cut", "cut"]


def test_failures_keep_their_outcome_and_set_no_standard() -> None:
    found = samples(ALL, set(), set(), set())
    for sample in found[1:]:
        sample.outcome = "timeout"
    _fail_cut_streams(found, frozenset())
    assert outcomes(found) == ["ok", "timeout", "timeout", "timeout"]
