"""Each check fires on a cell that has its problem, and a good cell passes all of them."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from enginebench.adapter import Difference
from enginebench.domain import Cell, ClosedLoop, Deployment, Load, OpenLoop, Runtime, Sample
from enginebench.metrics.context import RunContext
from enginebench.metrics.window import steady_window
from enginebench.records.cell import CellRecord, CellTraits, ClientFacts, ClientHost, Delivery, EngineCounters, PromptFacts
from enginebench.records.counters import CounterSeries
from enginebench.records.launch import Configuration, LaunchRecord
from enginebench.records.samples import Samples
from enginebench.records.subject import Subject
from enginebench.records.window import Window
from enginebench.validity import Context, Judgement, all_checks, merged
from enginebench.validity import judge as judge_context

MS = 1_000_000


OPEN = OpenLoop(rate=6.7, output_tokens=20, input_tokens=10)


def cell(
    *, load: Load | None = None, identity: str = "proven", client: Mapping[str, float] | None = None, length: str = "exact",
    runtime: Runtime = "process", stopped: str | None = None, unsent: int = 0, saturated: str | None = None,
    limit: Mapping[str, float] | None = None, exact: bool = True,
) -> CellRecord:  # fmt: skip
    made = Cell(Deployment("fake", "m", "none", "m", runtime=runtime), load or ClosedLoop(concurrency=2, output_tokens=20, input_tokens=10))
    return CellRecord(
        made.id, made.launch_id, made.deployment, made.load, 0, "ok", identity=identity, traits=CellTraits(length_control=length),
        client=ClientFacts({"lag_p99_ms": 0.1, "cpu_fraction": 0.2, **(client or {})}, limit or {}),
        delivery=Delivery(stopped=stopped, unsent=unsent, saturated=saturated), prompts=PromptFacts(exact=exact),
    )  # fmt: skip


def counted(server: int) -> CellRecord:
    """The server counted so many tokens in the warm-up, the tokenizer 100."""
    return replace(cell(), counters=EngineCounters(token_check={"server": server, "tokenizer": 100, "requests": 9}))


def judge(record: CellRecord, data: Samples) -> Judgement:
    window = steady_window(data, record.load)
    return judge_context(Context(data.within(window), record, window))


def clean(judgement: Judgement) -> bool:
    return (judgement.verdict, judgement.reasons) == ("valid", ())


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
    assert clean(judge(cell(), samples()))


@pytest.mark.parametrize(
    ("record", "data", "check", "verdict"),
    [
        (cell(client={"lag_p99_ms": 6.0}), samples(), "client_bound", "suspect"),
        (cell(client={"lag_p50_ms": 6.0, "lag_p99_ms": 40.0}), samples(), "client_bound", "invalid"),
        (cell(client={"lag_p99_ms": 14.0, "stamps": "kernel"}), samples(), "client_bound", "suspect"),
        (cell(client={"lag_p50_ms": 14.0, "lag_p99_ms": 40.0, "stamps": "kernel"}), samples(), "client_bound", "invalid"),
        (cell(client={"cpu_fraction": 0.95}), samples(), "client_bound", "suspect"),
        (cell(client={"achieved_concurrency": 1.7}), samples(), "client_bound", "suspect"),
        (cell(), samples(tokens=19), "length_mismatch", "suspect"),
        (cell(), samples(tokens=5), "length_mismatch", "invalid"),
        (cell(length="cap"), samples(tokens=5), "length_mismatch", "suspect"),
        (cell(length="cap"), samples(tokens=21), "length_mismatch", "suspect"),
        (cell(length="cap"), samples(tokens=23), "length_mismatch", "invalid"),
        (cell(), samples(gap_ms=0.25), "burst_delivery", "suspect"),
        (cell(), samples(inputs=13), "prompt_mismatch", "invalid"),
        (cell(), samples(inputs=4), "prompt_truncated", "invalid"),
        (cell(), samples(tokens=None), "no_counts", "invalid"),
        (cell(), samples(cached=9), "cache_hits", "invalid"),
        (cell(), samples(gap_ms=0.01), "burst_delivery", "suspect"),
        (cell(), samples(outcomes=("cut",) * 3), "failed_requests", "invalid"),
        (cell(identity="no listener"), samples(), "unproven_server", "suspect"),
        (cell(), samples(pieces=1), "few_events", "suspect"),
        (cell(), samples(pieces=2), "few_events", "suspect"),
        (cell(stopped="timeout", unsent=3), samples(), "ended_early", "invalid"),
        (cell(unsent=3), samples(), "ended_early", "invalid"),
        (cell(), samples(3), "few_requests", "suspect"),
        (cell(), samples(2), "short_window", "suspect"),
        (cell(saturated="400 waited", stopped="400 waited", unsent=3), samples(), "oversaturated", "invalid"),
        (cell(limit={"events_per_s": 130.0, "streams": 8.0}), samples(), "client_bound", "suspect"),
        (cell(limit={"events_per_s": 1e6, "streams": 1.0}), samples(), "client_bound", "suspect"),
        (cell(), samples(per_event=2), "counts_disagree", "suspect"),
        (cell(), samples(local=15), "counts_disagree", "suspect"),
        (counted(120), samples(), "counts_disagree", "suspect"),
        (cell(load=OPEN), samples(40, late_ms=1), "rate_not_achieved", "suspect"),
        (cell(load=OPEN), samples(40, late_ms=50), "rate_not_achieved", "invalid"),
        (cell(load=OPEN), samples(19), "few_requests", "suspect"),
    ],
)
def test_each_check_fires(record: CellRecord, data: Samples, check: str, verdict: str) -> None:
    found = judge(record, data)
    assert check in {reason.check.id for reason in found.reasons}
    assert found.verdict == verdict
    assert all(
        str(reason) == f"{reason.detail}: {reason.check.meaning} ({reason.advice or reason.check.advice})" for reason in found.reasons
    )
    assert all(reason.severity in reason.check.when for reason in found.reasons), "a condition for every severity that it gives"


def test_requests_in_flight_are_judged_only_with_enough_requests_and_no_pauses() -> None:
    short = {"achieved_concurrency": 1.7}
    assert judge(cell(client={"achieved_concurrency": 1.9}), samples()).verdict == "valid"
    assert "client_bound" not in checks(cell(client=short), samples(n=5))
    paused = ClosedLoop(concurrency=2, output_tokens=20, input_tokens=10, turns=2, think_s=1.0)
    assert "client_bound" not in checks(cell(client=short, load=paused), samples())
    assert "client_bound" not in checks(cell(client=short, load=OpenLoop(rate=3.0, output_tokens=20, input_tokens=10)), samples())


def test_a_late_read_is_harmless_where_the_kernel_stamps() -> None:
    assert clean(judge(cell(client={"lag_p50_ms": 6.0, "lag_p99_ms": 8.0, "stamps": "kernel"}), samples()))


@pytest.mark.parametrize(("server", "random_weights"), [(108, False), (150, True)])
def test_a_tokenizer_may_differ_a_little_and_on_random_weights_a_lot(server: int, random_weights: bool) -> None:
    record = replace(counted(server), traits=CellTraits(random_weights=random_weights))
    assert "counts_disagree" not in checks(record, samples())


def test_bursts_withhold_the_pace_and_not_the_throughput() -> None:
    record, data = cell(), samples(gap_ms=0.01)
    found = judge(record, data)
    assert found.verdict == "suspect"
    assert {"tpot", "itl", "user_throughput"} <= set(found.withheld)
    assert not {"output_throughput", "e2e", "ttft"} & set(found.withheld)


@pytest.mark.parametrize(("requests", "gap_ms", "burst"), [(1, 0.01, True), (1, 10, False), (2, 0.01, True)])
def test_a_handful_of_gaps_is_judged_too(requests: int, gap_ms: float, burst: bool) -> None:
    assert ("burst_delivery" in checks(cell(), samples(requests, gap_ms=gap_ms, pieces=4, tokens=20))) == burst


def test_a_batch_has_no_latency_for_each_request() -> None:
    assert {"ttft", "e2e", "itl"} <= set(judge(cell(runtime="in-process"), samples()).withheld)
    assert judge(cell(), samples()).withheld == {}


def test_one_lost_request_in_many_is_suspect_not_invalid() -> None:
    found = judge(cell(), samples(100, outcomes=("cut",)))
    assert found.verdict == "suspect"
    assert [reason.check.id for reason in found.reasons] == ["failed_requests"]


def test_cache_hits_are_fine_where_the_scenario_allows_them() -> None:
    allowed = ClosedLoop(concurrency=2, output_tokens=20, input_tokens=10, prefix_cache="allowed")
    assert judge(cell(load=allowed), samples(cached=9)).verdict == "valid"


def checks(record: CellRecord, data: Samples) -> set[str]:
    return {reason.check.id for reason in judge(record, data).reasons}


def test_an_open_loop_needs_no_requests_per_stream_and_keeps_its_rate() -> None:
    assert clean(judge(cell(load=OPEN), samples(40)))
    capped = OpenLoop(rate=6.7, concurrency=512, output_tokens=20, input_tokens=10)
    assert clean(judge(cell(load=capped), samples(40)))


def test_a_closed_loop_has_no_rate_to_keep() -> None:
    assert judge(cell(), samples(40, late_ms=50)).verdict == "valid"


def test_a_queue_without_bound_withholds_the_latencies_and_not_the_throughput() -> None:
    record = cell(saturated="400 waited", stopped="400 waited", unsent=3)
    found = judge(record, samples())
    assert [reason.check.id for reason in found.reasons] == ["oversaturated"]
    assert {"ttft", "ttft_due", "e2e", "goodput"} <= set(found.withheld)
    assert "output_throughput" not in found.withheld
    assert set(found.withheld.values()) == {"the queue grew without bound"}


def test_a_duration_ends_a_load_without_having_cut_it_short() -> None:
    timed = ClosedLoop(concurrency=2, output_tokens=20, input_tokens=10, requests=1000, duration_s=2)
    assert judge(cell(load=timed, unsent=984), samples()).verdict == "valid"
    assert "ended_early" in checks(cell(load=timed, unsent=984, stopped="timeout"), samples())


@pytest.mark.parametrize(
    ("load", "unsent", "detail"),
    [
        (ClosedLoop(concurrency=2, requests=0, duration_s=4), 0, "all 16 requests were used up after 2.3 of 4 s (limit 90 %)"),
        (
            ClosedLoop(concurrency=2, requests=20, duration_s=4),
            0,
            "all 16 requests were used up after 2.3 of 4 s (limit 90 %)",
        ),  # a data set had no more
        (ClosedLoop(concurrency=2, requests=16, duration_s=4), 0, None),  # as many as were asked for
        (ClosedLoop(concurrency=2, requests=0, duration_s=4), 1, None),  # there was something to send
        (ClosedLoop(concurrency=2, requests=0, duration_s=2.5), 0, None),
        (OpenLoop(rate=6, requests=0, duration_s=4), 0, None),
        (ClosedLoop(concurrency=2, requests=16), 0, None),
    ],
)
def test_a_closed_loop_that_runs_out_of_requests_before_its_duration(load: Load, unsent: int, detail: str | None) -> None:
    load = replace(load, input_tokens=10, output_tokens=20)
    found = [reason for reason in judge(cell(load=load, unsent=unsent), samples()).reasons if reason.check.id == "ended_early"]
    assert [(reason.severity, reason.detail) for reason in found] == ([("suspect", detail)] if detail else [])


TALK = ClosedLoop(concurrency=2, output_tokens=20, input_tokens=10, requests=40, turns=4, prefix_cache="allowed")


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
    (reason,) = judge(cell(load=long, unsent=3), talking((5, 0), conversations=100)).reasons
    assert (reason.check.id, reason.severity) == ("failed_requests", "suspect")
    assert reason.detail == "1 of 397 requests failed (cut; limit 5 %), so 3 later turns were not sent"
    (reason,) = judge(cell(load=TALK, unsent=3), talking((5, 0))).reasons
    assert (reason.check.id, reason.severity) == ("failed_requests", "invalid"), "4 of 40 turns are more than 5 %, 1 of 37 is less"


def test_unsent_turns_without_a_failed_turn_were_never_sent() -> None:
    reasons = judge(cell(load=TALK, unsent=5), talking((5, 0))).reasons
    assert "2 of 40 requests were never sent (the load ended early)" in [reason.detail for reason in reasons]
    reasons = judge(cell(load=TALK, unsent=3, stopped="timeout"), talking((5, 0))).reasons
    assert "3 of 40 requests were never sent (timeout)" in [reason.detail for reason in reasons]


def test_lost_turns_do_not_hide_that_a_timed_load_ran_out_of_requests() -> None:
    timed = replace(TALK, requests=0, duration_s=60)
    details = {reason.detail for reason in judge(cell(load=timed, unsent=3), talking((5, 0))).reasons}
    assert details == {"1 of 37 requests failed (cut; limit 5 %)", "all 40 requests were used up after 5.9 of 60 s (limit 90 %)"}


def test_later_turns_hold_earlier_replies() -> None:
    talk = ClosedLoop(concurrency=2, output_tokens=20, input_tokens=10, turns=2, prefix_cache="allowed")
    both = samples(inputs=10, turns=2)
    grown = Samples(**{**vars_of(both), "input_tokens": both.input_tokens + 30 * both.turn})
    assert "prompt_mismatch" not in checks(cell(load=talk), grown)
    assert "prompt_mismatch" in checks(cell(), Samples(**{**vars_of(both), "input_tokens": both.input_tokens + 30 * (both.turn == 0)}))


def vars_of(data: Samples) -> dict[str, Any]:
    return {name: getattr(data, name) for name in Samples.__dataclass_fields__}


def test_lengths_are_compared_with_what_each_request_asked_for() -> None:
    drawn = ClosedLoop(concurrency=2, output_tokens=20, input_tokens="uniform(5,15)")
    assert judge(cell(load=drawn), samples()).verdict == "valid"
    assert judge(cell(load=drawn, exact=False), samples(inputs=14)).verdict == "valid"
    assert "prompt_mismatch" in checks(cell(load=drawn, exact=False), samples(inputs=15))


def test_a_server_that_is_not_steady_is_suspect() -> None:
    data = samples(40)
    window = Window(int(data.sent_ns.min()), int(data.end_ns.max()), "unsteady", "output tokens/s fell by 40%")
    found = judge_context(Context(data.within(window), cell(), window))
    assert found.verdict == "suspect"
    assert [reason.detail for reason in found.reasons] == ["output tokens/s fell by 40%"]


@pytest.mark.parametrize("limit", [None, "fast", {}, []])
def test_a_limit_that_is_not_a_number_is_ignored(limit: object) -> None:
    assert judge(cell(limit={"events_per_s": limit, "streams": limit}), samples()).verdict == "valid"


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


RISING = OpenLoop(rate=1.0, rate_to=39.0, output_tokens=2, input_tokens=10)


def test_an_open_loop_that_leaves_a_queue_is_oversaturated() -> None:
    """20 requests/s for 10 s at a server that answers 10."""
    late = queued(200, 1, 0.1, np.full(200, 0.05))
    (reason,) = (each for each in judge(cell(load=RISING), late).reasons if each.check.id == "oversaturated")
    assert "51 requests were open halfway, 101 when the last one was due, and those took 10.1 s more" in str(reason)
    assert "oversaturated" not in checks(cell(load=RISING), queued(200, 1, 0.04, np.full(200, 0.05)))
    assert "oversaturated" not in checks(cell(), late), "a closed loop has no queue in the client"


@pytest.mark.parametrize(("slots", "served_s"), [(1, 2.0), (1, 0.5), (4, 4.0), (16, 5.0)])
def test_a_queue_that_wanders_is_not_oversaturated(slots: int, served_s: float) -> None:
    """Poisson arrivals for two minutes, a server that is busy nine tenths of the time."""
    rate = 0.9 * slots / served_s
    n = int(120 * rate)
    seeds = range(40)
    flagged = sum(
        "oversaturated" in checks(cell(load=RISING), queued(n, slots, served_s, np.random.default_rng(seed).exponential(1 / rate, n)))
        for seed in seeds
    )
    assert flagged <= 1


@pytest.mark.parametrize(("step_ms", "first_ms", "queue_ms", "burst"), [(40, 8000, 0, False), (1, 20, 3000, False), (1.25, 1300, 0, True)])
def test_steps_of_many_tokens_and_a_queue_are_not_taken_for_a_relay(step_ms: float, first_ms: float, queue_ms: float, burst: bool) -> None:
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
    reasons = judge(cell(load=ClosedLoop(concurrency=16, output_tokens=65, input_tokens=10)), Samples.collect(made)).reasons
    assert any("the others then came" in reason.detail for reason in reasons) == burst


def test_a_tick_more_or_less_is_within_what_was_calibrated() -> None:
    assert "client_bound" not in checks(cell(limit={"events_per_s": 195.0, "streams": 8.0}), samples())


@pytest.mark.parametrize(
    ("client", "detail"),
    [
        ({"lag_p99_ms": 6.0}, "client lag p99 6.0 ms (limit 5.0 ms, 10 % of TTFT at its lower quartile)"),
        ({"lag_p50_ms": 6.0, "lag_p99_ms": 40.0}, "client lag p50 6.0 ms (limit 5.0 ms, 10 % of TTFT at its lower quartile)"),
        ({"lag_p99_ms": 14.0, "stamps": "kernel"}, "client lag p99 14.0 ms (limit 10.0 ms, TPOT at its lower quartile)"),
    ],
)
def test_client_lag_is_compared_with_the_latency_that_it_shifts(client: Mapping[str, float], detail: str) -> None:
    (reason,) = judge(cell(client=client), samples()).reasons
    assert str(reason).startswith(f"{detail}: the client may be the bottleneck (send from more processes")


def test_client_lag_beside_tokens_that_came_at_once() -> None:
    details = [reason.detail for reason in judge(cell(client={"lag_p99_ms": 14.0, "stamps": "kernel"}), samples(gap_ms=0)).reasons]
    assert "client lag p99 14.0 ms (limit 1.0 ms, the least)" in details


def from_hosts(**facts: Any) -> CellRecord:
    """A load that two hosts sent; of the second one this is known."""
    hosts = [ClientHost("a:1", 1, 8, 3_000.0, 0.1, 0.0, 60.0, 0.2), ClientHost("b:1", 1, 8, -250.0, 0.1, 0.0, 60.0, 0.2)]
    record = cell(limit={"events_per_s": 100.0})
    return replace(record, client=replace(record.client, hosts=(hosts[0], replace(hosts[1], **facts))))


@pytest.mark.parametrize(
    ("facts", "detail"),
    [
        ({"error_ms": 0.99}, None),
        ({"error_ms": 1.01}, "the clock of client b:1 is known to 1 ms (limit 1 ms, 10 % of the ITL)"),
        ({"drift_ms": -6.0}, None),
        ({"drift_ms": 31.0}, "the clock of client b:1 moved by +31 ms in 60 s (limit 0.5 ms per second)"),
        ({"drift_ms": 31.0, "error_ms": 0.9}, None),
    ],
)
def test_clocks_of_client_hosts_must_be_known_to_a_tenth_of_the_itl(facts: dict[str, float], detail: str | None) -> None:
    """The ITL of these samples is 10 ms. A drift counts only as far as it is certain."""
    found = [reason for reason in judge(from_hosts(**facts), samples()).reasons if reason.check.id == "client_clock_offset"]
    assert [(each.severity, each.detail) for each in found] == ([("suspect", detail)] if detail else [])


@pytest.mark.parametrize(
    ("telemetry", "shared", "details"),
    [
        ((0.4, 0.35), None, []),
        ((0.9, 0.35), None, ["other work used 55 % of the CPUs of client b:1 (limit 10 %)"]),
        ((0.4, 0.35), "bench run x (process 7)", ["on client b:1: bench run x (process 7)"]),
    ],
)
def test_a_busy_client_host_is_reported(telemetry: tuple[float, float], shared: str | None, details: list[str]) -> None:
    """The client's own part is the second figure."""
    record = from_hosts(telemetry=host(telemetry[0], 0.0, telemetry[1])[1:], shared_machine=shared)
    found = [reason.detail for reason in judge(record, samples()).reasons if reason.check.id == "client_host_busy"]
    assert found == details


