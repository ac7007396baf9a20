"""The load generator against the fake engine: what is sent, when, on how many connections, and what comes of each fault."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import signal
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from enginebench.dialects import Dialect, OpenAIChat, OpenAICompletions
from enginebench.loadgen import LoadResult, LoadSpec, Progress, Target, WireRequest, client_process, run_load
from enginebench.loadgen.client import Client
from enginebench.loadgen.dispatch import Dispatch

pytestmark = pytest.mark.usefixtures("stamps")

StartFake = Callable[..., Target]
FAST = ("--ttft-ms", "5", "--itl-ms", "1")


def wire(count: int, *, tokens: int = 4, dialect: Dialect | None = None, **extra: object) -> list[WireRequest]:
    """`count` requests with prompts of their own."""
    spoken = dialect or OpenAICompletions()
    bodies = (
        spoken.body(model="fake", prompt=f"prompt {i}", output_tokens=tokens, temperature=0.0, seed=None, extra=extra) for i in range(count)
    )
    return [WireRequest(i, spoken.path, json.dumps(body).encode(), 2, tokens) for i, body in enumerate(bodies)]


def load(
    target: Target,
    requests: list[WireRequest],
    *,
    concurrency: int = 1,
    dialect: Dialect | None = None,
    timeout_s: float = 5.0,
    keep_text: bool = False,
) -> LoadResult:
    return run_load(LoadSpec(target, requests, concurrency, dialect or OpenAICompletions(), timeout_s, keep_text=keep_text))


def outcomes(result: LoadResult) -> list[str]:
    return [sample.outcome for sample in result.samples]


def test_every_request_leaves_one_sample_with_its_times_in_order(start_fake: StartFake) -> None:
    result = load(start_fake(*FAST), wire(20, tokens=8), concurrency=4)
    assert [s.index for s in result.samples] == list(range(20))
    assert outcomes(result) == ["ok"] * 20
    for s in result.samples:
        assert result.window_start_ns <= s.due_ns or s.index < 4
        assert s.due_ns <= s.sent_ns < s.headers_ns <= s.event_ns[0]
        assert list(s.event_ns) == sorted(s.event_ns)
        assert s.event_ns[-1] <= s.end_ns <= result.window_end_ns
        assert len(s.event_ns) == len(s.event_tokens) == len(s.event_chars) == 8
        assert (s.output_tokens, s.finish_reason, s.status_code, s.error, s.text) == (8, "length", 200, None, None)
    assert (result.stopped, result.unsent) == (None, 0)


def test_a_load_leaves_nothing_behind_that_only_a_garbage_collection_finds(start_fake: StartFake) -> None:
    """Request bodies hang on it, and a sweep has many loads."""
    target = start_fake(*FAST)
    gc.collect()
    gc.disable()
    try:
        outcome = outcomes(load(target, wire(4, tokens=2), concurrency=2))
        left = [held for held in gc.get_objects() if isinstance(held, Client | Dispatch)]
    finally:
        gc.enable()
    assert (outcome, left) == (["ok"] * 4, [])


@pytest.mark.clock
def test_times_are_those_of_the_schedule(start_fake: StartFake) -> None:
    result = load(start_fake("--ttft-ms", "30", "--itl-ms", "10"), wire(4, tokens=10), concurrency=2)
    ttft = [(s.event_ns[0] - s.sent_ns) / 1e6 for s in result.samples]
    gaps = [(b - a) / 1e6 for s in result.samples for a, b in pairwise(s.event_ns)]
    assert min(ttft) >= 29  # never early but for the server's own timer
    assert statistics.median(ttft) < 40
    assert statistics.median(gaps) == pytest.approx(10, abs=2)


@pytest.mark.clock
def test_concurrency_is_held_and_connections_are_reused(start_fake: StartFake) -> None:
    result = load(start_fake("--ttft-ms", "20", "--itl-ms", "2"), wire(80, tokens=10), concurrency=16)
    assert result.client.reconnects == 0
    assert 13 < result.client.achieved_concurrency <= 16
    edges = sorted([(s.sent_ns, 1) for s in result.samples] + [(s.end_ns, -1) for s in result.samples], key=lambda e: (e[0], e[1]))
    in_flight = highest = 0
    for _, step in edges:
        in_flight += step
        highest = max(highest, in_flight)
    assert highest == 16


@pytest.mark.clock
def test_the_next_request_is_due_when_its_slot_falls_free(start_fake: StartFake) -> None:
    result = load(start_fake(*FAST), wire(10), concurrency=1)
    for before, after in pairwise(result.samples):
        assert after.due_ns == before.end_ns
    assert result.client.schedule_delay_p50_ms < 5


def test_a_queueing_server_shows_in_ttft_and_not_in_schedule_delay(start_fake: StartFake) -> None:
    result = load(start_fake("--slots", "1", "--ttft-ms", "30", "--itl-ms", "1"), wire(6), concurrency=3)
    assert statistics.median((s.event_ns[0] - s.sent_ns) / 1e6 for s in result.samples[3:]) > 80


def test_text_is_kept_on_request_and_is_the_same_every_time(start_fake: StartFake) -> None:
    target = start_fake(*FAST)
    first, second = (load(target, wire(3, tokens=6), keep_text=True) for _ in range(2))
    assert [s.text for s in first.samples] == [s.text for s in second.samples]
    for s in first.samples:
        assert s.text is not None
        assert len(s.text) == sum(s.event_chars) > 0


@pytest.mark.parametrize(
    ("flags", "chat", "events", "counted"),
    [
        (("--usage", "choices"), False, 8, 8),
        (("--usage", "none"), False, 8, None),
        (("--no-done", "--usage", "choices"), False, 8, 8),
        (("--no-done", "--usage", "none"), False, 8, None),
        (("--pings",), False, 8, 8),
        (("--pings", "--role-chunk"), True, 8, 8),
        (("--tokens-per-event", "3"), False, 3, 8),
        (("--burst",), False, 8, 8),
        (("--short-output", "5"), False, 5, 5),
    ],
)
def test_manners_of_streams_that_are_all_fine(
    start_fake: StartFake, flags: tuple[str, ...], chat: bool, events: int, counted: int | None
) -> None:
    dialect = OpenAIChat() if chat else OpenAICompletions()
    result = load(start_fake(*FAST, *flags), wire(2, tokens=8, dialect=dialect), dialect=dialect)
    assert outcomes(result) == ["ok", "ok"]
    assert [(len(s.event_ns), s.output_tokens) for s in result.samples] == [(events, counted)] * 2


def test_tokens_of_each_event_where_the_engine_sends_ids(start_fake: StartFake) -> None:
    result = load(start_fake(*FAST, "--tokens-per-event", "3"), wire(1, tokens=8, return_token_ids=True))
    assert list(result.samples[0].event_tokens) == [3, 3, 2]


def test_cached_tokens_are_reported(start_fake: StartFake) -> None:
    assert load(start_fake(*FAST, "--cached-tokens", "7"), wire(1)).samples[0].cached_tokens == 7


def test_a_stall_is_one_long_gap(start_fake: StartFake) -> None:
    (sample,) = load(start_fake(*FAST, "--stall-after", "3", "--stall-s", "0.2"), wire(1, tokens=6)).samples
    gaps = [(b - a) / 1e6 for a, b in pairwise(sample.event_ns)]
    assert gaps.index(max(gaps)) == 2
    assert max(gaps) > 190


@pytest.mark.parametrize(
    ("flags", "outcome", "words"),
    [
        (("--http-error", "429"), "http_status", "HTTP 429"),
        (("--http-error", "500"), "http_status", "refused with 500, as asked"),
        (("--never-ready",), "http_status", "loading model"),
        (("--malformed", "json"), "malformed", "in event"),
        (("--malformed", "utf8"), "malformed", "in event"),
        (("--malformed", "chunk"), "malformed", "not HTTP"),
        (("--cut-after", "2"), "cut", "mid-response"),
        (("--in-stream-error", "2"), "in_stream_error", "fake error in mid-stream"),
        (("--short-output", "1", "--tokens-per-event", "1", "--in-stream-error", "0"), "ok", ""),
    ],
)
def test_faults_are_outcomes(start_fake: StartFake, flags: tuple[str, ...], outcome: str, words: str) -> None:
    result = load(start_fake(*FAST, *flags), wire(3), concurrency=2)
    assert outcomes(result) == [outcome] * 3
    assert all(words in (s.error or "") for s in result.samples)


def test_what_arrived_before_the_fault_is_kept(start_fake: StartFake) -> None:
    (sample,) = load(start_fake(*FAST, "--cut-after", "2"), wire(1)).samples
    assert len(sample.event_ns) == 2


def test_a_request_for_no_tokens_is_empty(start_fake: StartFake) -> None:
    assert outcomes(load(start_fake(*FAST), wire(1, tokens=0))) == ["empty"]


@pytest.mark.clock
def test_a_slow_request_times_out_alone(start_fake: StartFake) -> None:
    requests = [*wire(1, tokens=1000), *wire(8, tokens=4)[1:]]
    result = load(start_fake(*FAST), requests, concurrency=2, timeout_s=0.4)
    assert outcomes(result) == ["timeout"] + ["ok"] * 7
    assert 0.4 <= (result.samples[0].end_ns - result.samples[0].sent_ns) / 1e9 < 0.6


@pytest.mark.clock
def test_a_silent_server_costs_one_time_out_and_not_one_for_each_request(start_fake: StartFake) -> None:
    started = time.monotonic()
    result = load(start_fake("--ttft-ms", "60000"), wire(50), concurrency=2, timeout_s=0.3)
    assert time.monotonic() - started < 2
    assert set(outcomes(result)) <= {"timeout", "cancelled"}
    assert result.unsent >= 46
    assert "no response from the server" in (result.stopped or "")


def test_a_crash_in_the_middle_of_a_load(start_fake: StartFake, stamps: str) -> None:
    after = 5 if stamps == "kernel" else 6  # other flags are another engine: the one that crashed for the other transport is gone
    result = load(start_fake(*FAST, "--crash-after", str(after)), wire(20), concurrency=1)
    assert outcomes(result)[:after] == ["ok"] * after
    assert set(outcomes(result)[after:]) <= {"cut", "connect"}  # a dying process may still accept
    assert outcomes(result)[-1] == "connect"
    assert all((s.sent_ns == 0) == (s.outcome == "connect") for s in result.samples)


def test_nobody_listens() -> None:
    result = load(Target("127.0.0.1", 9), wire(5), concurrency=2)
    assert outcomes(result) == ["connect"] * 5


def test_no_requests_at_all(start_fake: StartFake) -> None:
    assert load(start_fake(*FAST), []).samples == []


def test_the_spec_is_picklable(start_fake: StartFake) -> None:
    spec = LoadSpec(start_fake(*FAST), tuple(wire(2)), 1, OpenAICompletions(), 5.0)
    assert outcomes(run_load(pickle.loads(pickle.dumps(spec)))) == ["ok", "ok"]  # noqa: S301 -- our own bytes


def test_it_also_runs_on_asyncios_own_loop(start_fake: StartFake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_process, "_event_loop", lambda: ("asyncio", asyncio.new_event_loop))
    result = load(start_fake(*FAST), wire(8), concurrency=4)
    assert outcomes(result) == ["ok"] * 8
    assert result.client.loop == "asyncio"


def test_progress_counts_up_and_ends_complete(start_fake: StartFake) -> None:
    seen: list[Progress] = []
    run_load(LoadSpec(start_fake("--ttft-ms", "100", "--itl-ms", "5"), wire(10), 2, OpenAICompletions(), 5.0), seen.append)
    assert [p.ended for p in seen] == sorted(p.ended for p in seen)
    assert (seen[-1].requests, seen[-1].sent, seen[-1].ended, seen[-1].failed) == (10, 10, 10, 0)
    assert len(seen) <= 2 + 4 * seen[-1].elapsed_s


def test_an_error_of_the_progress_callback_is_raised(start_fake: StartFake) -> None:
    def broken(progress: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_load(LoadSpec(start_fake("--ttft-ms", "60000"), wire(4), 2, OpenAICompletions(), 5.0), broken)


def test_ctrl_c_returns_what_there_is(start_fake: StartFake) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with it ignored
    pressed: list[int] = []

    def press(progress: Progress) -> None:
        if progress.ended >= 4 and not pressed:
            pressed.append(progress.ended)
            os.kill(os.getpid(), signal.SIGINT)

    target = start_fake("--ttft-ms", "60", "--itl-ms", "5")
    result = run_load(LoadSpec(target, wire(500), 4, OpenAICompletions(), 30.0), press)
    assert pressed
    assert result.stopped == "interrupted"
    assert set(outcomes(result)) == {"ok", "cancelled"}
    assert outcomes(result).count("cancelled") == 4
    assert result.unsent == 500 - len(result.samples)


def test_garbage_collection_is_as_it_was(start_fake: StartFake) -> None:
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    load(start_fake(*FAST), wire(1))
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


@pytest.mark.clock
def test_the_client_knows_itself(start_fake: StartFake, stamps: str) -> None:
    health = load(start_fake("--ttft-ms", "50", "--itl-ms", "5"), wire(8, tokens=20), concurrency=4).client
    assert 0 <= health.lag_p50_ms <= health.lag_p99_ms <= health.lag_max_ms
    assert 0 < health.cpu_fraction < 1
    assert health.shared_stamps < 8 * 20
    assert health.loop in ("uvloop", "asyncio")
    assert health.stamps == stamps


@pytest.mark.parametrize(("concurrency", "timeout_s"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_impossible_loads_are_refused(concurrency: int, timeout_s: float) -> None:
    with pytest.raises(ValueError, match=r"concurrency|timeout_s"):
        load(Target("127.0.0.1", 9), wire(1), concurrency=concurrency, timeout_s=timeout_s)


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(ValueError, match="line break"):
        Target("h", 1, headers={"X": "a\r\nY: b"})
