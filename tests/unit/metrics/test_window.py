"""The window is where a simulated server is steady: found where there is one, refused where there is none, never on too little."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from enginebench.domain import ClosedLoop, Load, OpenLoop, SteppedLoop, TraceReplay
from enginebench.metrics.trend import settled, trend
from enginebench.metrics.window import FEWEST_BATCHES, phase_span, steady_window
from enginebench.records.samples import Samples
from enginebench.records.window import Window
from enginebench.workload import natural_count
from enginebench.workload.arrivals import due_times
from hypothesis import given, settings
from hypothesis import strategies as st

BASE = 10**15
OPEN = OpenLoop(rate=10)


def built(sent: np.ndarray, begun: np.ndarray, end: np.ndarray, tokens: np.ndarray) -> Samples:
    """Requests with times in s: a fifth of the service is prefill, then tokens come evenly, one per event."""
    n, nothing, unknown = len(sent), np.zeros(len(sent), np.int64), np.full(len(sent), -1)

    def ns(seconds: np.ndarray) -> np.ndarray:
        return (np.asarray(seconds) * 1e9).astype(np.int64) + BASE

    events = [np.linspace(b + 0.2 * (e - b), e, k) for b, e, k in zip(begun, end, tokens, strict=True)]
    return Samples(
        index=np.arange(n), asked_input_tokens=nothing + 10, asked_output_tokens=tokens, due_ns=ns(sent), sent_ns=ns(sent),
        headers_ns=nothing, end_ns=ns(end), input_tokens=nothing + 10, output_tokens=tokens, cached_tokens=unknown,
        status_code=nothing + 200, outcome=("ok",) * n, error=(None,) * n, finish_reason=(None,) * n, event_ns=ns(np.concatenate(events)),
        event_tokens=np.full(tokens.sum(), -1, np.int32), event_chars=np.ones(tokens.sum(), np.int32),
        offsets=np.concatenate(([0], np.cumsum(tokens))), server_timings=(None,) * n, first_answer_ns=nothing, local_tokens=unknown,
        reasoning_tokens=unknown, conversation=unknown, turn=nothing,
    )  # fmt: skip


def queue(
    seed: int, servers: int = 1000, n: int = 400, rate: Callable[[float], float] = lambda _: 10.0, due: np.ndarray | None = None
) -> Samples:
    """Poisson arrivals or given ones, service of 1 s on average (lognormal), as many at a time as there are servers."""
    rng = np.random.default_rng(seed)
    sent, at = np.empty(n) if due is None else due, 0.0
    for i in range(n if due is None else 0):
        at += rng.exponential(1 / rate(at))
        sent[i] = at
    service = rng.lognormal(-0.125, 0.5, n)
    free = [0.0] * servers
    begun = np.empty(n)
    for i in range(n):
        begun[i] = max(sent[i], heapq.heappop(free))
        heapq.heappush(free, begun[i] + service[i])
    return built(sent, begun, begun + service, np.maximum(2, service * 20).astype(int))


def closed(
    seed: int = 0, streams: int = 16, n: int = 400, jitter: float = 0.1, speed: Callable[[float], float] = lambda _: 1.0, ramp: float = 0
) -> Samples:
    """A closed loop of requests of 1 s at speed 1; without jitter all streams are in step."""
    rng = np.random.default_rng(seed)
    free = [i * ramp / streams for i in range(streams)]
    sent, end = np.empty(n), np.empty(n)
    for i in range(n):
        sent[i] = heapq.heappop(free) + rng.uniform(0, 1e-3)
        end[i] = sent[i] + (1 + jitter * rng.uniform(-1, 1)) / speed(sent[i])
        heapq.heappush(free, end[i])
    return built(sent, sent, end, np.full(n, 20))


def whole(s: Samples) -> tuple[int, int]:
    return int(s.sent_ns.min()), int(s.end_ns.max())


# -- open loops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [1000, 14], ids=["no queue", "71 % busy"])
def test_a_stationary_open_loop_is_steady(servers: int) -> None:
    states = Counter(steady_window(queue(seed, servers), OPEN).state for seed in range(100))
    assert states["steady"] >= 95, states


@pytest.mark.parametrize("servers", [5, 8])
def test_a_queue_that_grows_is_not_steady(servers: int) -> None:
    found = [steady_window(queue(seed, servers), OPEN) for seed in range(20)]
    assert Counter(window.state for window in found)["unsteady"] >= 19
    assert all("in-flight requests rose" in window.why for window in found if window.state == "unsteady")


def test_a_rate_that_rises_is_not_steady() -> None:
    found = [steady_window(queue(seed, rate=lambda at: 5 + at / 4), OPEN) for seed in range(20)]
    assert Counter(window.state for window in found)["unsteady"] >= 18


def test_a_load_that_is_meant_to_change_is_whole_and_not_called_unsteady() -> None:
    s = queue(0, rate=lambda at: 5 + at / 4)
    assert steady_window(s, OPEN).state == "unsteady"
    for load in (OpenLoop(rate=5, rate_to=15), TraceReplay(trace="t")):
        window = steady_window(s, load)
        assert (window.start_ns, window.end_ns, window.head_s, window.tail_s) == (*whole(s), 0, 0)
        assert window.state == "changing by design"
    assert "5 to 15 req/s" in steady_window(s, OpenLoop(rate=5, rate_to=15)).why


def test_a_rate_that_ends_where_it_began_is_meant_to_be_steady() -> None:
    assert steady_window(queue(0), OpenLoop(rate=10, rate_to=10)) == steady_window(queue(0), OPEN)


# -- closed loops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jitter", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("streams", "n"), [(1, 40), (4, 60), (16, 400), (64, 1300)])
def test_a_closed_loop_is_steady_even_in_step(jitter: float, streams: int, n: int) -> None:
    found = [steady_window(closed(seed, streams, n, jitter), ClosedLoop(concurrency=streams)) for seed in range(20)]
    states = Counter(window.state for window in found)
    assert states["unsteady"] <= 1
    assert states["steady"] >= 18


def test_a_load_in_step_is_kept_whole() -> None:
    s = closed(jitter=0)
    window = steady_window(s, ClosedLoop(concurrency=16))
    assert window.head_s == 0
    assert window.tail_s < 0.05


@pytest.mark.parametrize("at", [15.0, 20.0])
def test_a_step_in_the_second_half_is_not_steady(at: float) -> None:
    found = [steady_window(closed(seed, speed=lambda t: 1 if t < at else 0.6), ClosedLoop(concurrency=16)) for seed in range(20)]
    assert all(window.state != "steady" for window in found)
    assert Counter(window.state for window in found)["unsteady"] >= 14


def test_a_step_in_the_first_half_is_cut_off() -> None:
    window = steady_window(closed(speed=lambda t: 1 if t < 8 else 0.6), ClosedLoop(concurrency=16))
    assert window.state == "steady"
    assert 6 < window.head_s < 12


def test_a_slow_start_is_cut_off_and_said_to_be() -> None:
    s = closed(n=800, speed=lambda t: 0.4 if t < 5 else 1)
    window = steady_window(s, ClosedLoop(concurrency=16))
    assert window.state == "steady"
    assert 4 < window.head_s < 10
    assert window.start_ns == whole(s)[0] + round(window.head_s * 1e9)


def test_a_drift_is_not_steady_and_a_small_one_is() -> None:
    assert steady_window(closed(speed=lambda t: 1 - 0.3 * t / 25), ClosedLoop(concurrency=16)).state == "unsteady"
    assert steady_window(closed(speed=lambda t: 1 - 0.05 * t / 25), ClosedLoop(concurrency=16)).state == "steady"


def test_a_drift_whose_begin_is_cut_off_as_a_warm_up_is_still_one() -> None:
    """Slower over most of the load, to a third, with requests of very unequal length. A trend at p < 0.01 alone misses 5 of these 50."""
    slower = [closed(seed, streams=4, n=120, jitter=0.9, speed=lambda t: 1 / (1 + 2 * min(1, t / 60))) for seed in range(50)]
    assert sum(steady_window(s, ClosedLoop(concurrency=4)).state == "unsteady" for s in slower) >= 48


def test_a_warm_up_that_has_ended_is_none() -> None:
    """The same with a warm-up that is cut off: what follows it is as seldom called unsteady as before."""
    warmed = [closed(seed, streams=4, n=120, jitter=0.1, speed=lambda t: 1 - 0.5 * float(np.exp(-t / 3))) for seed in range(100)]
    assert sum(steady_window(s, ClosedLoop(concurrency=4)).state == "unsteady" for s in warmed) <= 3


def test_streams_that_start_one_after_another_are_waited_for_and_the_last_ones_end_is_left_out() -> None:
    s = closed(ramp=3)
    window = steady_window(s, ClosedLoop(concurrency=16, ramp_s=3))
    assert window.head_s >= 2.8
    assert window.tail_s > 0.5


# -- too little ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("streams", "n"), [(1, 1), (1, 8), (4, 8), (4, 16), (16, 16), (16, 8)])
def test_a_small_cell_is_whole_and_not_judged(streams: int, n: int) -> None:
    s = closed(streams=streams, n=n, speed=lambda t: 1 / (1 + t))
    window = steady_window(s, ClosedLoop(concurrency=streams))
    assert (window.start_ns, window.end_ns) == whole(s)
    assert (window.state, window.head_s, window.tail_s) == ("too short to tell", 0, 0)
    assert str(FEWEST_BATCHES) in window.why


def test_a_batch_sent_at_once_is_whole() -> None:
    s = built(np.zeros(64), np.zeros(64), np.linspace(1, 9, 64), np.full(64, 5))
    window = steady_window(s, ClosedLoop(concurrency=8))
    assert (window.start_ns, window.end_ns, window.state) == (*whole(s), "too short to tell")


@pytest.mark.parametrize("step_s", [-3600.0, -2.0, -0.2])
def test_ends_before_their_starts_are_an_answer_too(step_s: float) -> None:
    """As samples may be whose wall clock was set between the kernel's stamp and its conversion."""
    for load, sound in ((ClosedLoop(concurrency=16), closed()), (OPEN, queue(1))):
        late = sound.sent_ns > np.median(sound.sent_ns)
        s = replace(sound, end_ns=sound.end_ns + np.where(late, int(step_s * 1e9), 0), event_ns=sound.event_ns + int(step_s * 1e9))
        window = steady_window(s, load)
        assert window.state in {"steady", "unsteady", "too short to tell"}