def test_the_machine_of_the_engine_says_nothing_of_clients_elsewhere() -> None:
    """It is full, and the client lags: elsewhere, so the client is the cause."""
    record = replace(from_hosts(), telemetry=host(0.99, 0.95))
    lagging = replace(record, client=replace(record.client, health={"lag_p50_ms": 14.0, "lag_p99_ms": 60.0, "stamps": "kernel"}))
    assert "client_bound" in checks(lagging, samples())
    assert "crowded_machine" not in checks(lagging, samples())


def test_a_load_beyond_the_calibration_says_how_many_hosts_would_do() -> None:
    """195 events/s in a bin of a tenth of a second; one client was calibrated for 60, two hosts together for 60."""
    calibrated = cell(limit={"events_per_s": 60.0})
    shared = replace(from_hosts(), client=replace(from_hosts().client, limit={"events_per_s": 60.0}))
    for record, hosts in ((calibrated, 4), (shared, 7)):
        (advice,) = [reason.advice for reason in judge(record, samples()).reasons if reason.check.id == "client_bound"]
        assert advice.startswith(f"share the load among {hosts} hosts with "), advice


def slower(data: Samples, factor: float, since: int) -> Samples:
    """The requests from number `since` on take `factor` times as long."""
    slow = np.arange(len(data)) >= since
    each = np.repeat(slow, data.events)
    sent = np.repeat(data.sent_ns, data.events)
    stretched = np.where(each, sent + (data.event_ns - sent) * factor, data.event_ns).astype(np.int64)
    return Samples(**{**vars_of(data), "event_ns": stretched})


