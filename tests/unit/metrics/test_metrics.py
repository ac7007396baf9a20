"""The metrics are checked against hand-made requests whose answers can be read off, and against laws that hold for any."""

from __future__ import annotations

import itertools
from array import array
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from enginebench.domain import Sample
from enginebench.metrics.context import Context
from enginebench.metrics.figures.requests import e2e, e2e_due, tpot, ttfa, ttft, ttft_due
from enginebench.metrics.figures.streams import itl, longest_gap, reader_wait, tokens_per_event
from enginebench.metrics.figures.throughput import input_throughput, output_throughput, request_throughput, user_throughput
from enginebench.metrics.registry import figures_of, metrics
from enginebench.metrics.tokens import disagreements, one_token_per_event, output_tokens, per_event, share_inside, token_source
from enginebench.records.samples import Samples
from enginebench.records.window import Window
from hypothesis import given
from hypothesis import strategies as st

MS = 1_000_000


def request(index: int, sent: int, events: list[int], *, tokens: int | None = -1, outcome: str = "ok", per_event: int = -1) -> Sample:
    """A request with times in ms; tokens -1: as many as events."""
    return Sample(
        index, 10, len(events), due_ns=sent * MS, sent_ns=sent * MS, end_ns=((events or [sent])[-1] + 1) * MS,
        event_ns=array("q", [t * MS for t in events]), event_tokens=array("i", [per_event] * len(events)),
        event_chars=array("i", [1] * len(events)), outcome=outcome, input_tokens=10, output_tokens=len(events) if tokens == -1 else tokens,
    )  # fmt: skip


def test_latencies_of_two_requests() -> None:
    s = Samples.collect([request(0, 100, [150, 160, 170, 190]), request(1, 100, [180, 200])])
    assert ttft(s).tolist() == pytest.approx([0.050, 0.080])
    assert tpot(s).tolist() == pytest.approx([0.040 / 3, 0.020])
    assert e2e(s).tolist() == pytest.approx([0.090, 0.100])
    assert itl(s).tolist() == pytest.approx([0.010, 0.010, 0.020, 0.020])
    assert longest_gap(s).tolist() == pytest.approx([0.020, 0.020])
    assert Context(s).window_s == pytest.approx(0.101)
    assert output_throughput(s)[0] == pytest.approx(6 / 0.101)


def test_a_single_token_has_no_tpot_and_no_gap() -> None:
    s = Samples.collect([request(0, 1000, [1050])])
    assert np.isnan(tpot(s)).all()
    assert np.isnan(longest_gap(s)).all()
    assert len(itl(s)) == 0


def test_an_answer_in_one_event_has_no_pace() -> None:
    s = Samples.collect([request(0, 1000, [1050], tokens=64)])
    assert np.isnan(tpot(s)).all()
    assert output_throughput(s)[0] > 0


def test_the_speed_of_a_user_needs_as_many_requests_as_any_median() -> None:
    made = [request(i, 100, [150, 160, 170]) for i in range(6)]
    assert user_throughput(Samples.collect(made))[0] == pytest.approx(100)
    assert np.isnan(user_throughput(Samples.collect(made[:5]))).all()


def test_failed_requests_count_for_nothing() -> None:
    s = Samples.collect(
        [request(0, 1000, [1010, 1020]), request(1, 1000, [1005, 1500], outcome="cut"), request(2, 1000, [], outcome="http_status")]
    )
    assert np.isnan(ttft(s)[1:]).all()
    assert itl(s).tolist() == pytest.approx([0.010])
    assert output_throughput(s)[0] == pytest.approx(2 / 0.501)  # the window holds the failed ones too
    assert metrics()["success_rate"](s)[0] == pytest.approx(1 / 3)


def test_several_tokens_per_event_are_counted_by_the_server_not_by_chunks() -> None:
    s = Samples.collect([request(0, 1000, [1010, 1020, 1030], tokens=12)])
    assert tpot(s)[0] == pytest.approx(0.020 / 11)
    assert not one_token_per_event(s)
    assert one_token_per_event(Samples.collect([request(0, 1000, [1010, 1020, 1030])]))