def test_nothing_sent_has_no_window() -> None:
    empty = Samples.collect([])
    assert steady_window(empty, ClosedLoop()) == Window(0, 0, "too short to tell", "nothing was sent")


def test_a_conversation_counts_as_one() -> None:
    """24 conversations of 4 turns in 4 streams are 6 after one another, however many requests they are."""
    s = closed(streams=4, n=96, jitter=0)
    talk = s.conversation + 1 + np.arange(96) % 4 + np.arange(96) // 16 * 4
    talking = Samples(**{**{name: getattr(s, name) for name in Samples.__dataclass_fields__}, "conversation": talk})
    assert steady_window(talking, ClosedLoop(concurrency=4, turns=4)).state == "too short to tell"
    assert steady_window(s, ClosedLoop(concurrency=4)).state == "steady"


def loads() -> Iterator[tuple[Samples, Load]]:
    for seed in range(6):
        yield queue(seed, servers=6 + 2 * seed, n=200), OPEN
        yield closed(seed, n=60 * (seed + 1), ramp=seed, speed=lambda t: 1 / (1 + t / 10)), ClosedLoop(concurrency=16)


@pytest.mark.parametrize(("s", "load"), list(loads()))
def test_a_window_lies_within_the_load_and_keeps_half_of_it(s: Samples, load: Load) -> None:
    window, (first, last) = steady_window(s, load), whole(s)
    assert first <= window.start_ns < window.end_ns <= last
    assert 2 * window.length_s >= (last - first) / 1e9
    assert window.head_s + window.length_s + window.tail_s == pytest.approx((last - first) / 1e9)