def test_lag_is_not_forgiven_because_the_engine_was_disturbed_as_well() -> None:
    """The last two thirds of the requests are ten times as slow: their median TPOT is 100 ms, that of an undisturbed engine 10 ms."""
    disturbed = slower(samples(60), 10, 20)
    lagging = cell(client={"lag_p50_ms": 14.0, "lag_p99_ms": 60.0, "stamps": "kernel"})
    assert [r.severity for r in judge(lagging, disturbed).reasons if r.check.id == "client_bound"] == ["invalid"]


def test_a_late_read_that_gave_no_two_tokens_one_stamp_did_no_harm() -> None:
    late = {"lag_p99_ms": 14.0, "stamps": "kernel"}
    assert "client_bound" not in checks(cell(client={**late, "shared_stamps": 3}), samples())
    assert "client_bound" in checks(cell(client={**late, "shared_stamps": 30}), samples())


def host(busy: float, engine: float, bench: float = 0.1, **more: float) -> tuple[Subject, ...]:
    """Two cores over 100 s: shares of their time, from readings a second apart."""
    at = tuple(i * 1_000 * MS for i in range(100))

    def total(rate: float) -> tuple[float, ...]:
        return tuple(1000 + rate * i for i in range(100))

    values = {"busy_s": total(2 * busy), "capacity_s": total(2), "bench_s": total(2 * bench), **{k: total(2 * v) for k, v in more.items()}}
    return (
        Subject("processes", "engine", {}, CounterSeries(at, {"cpu_s": total(2 * engine)})),
        Subject("host", "this machine", {}, CounterSeries(at, values)),
    )


