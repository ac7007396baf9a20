"""A good answer keeps every limit at once; a failed one keeps none; a queue in front of the server counts."""

from __future__ import annotations

from array import array
from dataclasses import replace

import numpy as np
import pytest
from enginebench.domain import JSON, Sample, plain_object
from enginebench.errors import UserError
from enginebench.metrics.context import Context, Floats, RunContext
from enginebench.metrics.figures import within_slo
from enginebench.metrics.figures.throughput import request_throughput
from enginebench.metrics.slo import PRESETS, Slo, parse
from enginebench.records.samples import Samples
from enginebench.records.window import Window
from hypothesis import given
from hypothesis import strategies as st

MS = 1_000_000


def goodput(s: Samples, slo: Slo) -> Floats:
    return within_slo.goodput(Context(s, run=RunContext(slo=slo)))


def attainment(s: Samples, slo: Slo) -> Floats:
    return within_slo.slo_attainment(Context(s, run=RunContext(slo=slo)))


def request(ttft: int = 100, gap: int = 20, events: int = 11, *, sent: int = 1000, wait: int = 0, **changes: object) -> Sample:
    """Times in ms; wait: how long before it was sent it was due."""
    at = [(sent + ttft + gap * i) * MS for i in range(events)]
    made = Sample(
        0, 10, events, due_ns=(sent - wait) * MS, sent_ns=sent * MS, end_ns=at[-1] if at else (sent + 1) * MS, event_ns=array("q", at),
        event_tokens=array("i", [-1] * events), event_chars=array("i", [1] * events), input_tokens=10, output_tokens=events,
    )  # fmt: skip
    return replace(made, **changes)


LIMITS = Slo(ttft_s=0.2, tpot_s=0.03, e2e_s=0.5)


@pytest.mark.parametrize(
    ("sample", "good"),
    [
        (request(), True),
        (request(ttft=201), False),
        (request(ttft=200), True),
        (request(gap=31), False),
        (request(gap=10, events=50), False),
        (request(wait=101), False),
        (request(outcome="cut"), False),
        (request(events=0), False),
        (request(events=1), True),
        (request(events=1, output_tokens=64), True),
    ],
)
def test_a_good_answer_keeps_every_limit(sample: Sample, good: bool) -> None:
    s = Samples.collect([sample, request()])
    assert attainment(s, LIMITS)[0] == (1 + good) / 2
    assert goodput(s, LIMITS)[0] == pytest.approx((1 + good) / 2 * 2 / ((s.end_ns.max() - s.sent_ns.min()) / 1e9))


def test_a_limit_on_the_pace_needs_tokens_that_somebody_counted() -> None:
    s = Samples.collect([request(output_tokens=None), request()])
    assert np.isnan(goodput(s, LIMITS)[0])
    assert goodput(s, Slo(ttft_s=0.2))[0] > 0
    slow = Samples.collect([request(output_tokens=None, ttft=900), request()])
    assert attainment(slow, LIMITS)[0] == 0.5  # too late, whatever its pace


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 60), st.integers(0, 12), st.integers(1, 3000), st.booleans()), min_size=1))
def test_goodput_is_never_above_the_request_throughput(made: list[tuple[int, int, int, int, bool]]) -> None:
    samples = [request(a, b, n, sent=sent, outcome="ok" if ok else "cut") for a, b, n, sent, ok in made]
    whole = Samples.collect(samples)
    for s in (whole, whole.within(Window(500 * MS, 1500 * MS, "steady", ""))):
        assert 0 <= goodput(s, LIMITS)[0] <= request_throughput(s)[0]
        assert np.isnan(attainment(s, LIMITS)[0]) or 0 <= attainment(s, LIMITS)[0] <= 1


@pytest.mark.parametrize(
    ("given", "slo"),
    [
        ("mlperf/deepseek-r1", Slo(2.0, 0.08)),
        ({"preset": "mlperf/mixtral-8x7b", "tpot_ms": 100}, Slo(2.0, 0.1)),
        ({"ttft_ms": 500, "share": 0.9}, Slo(ttft_s=0.5, share=0.9)),
        ({"e2e_s": 3, "ttft_ms": None, "preset": None}, Slo(e2e_s=3.0)),
    ],
)
def test_an_slo_is_a_preset_or_limits(given: dict[str, JSON] | str, slo: Slo) -> None:
    assert parse(given) == slo
    assert parse(plain_object(slo)) == slo


def test_the_presets_are_those_of_mlperf() -> None:
    limits = {name: (slo.ttft_s, slo.tpot_s, slo.share) for name, slo in PRESETS.items()}
    assert limits == {
        "mlperf/mixtral-8x7b": (2.0, 0.2, 0.99),
        "mlperf/deepseek-r1": (2.0, 0.08, 0.99),
        "mlperf/gpt-oss-120b": (3.0, 0.08, 0.99),
    }
    assert PRESETS["mlperf/deepseek-r1"].text == "TTFT 2 s, TPOT 80 ms for 99 % of requests"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mlperf/deepseek", "unknown preset.*\n.*did you mean 'mlperf/deepseek-r1'"),
        ({"ttft": 1}, r"slo\.ttft: unknown limit"),
        ({"ttft_ms": -1}, r"slo\.ttft_ms: must be a positive number, not -1"),
        ({"ttft_ms": True}, "must be a positive number"),
        ({"ttft_ms": float("nan")}, "must be a positive number"),
        ({"ttft_ms": "1"}, "must be a positive number, not '1'"),
        ({"ttft_ms": 1, "ttft_s": 1}, "limited twice"),
        ({"ttft_ms": 1, "share": 99}, r"slo\.share: .*above 0 and at most 1"),
        ({"share": 0.9}, "at least one limit"),
        ({}, "at least one limit"),
    ],
)
def test_a_wrong_slo_is_one_sentence_with_advice(given: dict[str, JSON] | str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        parse(given)
    assert caught.value.advice


def test_its_metrics_say_their_formula() -> None:
    assert all(len(metric.formula) > 40 for metric in (within_slo.goodput, within_slo.slo_attainment))