def test_the_order_of_the_requests_does_not_matter() -> None:
    s = queue(0, n=100)
    order = np.random.default_rng(0).permutation(len(s))
    kept = [s.event_ns[s.offsets[i] : s.offsets[i + 1]] for i in order]
    rows = ("due_ns", "sent_ns", "end_ns", "output_tokens")
    moved = {name: getattr(s, name)[order] for name in rows}
    offsets = np.concatenate(([0], np.cumsum(s.events[order])))
    fields = {name: getattr(s, name) for name in Samples.__dataclass_fields__}
    shuffled = Samples(**{**fields, **moved, "event_ns": np.concatenate(kept), "offsets": offsets})
    assert steady_window(shuffled, OPEN) == steady_window(s, OPEN)


# -- series --------------------------------------------------------------------------------------------------------------


def test_a_transient_is_cut_off_at_either_end_and_noise_is_not() -> None:
    noise = np.random.default_rng(0).normal(100, 1, 40)
    assert settled(noise, 20, 10, 20) == (0, 0)
    assert settled(np.concatenate(([20, 60, 90], noise)), 20, 10, 20) == (3, 0)
    assert settled(np.concatenate((noise, [60, 20])), 20, 10, 20) == (0, 2)
    assert settled(np.concatenate(([1.0], np.full(11, 7.1))), 6, 3, 6) == (1, 0)
    assert settled(np.full(12, 7.0), 6, 3, 6) == (0, 0)
    assert settled(np.zeros(12), 6, 3, 6) == (0, 0)