def test_without_any_count_throughput_is_unknown_not_a_chunk_count() -> None:
    s = Samples.collect([request(0, 1000, [1010, 1020, 1030], tokens=None)])
    assert np.isnan(tpot(s)).all()
    assert np.isnan(output_throughput(s)).all()
    counted = Samples.collect([request(0, 1000, [1010, 1020, 1030], tokens=None, per_event=2)])
    assert tpot(counted)[0] == pytest.approx(0.020 / 5)


def test_every_metric_says_its_formula() -> None:
    assert all(len(metric.formula) > 20 for metric in metrics().values())


def test_latencies_count_from_due_as_well() -> None:
    late = replace(request(0, 100, [150, 160]), due_ns=70 * MS, first_answer_ns=160 * MS)
    s = Samples.collect([late, request(1, 100, [150, 160])])
    assert ttft_due(s).tolist() == pytest.approx([0.080, 0.050])
    assert e2e_due(s).tolist() == pytest.approx([0.090, 0.060])
    assert ttfa(s)[0] == pytest.approx(0.060)
    assert np.isnan(ttfa(s)[1])


# -- who counted ---------------------------------------------------------------------------------------------------------


def test_the_most_trustworthy_count_is_taken_and_named() -> None:
    usage = request(0, 1, [10, 20], tokens=4, per_event=3)
    stream = replace(request(0, 1, [10, 20], tokens=None, per_event=3), local_tokens=5)
    local = replace(request(0, 1, [10, 20], tokens=None), local_tokens=5)
    nobody = request(0, 1, [10, 20], tokens=None)
    assert output_tokens(Samples.collect([usage, stream, local])).tolist() == [4, 6, 5]
    assert np.isnan(output_tokens(Samples.collect([nobody]))).all()
    sources = [token_source(Samples.collect(its)) for its in ([usage], [usage, stream], [stream, local], [local, nobody], [])]
    assert sources == ["server usage", "stream counts", "local tokenizer", "unknown", "unknown"]


def test_counts_that_differ_by_more_than_the_end_token_disagree() -> None:
    def both(usage: int, per_event: int) -> Sample:
        return request(0, 1, [10, 20], tokens=usage, per_event=per_event)

    assert disagreements(Samples.collect([both(5, 2), both(4, 2), both(6, 2)])) == [("server usage", "stream counts", 1, 3)]
    assert disagreements(Samples.collect([both(204, 100)])) == [("server usage", "stream counts", 0, 1)]
    assert disagreements(Samples.collect([request(0, 1, [10, 20])])) == []


def test_tokens_are_attributed_to_events_as_the_server_counted_them_else_evenly() -> None:
    told = replace(request(0, 1, [10, 20, 30], tokens=8), event_tokens=array("i", [1, 2, 1]))
    s = Samples.collect([told, request(1, 1, []), request(2, 1, [10, 20, 30], tokens=6)])
    assert per_event(s, output_tokens(s)).tolist() == pytest.approx([2, 4, 2, 2, 2, 2])


# -- smoothness ----------------------------------------------------------------------------------------------------------


def test_a_reader_waits_where_the_stream_is_slower_than_he_is() -> None:
    steady = request(0, 0, [1000 + 100 * i for i in range(10)])
    halted = request(0, 0, [1000, *[3000 + 10 * i for i in range(9)]])
    slow = request(0, 0, [1000 + 200 * i for i in range(10)])
    flushed = request(0, 0, [1000, 3000], tokens=10)
    waits = reader_wait(Samples.collect([steady, halted, slow, flushed]))
    assert waits.tolist() == pytest.approx([0, 1.9 / 2.9, 0.9 / 1.9, 1.5 / 2.5])
    assert tokens_per_event(Samples.collect([steady, flushed])).tolist() == [1, 5]