@pytest.mark.parametrize(
    ("busy", "engine", "severity", "detail"),
    [
        (0.95, 0.80, None, None),
        (0.95, 0.72, "suspect", "other work used 13 % of the CPUs (limit 10 %; 95 % were busy in all)"),
        (0.95, 0.40, "invalid", "other work used 45 % of the CPUs (limit 30 %; 95 % were busy in all)"),
        (0.10, 0.05, None, None),
    ],
)
def test_work_of_others_is_what_neither_engine_nor_bench_used(busy: float, engine: float, severity: str | None, detail: str | None) -> None:
    found = judge(replace(cell(), telemetry=host(busy, engine)), samples())
    assert [(r.severity, r.detail) for r in found.reasons] == ([(severity, detail)] if severity else [])


def test_without_the_engines_part_the_work_of_others_is_not_checkable() -> None:
    engine, machine = host(0.9, 0.1)
    assert "CPU time of the engine" in judge(replace(cell(), telemetry=(machine,)), samples()).not_checkable["foreign_load"]
    proxy = replace(engine, facts={"forwards": True})
    hidden = replace(engine, kind="container", facts={"visible": False})
    for part in (proxy, hidden):
        assert "foreign_load" in judge(replace(cell(runtime="attach"), telemetry=(part, machine)), samples()).not_checkable


