"""Each check fires on the cell that deserves it, and a good cell passes all of them."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from enginebench.domain import Cell, Deployment, Load, Runtime, Sample
from enginebench.metrics.window import steady_window
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord
from enginebench.records.window import Window
from enginebench.validity import Check, Reason, Verdict, withheld
from enginebench.validity import judge as judge_in

MS = 1_000_000


OPEN = Load(rate=6.7, concurrency=0, output_tokens=20, input_tokens=10)


def cell(
    *, load: Load | None = None, identity: str = "proven", client: Mapping[str, float] | None = None, length: str = "exact",
    runtime: Runtime = "process", stopped: str | None = None, unsent: int = 0, saturated: str | None = None,
    limit: Mapping[str, float] | None = None, exact: bool = True,
) -> CellRecord:  # fmt: skip
    made = Cell(Deployment("fake", "m", "none", "m", runtime=runtime), load or Load(concurrency=2, output_tokens=20, input_tokens=10))
    return CellRecord(
        made.id, made.launch_id, made.deployment, made.load, 0, "ok", identity=identity,
        client={"lag_p99_ms": 0.1, "cpu_fraction": 0.2, **(client or {})}, length_control=length,
        stopped=stopped, unsent=unsent, saturated=saturated, client_limit=limit or {}, exact_prompts=exact,
    )  # fmt: skip


def judge(record: CellRecord, data: Samples) -> tuple[Verdict, tuple[Reason, ...]]:
    window = steady_window(data, record.load)
    return judge_in(record, data.within(window), window)


def samples(
    n: int = 16,
    *,
    tokens: int | None = 20,
    inputs: int = 10,
    cached: int = 0,
    gap_ms: float = 10,
    outcomes: tuple[str, ...] = (),
    pieces: int = 20,
    late_ms: float = 0,
    per_event: int = -1,
    local: int | None = None,
    turns: int = 1,
) -> Samples:
    made = []
    for i in range(n):
        start = 1_000 * MS + i // 2 * 300 * MS
        events = array("q", [int(start + 50 * MS + j * gap_ms * MS) for j in range(pieces)])
        made.append(
            Sample(
                i, 10, 20, due_ns=int(start - i * late_ms * MS), sent_ns=start, end_ns=events[-1], event_ns=events,
                event_tokens=array("i", [per_event] * pieces), local_tokens=local,
                turn=i % turns, conversation=i // turns if turns > 1 else -1,
                event_chars=array("i", [1] * pieces), outcome=outcomes[i] if i < len(outcomes) else "ok", input_tokens=inputs,
                output_tokens=tokens, cached_tokens=cached,
            )
        )  # fmt: skip
    return Samples.collect(made)


def test_a_good_cell_is_valid() -> None:
    assert judge(cell(), samples()) == ("valid", ())


@pytest.mark.parametrize(
    ("record", "data", "check", "verdict"),
    [
        (cell(client={"lag_p99_ms": 6.0}), samples(), Check.CLIENT_BOUND, "suspect"),
        (cell(client={"lag_p50_ms": 6.0, "lag_p99_ms": 40.0}), samples(), Check.CLIENT_BOUND, "invalid"),
        (cell(client={"lag_p99_ms": 14.0, "stamps": "kernel"}), samples(), Check.CLIENT_BOUND, "suspect"),
        (cell(client={"lag_p50_ms": 14.0, "lag_p99_ms": 40.0, "stamps": "kernel"}), samples(), Check.CLIENT_BOUND, "invalid"),
        (cell(client={"cpu_fraction": 0.95}), samples(), Check.CLIENT_BOUND, "suspect"),
        (cell(client={"achieved_concurrency": 1.7}), samples(), Check.CLIENT_BOUND, "suspect"),
        (cell(), samples(tokens=19), Check.LENGTH_MISMATCH, "suspect"),
        (cell(), samples(tokens=5), Check.LENGTH_MISMATCH, "invalid"),
        (cell(length="cap"), samples(tokens=5), Check.LENGTH_MISMATCH, "suspect"),
        (cell(length="cap"), samples(tokens=23), Check.LENGTH_MISMATCH, "invalid"),
        (cell(), samples(gap_ms=0.25), Check.BURST_DELIVERY, "suspect"),
        (cell(), samples(inputs=13), Check.LENGTH_MISMATCH, "invalid"),
        (cell(), samples(tokens=None), Check.NO_COUNTS, "invalid"),
        (cell(), samples(cached=9), Check.CACHE_HITS, "invalid"),
        (cell(), samples(gap_ms=0.01), Check.BURST_DELIVERY, "suspect"),
        (cell(), samples(outcomes=("cut",) * 3), Check.FAILED_REQUESTS, "invalid"),
        (cell(identity="no listener"), samples(), Check.UNPROVEN_SERVER, "suspect"),
        (cell(), samples(pieces=1), Check.FEW_EVENTS, "suspect"),
        (cell(), samples(pieces=2), Check.FEW_EVENTS, "suspect"),
        (cell(stopped="timeout", unsent=3), samples(), Check.ENDED_EARLY, "invalid"),
        (cell(unsent=3), samples(), Check.ENDED_EARLY, "invalid"),
        (cell(), samples(3), Check.FEW_REQUESTS, "suspect"),
        (cell(), samples(2), Check.SHORT_WINDOW, "suspect"),
        (cell(saturated="400 waited", stopped="400 waited", unsent=3), samples(), Check.OVERSATURATED, "invalid"),
        (cell(limit={"events_per_s": 130.0, "streams": 8.0}), samples(), Check.CLIENT_BOUND, "suspect"),
        (cell(limit={"events_per_s": 1e6, "streams": 1.0}), samples(), Check.CLIENT_BOUND, "suspect"),
        (cell(), samples(per_event=2), Check.COUNTS_DISAGREE, "suspect"),
        (cell(), samples(local=15), Check.COUNTS_DISAGREE, "suspect"),
        (replace(cell(), token_check={"server": 120, "tokenizer": 100, "requests": 9}), samples(), Check.COUNTS_DISAGREE, "suspect"),
        (cell(load=OPEN), samples(40, late_ms=1), Check.RATE_NOT_ACHIEVED, "suspect"),
        (cell(load=OPEN), samples(40, late_ms=50), Check.RATE_NOT_ACHIEVED, "invalid"),
        (cell(load=OPEN), samples(19), Check.FEW_REQUESTS, "suspect"),
    ],
)
def test_each_check_fires(record: CellRecord, data: Samples, check: Check, verdict: str) -> None:
    found, reasons = judge(record, data)
    assert check in {reason.check for reason in reasons}
    assert found == verdict
    assert all(reason.check.value in str(reason) for reason in reasons)


def test_requests_in_flight_are_judged_only_where_there_were_enough_and_no_pauses() -> None:
    short = {"achieved_concurrency": 1.7}
    assert judge(cell(client={"achieved_concurrency": 1.9}), samples())[0] == "valid"
    assert Check.CLIENT_BOUND not in checks(cell(client=short), samples(n=5))
    paused = Load(concurrency=2, output_tokens=20, input_tokens=10, turns=2, think_s=1.0)
    assert Check.CLIENT_BOUND not in checks(cell(client=short, load=paused), samples())
    assert Check.CLIENT_BOUND not in checks(cell(client=short, load=Load(rate=3.0, output_tokens=20, input_tokens=10)), samples())


def test_a_late_read_of_what_the_kernel_stamped_is_right() -> None:
    assert judge(cell(client={"lag_p50_ms": 6.0, "lag_p99_ms": 8.0, "stamps": "kernel"}), samples()) == ("valid", ())


@pytest.mark.parametrize(("server", "random_weights"), [(108, False), (150, True)])
def test_a_tokenizer_may_differ_a_little_and_from_random_weights_much(server: int, random_weights: bool) -> None:
    record = replace(cell(), token_check={"server": server, "tokenizer": 100, "requests": 9}, random_weights=random_weights)
    assert Check.COUNTS_DISAGREE not in checks(record, samples())


def test_bursts_take_the_pace_from_a_cell_but_not_its_throughput() -> None:
    record, data = cell(), samples(gap_ms=0.01)
    verdict, reasons = judge(record, data)
    assert verdict == "suspect"
    assert {"tpot", "itl", "user_throughput"} <= set(withheld(record, reasons))
    assert not {"output_throughput", "e2e", "ttft"} & set(withheld(record, reasons))


@pytest.mark.parametrize(("requests", "gap_ms", "burst"), [(1, 0.01, True), (1, 10, False), (2, 0.01, True)])
def test_a_handful_of_gaps_is_judged_too(requests: int, gap_ms: float, burst: bool) -> None:
    _, reasons = judge(cell(), samples(requests, gap_ms=gap_ms, pieces=4, tokens=20))
    assert (Check.BURST_DELIVERY in {reason.check for reason in reasons}) == burst


def test_a_batch_has_no_latency_for_each_request() -> None:
    assert {"ttft", "e2e", "itl"} <= set(withheld(cell(runtime="in-process"), ()))
    assert withheld(cell(), ()) == {}


def test_one_lost_request_in_many_is_suspect_not_invalid() -> None:
    verdict, reasons = judge(cell(), samples(100, outcomes=("cut",)))
    assert verdict == "suspect"
    assert [reason.check for reason in reasons] == [Check.FAILED_REQUESTS]


def test_cache_hits_are_fine_where_the_scenario_allows_them() -> None:
    allowed = Load(concurrency=2, output_tokens=20, input_tokens=10, prefix_cache="allowed")
    assert judge(cell(load=allowed), samples(cached=9))[0] == "valid"


def checks(record: CellRecord, data: Samples) -> set[Check]:
    return {reason.check for reason in judge(record, data)[1]}


def test_an_open_loop_needs_no_requests_per_stream_and_keeps_its_rate() -> None:
    assert judge(cell(load=OPEN), samples(40)) == ("valid", ())
    capped = Load(rate=6.7, concurrency=512, output_tokens=20, input_tokens=10)
    assert judge(cell(load=capped), samples(40)) == ("valid", ())


def test_a_closed_loop_has_no_rate_to_keep() -> None:
    assert judge(cell(), samples(40, late_ms=50))[0] == "valid"


def test_a_queue_without_bound_takes_the_latencies_but_not_the_throughput() -> None:
    record = cell(saturated="400 waited", stopped="400 waited", unsent=3)
    _, reasons = judge(record, samples())
    assert [reason.check for reason in reasons] == [Check.OVERSATURATED]
    hidden = withheld(record, reasons)
    assert {"ttft", "ttft_due", "e2e", "goodput"} <= set(hidden)
    assert "output_throughput" not in hidden
    assert set(hidden.values()) == {"the queue grew without bound"}


def test_a_duration_ends_a_load_without_having_cut_it_short() -> None:
    timed = Load(concurrency=2, output_tokens=20, input_tokens=10, requests=1000, duration_s=2)
    assert judge(cell(load=timed, unsent=984), samples())[0] == "valid"
    assert Check.ENDED_EARLY in checks(cell(load=timed, unsent=984, stopped="timeout"), samples())


@pytest.mark.parametrize(
    ("load", "unsent", "said"),
    [
        (Load(concurrency=2, requests=0, duration_s=4), 0, "all 16 requests were used up after 2.3 of 4 s"),
        (Load(concurrency=2, requests=20, duration_s=4), 0, "all 16 requests were used up after 2.3 of 4 s"),  # a data set had no more
        (Load(concurrency=2, requests=16, duration_s=4), 0, None),  # as many as were asked for
        (Load(concurrency=2, requests=0, duration_s=4), 1, None),  # there was something to send
        (Load(concurrency=2, requests=0, duration_s=2.5), 0, None),
        (Load(rate=6, concurrency=0, requests=0, duration_s=4), 0, None),
        (Load(concurrency=2, requests=16), 0, None),
    ],
)
def test_a_closed_loop_that_has_nothing_more_to_send_before_its_time_is_over(load: Load, unsent: int, said: str | None) -> None:
    load = replace(load, input_tokens=10, output_tokens=20)
    found = [reason for reason in judge(cell(load=load, unsent=unsent), samples())[1] if reason.check is Check.ENDED_EARLY]
    assert [(reason.severity, reason.detail) for reason in found] == ([("suspect", said)] if said else [])


TALK = Load(concurrency=2, output_tokens=20, input_tokens=10, requests=40, turns=4, prefix_cache="allowed")


def talking(*failed: tuple[int, int], conversations: int = 10, turns: int = 4) -> Samples:
    """Conversations of which some failed at a turn, and went no further."""
    until = dict(failed)
    whole = samples(conversations * turns, turns=turns)
    outcomes = ["cut" if until.get(c) == t else "ok" for c, t in zip(whole.conversation.tolist(), whole.turn.tolist(), strict=True)]
    kept = np.array([t <= until.get(c, turns) for c, t in zip(whole.conversation.tolist(), whole.turn.tolist(), strict=True)])
    offsets = np.concatenate(([0], np.cumsum(whole.events[kept])))
    columns = {name: value[kept] for name, value in vars_of(whole).items() if isinstance(value, np.ndarray) and len(value) == len(whole)}
    events = {name: getattr(whole, name)[np.repeat(kept, whole.events)] for name in ("event_ns", "event_tokens", "event_chars")}
    texts = {name: (None,) * int(kept.sum()) for name in ("error", "finish_reason", "server_timings")}
    ends = tuple(outcome for outcome, so in zip(outcomes, kept, strict=True) if so)
    return Samples(**{**vars_of(whole), **columns, **events, **texts, "offsets": offsets, "outcome": ends})


def test_turns_after_a_failed_one_count_as_failed_and_not_as_never_sent() -> None:
    long = replace(TALK, requests=400)
    (reason,) = judge(cell(load=long, unsent=3), talking((5, 0), conversations=100))[1]
    assert (reason.check, reason.severity) == (Check.FAILED_REQUESTS, "suspect")
    assert reason.detail == "1 of 397 requests failed (cut), so 3 later turns were not sent"
    (reason,) = judge(cell(load=TALK, unsent=3), talking((5, 0)))[1]
    assert (reason.check, reason.severity) == (Check.FAILED_REQUESTS, "invalid"), "4 of 40 turns are more than 5 %, 1 of 37 is less"


def test_turns_that_no_failure_explains_were_never_sent() -> None:
    _, reasons = judge(cell(load=TALK, unsent=5), talking((5, 0)))
    assert "2 of 40 requests were never sent (the load ended early)" in [reason.detail for reason in reasons]
    _, reasons = judge(cell(load=TALK, unsent=3, stopped="timeout"), talking((5, 0)))
    assert "3 of 40 requests were never sent (timeout)" in [reason.detail for reason in reasons]


def test_lost_turns_do_not_hide_that_a_timed_load_had_nothing_more_to_send() -> None:
    timed = replace(TALK, requests=0, duration_s=60)
    details = {reason.detail for reason in judge(cell(load=timed, unsent=3), talking((5, 0)))[1]}
    assert details == {"1 of 37 requests failed (cut)", "all 40 requests were used up after 5.9 of 60 s"}


def test_later_turns_hold_what_was_answered_before() -> None:
    talk = Load(concurrency=2, output_tokens=20, input_tokens=10, turns=2, prefix_cache="allowed")
    both = samples(inputs=10, turns=2)
    grown = Samples(**{**vars_of(both), "input_tokens": both.input_tokens + 30 * both.turn})
    assert Check.LENGTH_MISMATCH not in checks(cell(load=talk), grown)
    assert Check.LENGTH_MISMATCH in checks(cell(), Samples(**{**vars_of(both), "input_tokens": both.input_tokens + 30 * (both.turn == 0)}))


def vars_of(data: Samples) -> dict[str, Any]:
    return {name: getattr(data, name) for name in Samples.__dataclass_fields__}


def test_lengths_are_compared_with_what_each_request_asked_for() -> None:
    drawn = Load(concurrency=2, output_tokens=20, input_tokens="uniform(5,15)")
    assert judge(cell(load=drawn), samples())[0] == "valid"
    assert judge(cell(load=drawn, exact=False), samples(inputs=14))[0] == "valid"
    assert Check.LENGTH_MISMATCH in checks(cell(load=drawn, exact=False), samples(inputs=15))


def test_a_server_that_is_not_steady_is_said_to_be() -> None:
    data = samples(40)
    window = Window(int(data.sent_ns.min()), int(data.end_ns.max()), "unsteady", "output tokens/s fell by 40%")
    verdict, reasons = judge_in(cell(), data.within(window), window)
    assert verdict == "suspect"
    assert [str(reason).partition(";")[0] for reason in reasons] == ["output tokens/s fell by 40%"]


@pytest.mark.parametrize("told", [None, "fast", {}, []])
def test_a_limit_that_is_no_number_is_none(told: object) -> None:
    assert judge(cell(limit={"events_per_s": told, "streams": told}), samples())[0] == "valid"  # type: ignore[dict-item]


def queued(n: int, slots: int, served_s: float, gaps_s: np.ndarray) -> Samples:
    """Requests of one slot each at a first-come first-served server, due one after another."""
    made, free, due = [], [0] * slots, 0
    for i in range(n):
        due += int(gaps_s[i] * 1e9)
        begun = max(due, heapq.heappop(free))
        end = begun + int(served_s * 1e9)
        heapq.heappush(free, end)
        events, counts = array("q", [end - MS, end]), array("i", [-1, -1])
        made.append(Sample(i, 10, 2, due, due, due, end, events, counts, counts, input_tokens=10, output_tokens=2, status_code=200))
    return Samples.collect(made)


RISING = Load(rate=1.0, rate_to=39.0, output_tokens=2, input_tokens=10)


def test_an_open_loop_that_leaves_a_queue_was_too_much() -> None:
    """20 requests/s for 10 s at a server that answers 10."""
    late = queued(200, 1, 0.1, np.full(200, 0.05))
    (reason,) = (each for each in judge(cell(load=RISING), late)[1] if each.check is Check.OVERSATURATED)
    assert "51 requests were open halfway, 101 when the last one was due, and those took 10.1 s more" in str(reason)
    assert Check.OVERSATURATED not in checks(cell(load=RISING), queued(200, 1, 0.04, np.full(200, 0.05)))
    assert Check.OVERSATURATED not in checks(cell(), late), "a closed loop has no queue of ours"


@pytest.mark.parametrize(("slots", "served_s"), [(1, 2.0), (1, 0.5), (4, 4.0), (16, 5.0)])
def test_a_queue_that_wanders_was_not_too_much(slots: int, served_s: float) -> None:
    """Poisson arrivals for two minutes, a server that is busy nine tenths of the time."""
    rate = 0.9 * slots / served_s
    n = int(120 * rate)
    seeds = range(40)
    flagged = sum(
        Check.OVERSATURATED in checks(cell(load=RISING), queued(n, slots, served_s, np.random.default_rng(seed).exponential(1 / rate, n)))
        for seed in seeds
    )
    assert flagged <= 1


@pytest.mark.parametrize(("step_ms", "first_ms", "queue_ms", "burst"), [(40, 8000, 0, False), (1, 20, 3000, False), (1.25, 1300, 0, True)])
def test_steps_of_many_tokens_and_a_queue_are_no_relay(step_ms: float, first_ms: float, queue_ms: float, burst: bool) -> None:
    """Five tokens a step, 0.2 ms apart: speculation after a long prompt, a quick model behind a queue; and what was collected first."""
    made = []
    for i in range(16):
        sent = 100 * i * MS
        begun = sent + int((first_ms + queue_ms * (i % 4)) * MS)
        events = array("q", [begun + int((j // 5 * step_ms + j % 5 * 0.2) * MS) for j in range(65)])
        counts = array("i", [-1] * 65)
        made.append(
            Sample(i, 10, 65, sent, sent, sent, events[-1], events, counts, counts, input_tokens=10, output_tokens=65, status_code=200)
        )
    reasons = judge(cell(load=Load(concurrency=16, output_tokens=65, input_tokens=10)), Samples.collect(made))[1]
    assert any("the others then came" in str(reason) for reason in reasons) == burst


def test_a_tick_more_or_less_is_within_what_was_calibrated() -> None:
    assert Check.CLIENT_BOUND not in checks(cell(limit={"events_per_s": 195.0, "streams": 8.0}), samples())