values = st.lists(st.floats(0, 1e6), min_size=8, max_size=40).map(np.array)


@given(values, st.integers(0, 10), st.integers(0, 10))
def test_no_more_is_cut_off_than_may_be(x: np.ndarray, head: int, tail: int) -> None:
    most = len(x) // 2
    found = settled(x, head, tail, most)
    assert 0 <= found[0] <= head
    assert 0 <= found[1] <= tail
    assert sum(found) <= most


@given(values)
def test_a_trend_turned_round_is_as_sure(x: np.ndarray) -> None:
    one, other = trend(x), trend(x[::-1])
    assert one.p == other.p
    assert one.rise == pytest.approx(-other.rise, abs=1e-12 * float(x.max()))  # sums in another order round differently
    assert 0 <= one.p <= 1


def test_a_series_that_only_rises_is_sure_from_six_values() -> None:
    assert trend(np.arange(6.0)).p < 0.01 < trend(np.arange(5.0)).p
    assert trend(np.full(20, 3.0)).p == 1
    assert trend(np.arange(1.0, 10.0)).change == pytest.approx(6 / 5)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_noise_seldom_has_a_trend(seed: int) -> None:
    draws = np.random.default_rng(seed).normal(size=(1000, 20))
    assert np.mean([trend(x).p < 0.01 for x in draws]) < 0.03


@pytest.mark.parametrize("first", [3, 30])
def test_silence_is_not_steady(first: int) -> None:
    """A request that hangs to its time-out, after some good ones: nothing varies less than silence."""
    sent = np.concatenate([np.arange(first) * 0.3, first * 0.3 + np.arange(40) * 2.0])
    s = built(sent, sent, sent + 0.29, np.full(len(sent), 10))
    hung = s.index >= first
    kept = s.offsets[first]
    silent = replace(
        s, end_ns=np.where(hung, s.sent_ns + 1_990_000_000, s.end_ns), event_ns=s.event_ns[:kept], event_tokens=s.event_tokens[:kept],
        event_chars=s.event_chars[:kept], offsets=np.minimum(s.offsets, kept), output_tokens=np.where(hung, -1, s.output_tokens),
        outcome=tuple("timeout" if each else "ok" for each in hung),
    )  # fmt: skip
    window = steady_window(silent, ClosedLoop(concurrency=1, output_tokens=10))
    assert window.state == "unsteady", window
    assert "213" not in window.why


def stepped(seed: int, servers: int, first: float, second: float) -> tuple[SteppedLoop, Samples]:
    """30 s at one rate, 30 s at another, with the due times of the load itself."""
    load = SteppedLoop(steps=f"{first:g}@30, {second:g}@30", requests=0, seed=seed)
    due = due_times(load, natural_count(load, Path()) or 0)
    return load, queue(seed, servers, len(due), due=due)


def test_each_phase_of_a_stepped_load_has_its_own_window() -> None:
    """Two rates that the servers can keep up with: as a whole 'changing by design', each step by itself steady."""
    steady = 0
    for seed in range(10):
        load, s = stepped(seed, 40, 6, 14)
        assert steady_window(s, load).state == "changing by design"
        for phase, start in zip(load.phases(), (0, 30), strict=True):
            window, span = steady_window(s, load, phase), (BASE + start * 10**9, BASE + (start + 30) * 10**9)
            assert phase_span(s, load, phase) == pytest.approx(span, abs=2)
            assert span[0] - 2 <= window.start_ns < window.end_ns <= span[1] + 2
            assert window.head_s + window.tail_s == pytest.approx(30 - window.length_s)
            steady += window.state == "steady"
    assert steady >= 17


def test_a_step_beyond_what_the_servers_can_do_is_not_steady() -> None:
    found = []
    for seed in range(10):
        load, s = stepped(seed, 8, 4, 14)
        found.append(steady_window(s, load, load.phases()[1]).state)
    assert found.count("unsteady") >= 8


def test_the_one_phase_of_another_load_is_the_whole_load() -> None:
    for load, s in ((OPEN, queue(0)), (ClosedLoop(concurrency=16), closed())):
        assert [steady_window(s, load, phase) for phase in load.phases()] == [steady_window(s, load)]


def test_a_phase_in_which_nothing_was_sent_has_no_window() -> None:
    load, s = stepped(0, 8, 4, 14)
    window = steady_window(s, load, replace(load.phases()[0], start_s=100.0, end_s=130.0))
    assert (window.state, window.why, window.length_s) == ("too short to tell", "nothing was sent", 30.0)