def test_an_old_record_knows_the_load_generators_time_only() -> None:
    engine, machine = host(0.5, 0.2)
    values = {name: column for name, column in machine.series.values.items() if name != "bench_s"}
    old = replace(machine, series=CounterSeries(machine.series.at_ns, values))
    record = replace(cell(client={"cpu_s": 1.0}), telemetry=(engine, old), delivery=Delivery((1_000 * MS, 3_500 * MS)))
    assert [r.detail for r in judge(record, samples()).reasons] == [
        "other work used 10 % of the CPUs (limit 10 %; 50 % were busy in all)"
    ], "0.5 - 0.2 - 1 s in 2.5 s of 2 cores"


def test_a_full_machine_is_not_blamed_on_the_client() -> None:
    lag = {"lag_p50_ms": 6.0, "lag_p99_ms": 40.0}
    crowded = replace(cell(client=lag), telemetry=host(0.97, 0.86))
    assert checks(crowded, samples()) == {"crowded_machine"}
    assert checks(replace(crowded, telemetry=host(0.97, 0.6)), samples()) == {"foreign_load"}, "there others are the cause"
    assert "client_bound" in checks(replace(cell(client={**lag, "cpu_fraction": 0.9}), telemetry=host(0.97, 0.86)), samples())


def test_a_slow_disk_and_a_clock_that_was_set_are_named() -> None:
    assert checks(replace(cell(), telemetry=host(0.5, 0.4, iowait_s=0.3)), samples()) == {"disk_wait"}
    assert checks(replace(cell(), telemetry=host(0.5, 0.4, iowait_s=0.05)), samples()) == set()
    engine, machine = host(0.5, 0.4)
    for mb_s, reads in ((80, {"disk_wait"}), (5, set())):
        read = {**engine.series.values, "read_bytes": tuple(mb_s * 1e6 * i for i in range(100))}
        reading = replace(engine, series=replace(engine.series, values=read))
        assert checks(replace(cell(), telemetry=(reading, machine)), samples()) == reads, "no CPU is idle, so none waits for a disk"
    for step_s, found in ((5.0, {"clock_step"}), (0.05, set())):
        clock = tuple(1e9 + i * 0.0005 + (step_s if i > 50 else 0) for i in range(100))
        set_back = replace(machine, series=replace(machine.series, values={**machine.series.values, "clock_s": clock}))
        assert checks(replace(cell(), telemetry=(engine, set_back)), samples()) == found


