"""When requests go out: open loops on their schedule, ramps, durations, conversations, several client processes, a server that drowns."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import statistics
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from enginebench.dialects import OpenAIChat, OpenAICompletions
from enginebench.loadgen import LoadResult, LoadSpec, Progress, Target, WireRequest, run_load

StartFake = Callable[..., Target]
FAST = ("--ttft-ms", "5", "--itl-ms", "1")
MS = 1_000_000


def wire(count: int, *, tokens: int = 4, due_ms: Callable[[int], float] | None = None) -> list[WireRequest]:
    """`count` requests, due at due_ms(i) or whenever a stream is free."""
    spoken = OpenAICompletions()
    out = []
    for i in range(count):
        body = spoken.body(model="fake", prompt=f"prompt {i}", output_tokens=tokens, temperature=0.0, seed=None, extra={})
        due_ns = None if due_ms is None else round(due_ms(i) * MS)
        out.append(WireRequest(i, spoken.path, json.dumps(body).encode(), 2, tokens, due_ns=due_ns))
    return out


def spec(target: Target, requests: list[WireRequest], concurrency: int = 0, **other: object) -> LoadSpec:
    return replace(LoadSpec(target, requests, concurrency, OpenAICompletions(), 10.0), **other)


def outcomes(result: LoadResult) -> set[str]:
    return {sample.outcome for sample in result.samples}


@pytest.mark.clock
def test_an_open_loop_keeps_its_schedule_whatever_the_server_does(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake("--ttft-ms", "200", "--itl-ms", "5"), wire(40, due_ms=lambda i: 10 * i)))
    assert outcomes(result) == {"ok"}
    due = [s.due_ns for s in result.samples]
    assert [round((b - a) / MS) for a, b in pairwise(due)] == [10] * 39, "an absolute grid, not a sum of sleeps"
    delays = sorted((s.sent_ns - s.due_ns) / MS for s in result.samples)
    assert delays[0] >= 0
    assert statistics.median(delays) < 2
    assert result.client.wanted_rate == pytest.approx(100, rel=0.001)
    assert result.client.achieved_rate == pytest.approx(100, rel=0.2)
    assert result.client.achieved_concurrency > 10, "twenty requests are in flight at once; nothing waited for an answer"


@pytest.mark.clock
def test_a_limit_makes_due_requests_wait_and_the_delay_shows_it(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake("--ttft-ms", "50", "--itl-ms", "1"), wire(8, due_ms=float(0).__mul__), concurrency=2))
    assert outcomes(result) == {"ok"}
    delays = [(s.sent_ns - s.due_ns) / MS for s in result.samples]
    assert max(delays[:2]) < 40
    assert min(delays[-2:]) > 140, "the last two waited for three rounds"
    edges = sorted([(s.sent_ns, 1) for s in result.samples] + [(s.end_ns, -1) for s in result.samples])
    in_flight = [sum(step for _, step in edges[: i + 1]) for i in range(len(edges))]
    assert max(in_flight) == 2


def test_a_limit_holds_when_everything_is_due_at_once(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake("--ttft-ms", "50", "--itl-ms", "1"), wire(100, due_ms=lambda i: 1 + i / 50), concurrency=20))
    assert outcomes(result) == {"ok"}
    edges = sorted([(s.sent_ns, 1) for s in result.samples] + [(s.end_ns, -1) for s in result.samples])
    assert max(itertools.accumulate(step for _, step in edges)) == 20


@pytest.mark.parametrize("concurrency", [0, 8])
def test_an_open_loop_against_a_dead_port_ends_at_once(concurrency: int) -> None:
    result = run_load(spec(Target("127.0.0.1", 9), wire(40, due_ms=lambda i: i), concurrency=concurrency))
    assert [s.outcome for s in result.samples] == ["connect"] * 40
    assert result.client.wanted_rate == pytest.approx(1000, rel=0.01)
    assert result.client.achieved_rate is None


def test_a_pause_in_the_schedule_is_no_silence_of_the_server(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake(*FAST), wire(2, due_ms=lambda i: 1500 * i), timeout_s=0.7))
    assert (outcomes(result), result.stopped) == ({"ok"}, None)


def test_a_server_that_refuses_everything_is_not_silent(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake("--http-error", "429"), wire(60, due_ms=lambda i: 20 * i), timeout_s=0.5))
    assert ([s.outcome for s in result.samples], result.stopped) == (["http_status"] * 60, None)


@pytest.mark.clock
def test_what_was_due_in_time_is_sent_even_if_it_had_to_wait(start_fake: StartFake) -> None:
    """One at a time takes 40 ms each; ten are due within 50 ms."""
    slow = start_fake("--ttft-ms", "36", "--itl-ms", "1")
    result = run_load(spec(slow, wire(20, due_ms=lambda i: 5 * i), concurrency=1, duration_ns=49 * MS))
    assert (len(result.samples), outcomes(result), result.unsent) == (10, {"ok"}, 10)


@pytest.mark.clock
def test_a_ramp_starts_the_streams_one_after_another(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake("--ttft-ms", "300"), wire(5), concurrency=5, ramp_ns=200 * MS))
    starts = [(s.sent_ns - result.window_start_ns) / MS for s in result.samples]
    assert starts == pytest.approx([0, 40, 80, 120, 160], abs=20)


@pytest.mark.clock
def test_a_duration_ends_a_closed_loop_and_lets_what_is_in_flight_finish(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake("--ttft-ms", "40", "--itl-ms", "1"), wire(1000), concurrency=4, duration_ns=300 * MS))
    assert outcomes(result) == {"ok"}
    assert result.stopped is None
    assert result.unsent == 1000 - len(result.samples) > 900
    assert max(s.sent_ns for s in result.samples) - result.window_start_ns < 310 * MS
    assert {s.index for s in result.samples} == set(range(len(result.samples)))


def test_a_duration_ends_an_open_loop(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake(*FAST), wire(100, due_ms=lambda i: 20 * i), duration_ns=310 * MS))
    assert len(result.samples) == 16
    assert (result.unsent, result.stopped) == (84, None)


def conversation(turns: int, count: int, *, think_ns: int = 0, tokens: int = 3) -> list[WireRequest]:
    """Conversations of chat requests whose history holds the answers."""
    chat = OpenAIChat()
    out: list[WireRequest] = []
    for number in range(count):
        for turn in range(turns):
            messages = [{"role": "user", "content": "question 0"}]
            for earlier in range(turn):
                messages += [{"role": "assistant", "content": f"<{earlier}>"}, {"role": "user", "content": f"question {earlier + 1}"}]
            raw = json.dumps(chat.body(model="m", prompt=messages, output_tokens=tokens, temperature=0.0, seed=None, extra={})).encode()
            pieces: list[bytes | int] = []
            for earlier in range(turn):
                before, _, raw = raw.partition(f"<{earlier}>".encode())
                pieces += [before, earlier]
            body = (*pieces, raw) if turn else raw
            out.append(WireRequest(len(out), chat.path, body, 2, tokens, conversation=number, turn=turn, think_ns=think_ns))
    return out


def test_the_turns_of_a_conversation_follow_each_other_with_the_answers_in_them(start_fake: StartFake) -> None:
    """The fake engine counts prompt tokens by words, so the history it was sent shows in its count."""
    requests = conversation(3, 2)
    result = run_load(replace(spec(start_fake(*FAST), requests, concurrency=2), dialect=OpenAIChat(), keep_text=True))
    assert outcomes(result) == {"ok"}
    assert [(s.conversation, s.turn) for s in result.samples] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for first, second, third in (result.samples[:3], result.samples[3:]):
        assert first.end_ns == second.due_ns <= second.sent_ns < second.end_ns == third.due_ns
        words = [len((s.text or "").split()) for s in (first, second)]
        assert words == [3, 3]
        # each turn adds two messages: an answer of 3 words, a question of 2, and the words of the JSON around them
        grown = [b.input_tokens - a.input_tokens for a, b in pairwise((first, second, third)) if a.input_tokens and b.input_tokens]
        assert len(grown) == 2
        assert abs(grown[0] - grown[1]) <= 1
        assert grown[0] > 5


@pytest.mark.clock
def test_a_user_thinks_before_the_next_turn(start_fake: StartFake) -> None:
    result = run_load(replace(spec(start_fake(*FAST), conversation(2, 1, think_ns=80 * MS), concurrency=1), dialect=OpenAIChat()))
    first, second = result.samples
    assert second.due_ns - first.end_ns == 80 * MS
    assert 0 <= second.sent_ns - second.due_ns < 20 * MS
    assert first.text is None, "kept only for the next turn"


def test_what_follows_a_failed_turn_is_not_sent(start_fake: StartFake) -> None:
    result = run_load(replace(spec(start_fake(*FAST, "--http-error", "500"), conversation(3, 4), concurrency=2), dialect=OpenAIChat()))
    assert [(s.turn, s.outcome) for s in result.samples] == [(0, "http_status")] * 4
    assert result.unsent == 8


def test_a_server_that_can_never_keep_up_is_found_out_early(start_fake: StartFake) -> None:
    """One slot of 50 ms serves 20 requests/s; 60 arrive."""
    slow = start_fake("--slots", "1", "--ttft-ms", "40", "--itl-ms", "5")
    result = run_load(spec(slow, wire(3000, tokens=3, due_ms=lambda i: 1000 / 60 * i), dispersion=1.0))
    assert result.saturated
    assert "requests/s arrived" in (result.stopped or "")
    assert result.unsent > 1500
    assert outcomes(result) == {"ok", "cancelled"}


@pytest.mark.clock
def test_a_server_that_keeps_up_is_left_alone(start_fake: StartFake) -> None:
    quick = start_fake("--slots", "4", "--ttft-ms", "20", "--itl-ms", "2")
    result = run_load(spec(quick, wire(600, tokens=3, due_ms=lambda i: 10 * i), dispersion=1.0))
    assert (result.saturated, result.stopped, result.unsent) == (False, None, 0)


@pytest.mark.clock
@pytest.mark.parametrize("due_ms", [None, lambda i: 5.0 * i])
def test_two_client_processes_send_the_same_load(start_fake: StartFake, due_ms: Callable[[int], float] | None) -> None:
    seen: list[Progress] = []
    requests = wire(60, due_ms=due_ms)
    result = run_load(spec(start_fake("--ttft-ms", "40", "--itl-ms", "2"), requests, 0 if due_ms else 6), seen.append, processes=2)
    assert [s.index for s in result.samples] == list(range(60))
    assert outcomes(result) == {"ok"}
    assert result.client.processes == 2
    assert sum(len(s.event_ns) for s in result.samples) == 60 * 4
    assert all(p.requests <= 60 for p in seen)
    if due_ms is None:
        assert 4 < result.client.achieved_concurrency <= 6
    else:
        assert result.client.wanted_rate == pytest.approx(200, rel=0.001)


def test_ctrl_c_reaches_every_client_process(start_fake: StartFake) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(progress: Progress) -> None:
        if progress.ended >= 4:
            os.kill(os.getpid(), signal.SIGINT)

    result = run_load(spec(start_fake("--ttft-ms", "60", "--itl-ms", "5"), wire(500), 4), press, processes=2)
    assert result.stopped == "interrupted"
    assert outcomes(result) == {"ok", "cancelled"}
    assert result.unsent == 500 - len(result.samples) > 400


def test_a_failing_progress_callback_ends_every_client_process(start_fake: StartFake) -> None:
    def broken(progress: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_load(spec(start_fake("--ttft-ms", "60000"), wire(4), 2), broken, processes=2)


def test_an_open_loop_without_due_times_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        spec(Target("127.0.0.1", 9), wire(1))


@pytest.mark.clock
def test_two_client_processes_find_out_together_that_a_server_cannot_keep_up(start_fake: StartFake) -> None:
    slow = start_fake("--slots", "1", "--ttft-ms", "40", "--itl-ms", "5")
    requests = wire(3000, tokens=3, due_ms=lambda i: 1000 / 60 * i)
    result = run_load(spec(slow, requests, dispersion=1.0), processes=2)
    assert result.saturated
    said = re.match(r"([0-9.]+) requests/s arrived", result.stopped or "")
    assert said is not None, "both say the same, and not that they were interrupted"
    assert float(said[1]) == pytest.approx(60, rel=0.2), "of both, and not of one"


@pytest.mark.clock
def test_streams_of_three_client_processes_start_in_turns(start_fake: StartFake) -> None:
    result = run_load(spec(start_fake("--ttft-ms", "1500", "--itl-ms", "1"), wire(7), 7, ramp_ns=700_000_000), processes=3)
    starts = sorted(s.sent_ns for s in result.samples)
    gaps = [(b - a) / 1e6 for a, b in pairwise(starts)]
    assert all(40 < gap < 160 for gap in gaps), f"{gaps}: a tenth of a second from one to the next, and not two at once"


@pytest.mark.clock
def test_requests_in_flight_count_from_when_all_streams_run(start_fake: StartFake) -> None:
    """Those that started first have sent many when the last one starts."""
    result = run_load(spec(start_fake("--ttft-ms", "20", "--itl-ms", "1"), wire(200), 4, ramp_ns=500_000_000))
    assert result.client.achieved_concurrency > 3.8


def session(waits: list[tuple[tuple[int, ...], float]], *, tokens: int = 4) -> list[WireRequest]:
    """Requests of one conversation: what each waits for, and for how many ms after that."""
    plain = wire(len(waits), tokens=tokens, due_ms=lambda _: 0)
    return [
        replace(plain[i], conversation=0, turn=i, after=after, think_ns=round(ms * MS), due_ns=None if after else 0)
        for i, (after, ms) in enumerate(waits)
    ]


@pytest.mark.clock
@pytest.mark.parametrize("processes", [1, 2])
def test_branches_run_side_by_side_and_are_joined(start_fake: StartFake, processes: int) -> None:
    requests = session([((), 0), ((0,), 20), ((0,), 60), ((1, 2), 40)])
    result = run_load(spec(start_fake("--ttft-ms", "50", "--itl-ms", "1"), requests), processes=processes)
    assert [s.outcome for s in result.samples] == ["ok"] * 4
    first, one, two, last = result.samples
    assert [round((s.due_ns - first.end_ns) / MS) for s in (one, two)] == [20, 60]
    assert two.sent_ns < one.end_ns, "both branches are in flight at once"
    assert round((last.due_ns - max(one.end_ns, two.end_ns)) / MS) == 40
    assert all(0 <= s.sent_ns - s.due_ns < 20 * MS for s in result.samples)


def test_what_waits_for_a_failed_request_is_not_sent(start_fake: StartFake) -> None:
    requests = session([((), 0), ((0,), 1), ((1,), 1), ((2,), 0)])
    result = run_load(spec(start_fake(*FAST, "--cut-after", "2"), requests))
    assert [s.outcome for s in result.samples] == ["cut"]
    assert result.unsent == 3
    assert result.stopped is None


@pytest.mark.clock
def test_a_turn_is_not_sent_before_its_own_time(start_fake: StartFake) -> None:
    first, second = session([((), 0), ((0,), 0)])
    result = run_load(spec(start_fake(*FAST), [first, replace(second, due_ns=150 * MS)]))
    assert round((result.samples[1].due_ns - result.samples[0].due_ns) / MS) == 150


def test_a_duration_ends_sessions_as_well(start_fake: StartFake) -> None:
    requests = session([((), 0), ((0,), 5000)])
    result = run_load(spec(start_fake(*FAST), requests, duration_ns=100 * MS))
    assert (len(result.samples), result.unsent, result.stopped) == (1, 1, None)
