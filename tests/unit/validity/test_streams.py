"""Pauses inside streams, tokens that are never streamed, and finish reasons: named where they are, and not where they are not."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest
from enginebench.domain import Cell, ClosedLoop, Deployment, Sample
from enginebench.metrics.figures.requests import tpot
from enginebench.records.cell import CellRecord, CellTraits, ClientFacts, PromptFacts
from enginebench.records.samples import Samples
from enginebench.records.window import Window
from enginebench.validity.context import Context
from enginebench.validity.judge import Judgement
from enginebench.validity.judge import judge as judge_context

MS = 1_000_000


def request(index: int, sent_ms: float, gaps_ms: Sequence[float], ttft_ms: float = 30, **fields: object) -> Sample:
    events, at = array("q"), sent_ms + ttft_ms
    for gap in (0, *gaps_ms):
        at += gap
        events.append(int(at * MS))
    count = len(events)
    counts = {"asked_input_tokens": 100, "asked_output_tokens": count, "input_tokens": 100, "output_tokens": count} | fields
    return Sample(
        index, sent_ns=int(sent_ms * MS), due_ns=int(sent_ms * MS), end_ns=events[-1], event_ns=events, first_answer_ns=events[0],
        event_tokens=array("i", [-1] * count), event_chars=array("i", [4] * count), **counts,
    )  # fmt: skip


def judge(samples: Sequence[Sample], concurrency: int = 4) -> Judgement:
    cell = Cell(Deployment("fake", "m", "none", "m"), ClosedLoop(concurrency=concurrency, requests=len(samples)))
    record = CellRecord(
        cell.id, cell.launch_id, cell.deployment, cell.load, 0, "ok", identity="proven", traits=CellTraits(length_control="exact"),
        client=ClientFacts({"lag_p99_ms": 0.1, "cpu_fraction": 0.1}), prompts=PromptFacts(exact=True),
    )  # fmt: skip
    data = Samples.collect(samples)
    window = Window(int(data.sent_ns.min()), int(data.end_ns.max()), "steady", "")
    return judge_context(Context(data.within(window), record, window))


def details(found: Judgement, check: str) -> list[str]:
    return [reason.detail for reason in found.reasons if reason.check.id == check]


def steady(count: int = 24, gap_ms: float = 5, tokens: int = 100, streams: int = 4, ttft_ms: float = 30) -> list[Sample]:
    length = ttft_ms + gap_ms * tokens
    return [request(i, 1000 + i // streams * length + i % streams, [gap_ms] * (tokens - 1), ttft_ms) for i in range(count)]


def test_a_steady_load_has_no_stall() -> None:
    assert not details(judge(steady()), "stalled")


def test_one_long_gap_on_one_stream_is_named_with_its_length() -> None:
    samples = steady()
    samples[5] = request(5, 1531, [5] * 50 + [900] + [5] * 48)
    assert details(judge(samples), "stalled") == ["1 of 24 streams stalled, the longest for 0.9 s (usual gap 5 ms, limit 0.5 s)"]


def test_a_pause_in_every_stream_is_named() -> None:
    samples = [request(i, 1000 + i * 1300, [5] * 8 + [1200] + [5] * 7) for i in range(12)]
    assert "12 of 12 streams stalled, the longest for 1.2 s" in details(judge(samples, 1), "stalled")[0]


def frozen(samples: list[Sample], at_ms: float, for_ms: float) -> list[Sample]:
    """The samples as they are if the engine is stopped for some time."""
    for sample in samples:
        for name in ("sent_ns", "due_ns", "end_ns", "first_answer_ns"):
            if getattr(sample, name) > at_ms * MS:
                setattr(sample, name, int(getattr(sample, name) + for_ms * MS))
        sample.event_ns = array("q", [int(ns + for_ms * MS) if ns > at_ms * MS else ns for ns in sample.event_ns])
    return samples


@pytest.mark.parametrize("at_ms", [1004, 1100, 1700, 2600])  # the first: before any token
def test_an_engine_that_was_stopped_for_ten_seconds_is_suspect(at_ms: float) -> None:
    found = judge(frozen(steady(), at_ms, 10_000))
    assert found.verdict == "suspect"
    assert "nothing arrived on any stream for 10 s" in details(found, "stalled")[0]


def test_an_engine_that_was_stopped_before_the_first_token_of_its_only_stream() -> None:
    found = judge(frozen(steady(12, streams=1), 1000 + 2 * 530 + 10, 10_000), 1)
    assert "nothing arrived on any stream for 10 s" in details(found, "stalled")[0]


def test_prefills_in_a_queue_are_no_stall() -> None:
    """An engine that prefills one prompt after another, 400 ms each, while the streams that have begun wait."""
    samples = [request(i, 1000, [400] * (3 - i) + [10] * 60, ttft_ms=400 * (i + 1)) for i in range(4)]
    samples += [request(4 + i, 5000 + 2000 * i, [10] * 60 + [400] + [10] * 60, ttft_ms=400) for i in range(4)]
    for i in range(4):  # while it is at prompt 8 + i, stream 4 + i has its gap
        samples.append(request(8 + i, 5000 + 2000 * i + 1000, [10] * 60, ttft_ms=400))
    assert not details(judge(samples), "stalled")


def test_a_long_prompt_among_short_ones_is_no_stall() -> None:
    samples = [request(i, 1000 + i * 300, [5] * 40, 40, asked_input_tokens=100, input_tokens=100) for i in range(20)]
    samples.append(request(20, 7100, [5] * 40, 8000, asked_input_tokens=20_000, input_tokens=20_000))
    assert not details(judge(samples, 1), "stalled")


@pytest.mark.parametrize("ttft_ms", [3, 60, 900])
def test_first_tokens_that_vary_are_no_stall(ttft_ms: float) -> None:
    samples = [request(i, 1000 + i * 4000, [5] * 40, ttft_ms * (3 if i % 5 == 0 else 1)) for i in range(12)]
    assert not details(judge(samples, 1), "stalled")


def test_tokens_that_are_counted_and_never_streamed_withhold_tpot() -> None:
    samples = [request(i, 1000 + i * 400, [5] * 15, 270, output_tokens=64, asked_output_tokens=64, reasoning_tokens=48) for i in range(12)]
    found = judge(samples, 1)
    (detail,) = details(found, "hidden_tokens")
    assert detail == "12 of 12 requests: 64 tokens, 48 of them reasoning that was not streamed, in 16 events (medians)"
    assert {"tpot", "user_throughput"} <= found.withheld.keys()
    assert "ttft" not in found.withheld


def test_hidden_tokens_are_seen_without_their_count() -> None:
    """64 tokens in 16 events with 2 characters each: not even a character for a token."""
    samples = [request(i, 1000 + i * 400, [5] * 15, 270, output_tokens=64, asked_output_tokens=64) for i in range(12)]
    for sample in samples:
        sample.event_chars = array("i", [2] * 16)
    assert details(judge(samples, 1), "hidden_tokens") == ["12 of 12 requests: 64 tokens, in 16 events (medians)"]


@pytest.mark.parametrize("split", [True, False], ids=["as reasoning", "as text"])
def test_reasoning_that_is_streamed_hides_nothing(split: bool) -> None:
    samples = [request(i, 1000 + i * 400, [5] * 63, 30, reasoning_tokens=48) for i in range(12)]
    if split:
        for sample in samples:
            sample.first_answer_ns = sample.event_ns[48]
    found = judge(samples, 1)
    assert not details(found, "hidden_tokens")
    assert float(tpot(Samples.collect(samples))[0]) == pytest.approx(0.005)


def test_a_finish_reason_that_nobody_knows_is_named() -> None:
    samples = [request(i, 1000 + i * 400, [5] * 15, finish_reason="a_new_word" if i < 3 else "length") for i in range(12)]
    assert details(judge(samples, 1), "unknown_finish") == ["3 of 12 answers ended with finish reason 'a_new_word'"]


def test_a_missing_count_is_not_compared() -> None:
    samples = [request(i, 1000 + i * 400, [5] * 15, output_tokens=None if i < 3 else 16) for i in range(12)]
    assert not details(judge(samples, 1), "length_mismatch")


def test_advice_on_a_template_is_about_templates() -> None:
    samples = [request(i, 1000 + i * 400, [5] * 15, input_tokens=600) for i in range(12)]
    reasons = [reason for reason in judge(samples, 1).reasons if reason.check.id == "prompt_mismatch"]
    assert "the server adds 500 tokens to each prompt, such as a chat template" in str(reasons[0])
    assert "ignore_eos" not in str(reasons[0])