def slow_reader(arrivals: list[float], tokens: list[int]) -> float:
    """The share of waiting, read token by token."""
    now, waited = arrivals[0], 0.0
    for at, n in zip(arrivals, tokens, strict=True):
        waited += max(0.0, at - now)
        now = max(now, at) + 0.1 * n
    return waited / (now - arrivals[0])


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 9)), min_size=1, max_size=12), st.integers(0, 3))
def test_the_readers_wait_is_what_reading_token_by_token_gives(stream: list[tuple[int, int]], others: int) -> None:
    at = np.cumsum([gap for gap, _ in stream]).tolist()
    counts = [n for _, n in stream]
    sample = replace(request(0, 1, at, tokens=sum(counts)), event_tokens=array("i", counts))
    found = reader_wait(Samples.collect([*[request(1, 1, [5, 900])] * others, sample, request(2, 1, [])]))[others]
    assert 0 <= found < 1
    assert found == pytest.approx(slow_reader([t / 1e3 for t in at], counts), abs=1e-6)


# -- the window ----------------------------------------------------------------------------------------------------------


def within(s: Samples, start_ms: float, end_ms: float) -> Samples:
    return s.within(Window(int(start_ms * MS), int(end_ms * MS), "steady", ""))


def test_a_window_takes_latencies_by_send_and_tokens_by_arrival() -> None:
    s = within(Samples.collect([request(0, 100, [150, 250, 350]), request(1, 220, [240, 260, 450]), request(2, 400, [420, 430])]), 200, 400)
    assert Context(s).window_s == pytest.approx(0.2)
    assert np.isnan(ttft(s)).tolist() == [True, False, False]
    assert output_throughput(s)[0] == pytest.approx((2 + 2) / 0.2)
    assert request_throughput(s)[0] == pytest.approx(1 / 0.2)
    assert input_throughput(s)[0] == pytest.approx(10 / 0.2)
    assert len(itl(s)) == 3


def test_an_answer_without_events_arrives_at_its_end() -> None:
    s = Samples.collect([replace(request(0, 100, [], tokens=5), end_ns=300 * MS)])
    assert output_throughput(within(s, 200, 400))[0] == pytest.approx(5 / 0.2)
    assert output_throughput(within(s, 310, 410))[0] == 0


requests = st.lists(st.lists(st.integers(1, 1000), max_size=12), min_size=1, max_size=8).map(
    lambda gaps: [request(i, 1, np.cumsum([1, *g]).tolist() if g else []) for i, g in enumerate(gaps)]
)


@given(requests)
def test_the_gaps_of_a_request_sum_to_its_span(samples: list[Sample]) -> None:
    s = Samples.collect(samples)
    spans = (s.edge(last=True) - s.edge(last=False)).sum() / 1e9
    assert itl(s).sum() == pytest.approx(spans)


@given(requests)
def test_latencies_are_ordered(samples: list[Sample]) -> None:
    s = Samples.collect(samples)
    first, whole = ttft(s), e2e(s)
    defined = ~np.isnan(first)
    assert (first[defined] <= whole[defined]).all()
    assert (np.isnan(tpot(s)) | (tpot(s) >= 0)).all()


@given(requests, st.lists(st.integers(1, 8000), min_size=1, max_size=4))
def test_tokens_are_neither_lost_nor_counted_twice(samples: list[Sample], cuts: list[int]) -> None:
    s = Samples.collect(samples)
    edges = [0, *sorted(cuts), 20_000]
    parts = [share_inside(within(s, a + 0.5, b + 0.5)) for a, b in itertools.pairwise(edges)]
    assert np.sum(parts, axis=0) == pytest.approx(np.ones(len(s)))
    whole = s.within(Window(int(s.sent_ns.min()), int(s.end_ns.max()), "steady", ""))
    assert output_throughput(whole)[0] == pytest.approx(output_throughput(s)[0])


@given(requests, st.randoms(use_true_random=False))
def test_the_order_of_the_requests_changes_nothing(samples: list[Sample], random: Random) -> None:
    shuffled = random.sample(samples, len(samples))
    one, other = (figures_of(Context(within(Samples.collect(its), 100, 900))) for its in (samples, shuffled))
    assert one == pytest.approx(other, nan_ok=True)