def started(record: CellRecord, *differences: Difference, **resolved: object) -> Context:
    """The cell, measured by a server that reports this configuration."""
    launch = LaunchRecord(
        record.launch_id, record.deployment, 0, "", configuration=Configuration({"version": "1", **resolved}, differences)
    )
    data = samples()
    window = steady_window(data, record.load)
    return Context(data.within(window), record, window, RunContext(launches={launch.id: launch}))


@pytest.mark.parametrize(
    ("difference", "check", "severity"),
    [
        (Difference("model", "org/Mixtral-8x7B", "llama-3-8b"), "wrong_model", "suspect"),
        (Difference("model", "org/Mixtral-8x7B", "/models/mixtral-8x7b.gguf"), None, None),
        (Difference("model", "mixtral-8x7b", "mixtral-8x7b-instruct"), None, None),
        (Difference("precision", "fp8", "bf16"), "precision_fallback", "invalid"),
        (Difference("kv_dtype", "q8_0", "f16"), "option_not_honoured", "suspect"),
        (Difference("temperature", 0.0, "not sent: the server refuses it"), "sampling_not_sent", "suspect"),
    ],
)
def test_what_the_engine_reports_is_compared_with_what_was_asked(difference: Difference, check: str | None, severity: str | None) -> None:
    found = judge_context(started(cell(), difference)).reasons
    assert [(reason.check.id, reason.severity) for reason in found] == ([(check, severity)] if check else [])


