"""The metrics are checked against hand-made requests whose answers can be read off, and against laws that hold for any."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from enginebench.metrics import METRICS, e2e, itl, itl_is_exact, longest_gap, output_throughput, tpot, ttft, user_throughput, window_s
from enginebench.nouns import Sample
from enginebench.samples import Samples
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
    assert window_s(s) == pytest.approx(0.101)
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
    assert METRICS["success_rate"].compute(s)[0] == pytest.approx(1 / 3)


def test_several_tokens_per_event_are_counted_by_the_server_not_by_chunks() -> None:
    s = Samples.collect([request(0, 1000, [1010, 1020, 1030], tokens=12)])
    assert tpot(s)[0] == pytest.approx(0.020 / 11)
    assert not itl_is_exact(s)
    assert itl_is_exact(Samples.collect([request(0, 1000, [1010, 1020, 1030])]))


def test_without_any_count_throughput_is_unknown_not_a_chunk_count() -> None:
    s = Samples.collect([request(0, 1000, [1010, 1020, 1030], tokens=None)])
    assert np.isnan(tpot(s)).all()
    assert np.isnan(output_throughput(s)).all()
    counted = Samples.collect([request(0, 1000, [1010, 1020, 1030], tokens=None, per_event=2)])
    assert tpot(counted)[0] == pytest.approx(0.020 / 5)


def test_every_metric_says_its_formula() -> None:
    assert all(len(metric.formula) > 20 for metric in METRICS.values())


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