def test_more_tokens_than_the_context_holds_means_that_the_engine_shifted_it() -> None:
    assert [r.check.id for r in judge_context(started(cell(), context=24)).reasons] == ["context_shift"], "10 + 20 tokens"
    assert judge_context(started(cell(), context=32)).verdict == "valid"


def test_an_attached_server_is_not_suspect_for_that() -> None:
    found = judge(cell(runtime="attach", identity="attached: the server was not started by enginebench"), samples())
    assert clean(found)
    assert "attached" in found.not_checkable["unproven_server"]


def test_many_cells_with_one_cause_are_one_line() -> None:
    reasons = [r for n in (3, 1, 2) for r in judge(cell(), samples(n)).reasons if r.check.id == "few_requests"]
    assert merged(reasons).startswith("1 requests for 2 streams (limit 2 a stream) (the worst of 3): too few requests")
    assert merged(reasons[:1]).startswith("3 requests for 2 streams (limit 2 a stream): ")


def test_a_reason_fits_into_two_lines() -> None:
    for check in all_checks():
        assert len(f"{check.meaning} ({check.advice})") <= 170, check.id


def test_a_second_run_that_was_allowed_makes_cells_suspect() -> None:
    found = judge(replace(cell(), shared_machine="another run, 'mine' (process 12), measured here"), samples())
    assert [(r.check.id, r.severity, r.detail) for r in found.reasons] == [
        ("shared_machine", "suspect", "another run, 'mine' (process 12), measured here")
    ]


@pytest.mark.parametrize(("stale", "found"), [(2, set()), (3, {"retried"}), (0, set())])
def test_requests_that_are_sent_again_are_counted(stale: int, found: set[str]) -> None:
    assert checks(cell(client={"stale": stale}), samples(16)) == found


def test_a_prompt_that_lost_a_few_tokens_was_cut_and_is_not_too_long() -> None:
    (reason,) = judge(cell(), samples(inputs=8)).reasons
    assert (reason.check.id, reason.severity) == ("prompt_truncated", "suspect")


def test_one_count_for_every_prompt_is_a_limit_even_where_lengths_are_guesses() -> None:
    guessed = replace(cell(exact=False), prompts=PromptFacts(exact=False, doubt="the server counts 16 tokens for 59 words"))
    assert checks(guessed, samples(inputs=4)) == {"prompt_truncated"}
    data = samples(inputs=4)
    varied = Samples(**{**vars_of(data), "input_tokens": data.input_tokens + data.turn + np.arange(len(data)) % 2})
    assert checks(guessed, varied) == {"lengths_guessed"}


def test_an_attached_server_may_be_asked_for_any_model_and_a_started_one_may_not() -> None:
    any_model = Difference("model", "any", "llama-3-8b")
    for runtime, found in (("attach", []), ("process", ["wrong_model"])):
        record = cell(runtime=runtime)  # one of two
        named = replace(record, deployment=replace(record.deployment, model="any"))
        assert [reason.check.id for reason in judge_context(started(named, any_model)).reasons] == found
