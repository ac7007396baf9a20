"""What an engine says of itself is read as it is meant, and judges the cell: cache, queue, KV cache, clocks, routing."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from enginebench.analysis.caveats import caveats
from enginebench.analysis.ranking import verdict_sentence
from enginebench.analysis.rows import CellResult, Row, result_of
from enginebench.domain import Cell, Deployment, Load, Sample
from enginebench.metrics.server_timings import decode_s, first_token_s, queue_s
from enginebench.metrics.statistics import estimate
from enginebench.records.counters import CounterSeries, Gauge, acceptance, gauges
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord
from enginebench.validity import CacheProof, Check, cache_proof

MS, S = 1_000_000, 1_000_000_000
LOAD = Load(concurrency=1, output_tokens=21, input_tokens=10, requests=8)


def samples(timings: Mapping[str, float] | None = None, *, cached: int | None = 0, tokens: int = 21) -> Samples:
    """Eight requests in a row: 50 ms to the first token, then 10 ms a token."""
    made = []
    for i in range(8):
        sent = (10 + i) * S
        events = array("q", [sent + 50 * MS + j * 10 * MS for j in range(tokens)])
        made.append(
            Sample(
                i, 10, 21, due_ns=sent, sent_ns=sent, end_ns=events[-1], event_ns=events, event_tokens=array("i", [1] * tokens),
                event_chars=array("i", [1] * tokens), input_tokens=10, output_tokens=tokens, cached_tokens=cached, server_timings=timings,
            )
        )  # fmt: skip
    return Samples.collect(made)


def record(series: CounterSeries | None = None, load: Load = LOAD, **changes: Any) -> CellRecord:
    cell = Cell(Deployment("fake", "m", "none", "m"), load)
    made = CellRecord(cell.id, cell.launch_id, cell.deployment, load, 0, "ok", identity="proven", series=series or CounterSeries())
    return replace(made, **changes)


def series(**values: tuple[float | None, ...]) -> CounterSeries:
    """One reading a second from the first request on."""
    count = max(map(len, values.values()))
    return CounterSeries(tuple((10 + i) * S for i in range(count)), values)


def reasons(told: CellRecord, data: Samples | None = None) -> dict[Check, str]:
    return {reason.check: reason.detail for reason in result_of(told, data or samples()).reasons}


# -- series --------------------------------------------------------------------------------------------------------------


def test_gauges_are_those_of_the_window() -> None:
    told = series(running=(0.0, 2.0, None, 4.0, 90.0))
    inside = told.within((11 * S, 13 * S))
    assert inside.at_ns == (11 * S, 12 * S, 13 * S)
    assert gauges(inside, ("running", "kv_use")) == {"running": Gauge(3.0, 4.0, 2)}
    assert result_of(record(told), samples()).gauges["running"].max == 90.0


def test_a_pair_of_counters_is_one_of_the_same_moment() -> None:
    assert series(waiting=(1.0, None, 3.0), kv_use=(None, 0.5, 0.9)).pairs("waiting", "kv_use") == [(3.0, 0.9)]
    assert series(waiting=(1.0,)).pairs("waiting", "kv_use") == []


def test_acceptance_is_a_share_of_what_was_proposed() -> None:
    assert acceptance({"draft_tokens": 8, "accepted_tokens": 6}) == 0.75
    assert acceptance({"draft_tokens": 0}) is None
    assert acceptance({}) is None


# -- queue and KV cache --------------------------------------------------------------------------------------------------


def test_preemptions_are_said() -> None:
    assert reasons(record(counters={"preemptions": 3.0}))[Check.PREEMPTED].startswith("3 preemptions: requests lost")
    assert reasons(record(counters={"preemptions": 0.0})) == {}


@pytest.mark.parametrize(
    ("waiting", "queued"),
    [((1, 2, 5, 1, 2, 3, 4, 1), True), ((1, 2, 0, 1, 2, 3, 4, 1), False), ((1, 2), False), ((None,) * 8, False)],
)
def test_a_queue_that_never_was_empty_is_said(waiting: tuple[float | None, ...], queued: bool) -> None:
    found = reasons(record(series(waiting=waiting)))
    assert (Check.QUEUED in found) == queued
    assert not queued or "at every one of 8 readings 1 to 5 requests waited" in found[Check.QUEUED]


@pytest.mark.parametrize(
    ("use", "waiting", "full"), [((0.5, 1.0, 0.998), (0, 2, 1), True), ((1.0, 1.0), (0, 0), False), ((0.9, 0.9), (5, 0), False)]
)
def test_a_full_kv_cache_matters_where_somebody_waits_for_it(use: tuple[float, ...], waiting: tuple[float, ...], full: bool) -> None:
    found = reasons(record(series(kv_use=use, waiting=waiting)))
    assert (Check.KV_FULL in found) == full
    assert not full or "full at 2 of 3 readings" in found[Check.KV_FULL]


# -- the prefix cache ----------------------------------------------------------------------------------------------------


def test_usage_that_some_answers_lack_proves_hits_and_no_absence_of_them() -> None:
    data = samples(cached=0)
    some = replace(data, cached_tokens=np.where(data.index < 4, 0, -1))
    assert cache_proof(record(), some) == CacheProof()
    assert cache_proof(record(), replace(some, cached_tokens=np.where(data.index < 4, 5, -1))) == CacheProof("usage", 20, 40)


@pytest.mark.parametrize(
    ("counters", "cached", "proof", "text"),
    [
        ({"cached_tokens": 0.0}, None, CacheProof("counters", 0, 80), "cold, proved by counters"),
        ({}, 0, CacheProof("usage", 0, 80), "cold, proved by usage"),
        ({}, None, CacheProof(None), "not provable: the engine does not say"),
        ({"prompt_tokens": 80.0}, None, CacheProof(None), "not provable: the engine does not say"),
        ({"cached_tokens": 40.0}, 0, CacheProof("counters", 40, 80), "40 of 80 prompt tokens cached, by counters"),
        ({"cached_tokens": 0.0}, 5, CacheProof("usage", 40, 80), "40 of 80 prompt tokens cached, by usage"),
    ],
)
def test_how_it_is_known_that_the_cache_was_cold(counters: Mapping[str, float], cached: int | None, proof: CacheProof, text: str) -> None:
    told, data = record(counters=counters), samples(cached=cached)
    assert cache_proof(told, data) == proof == result_of(told, data).cache
    assert proof.text == text
    assert (Check.CACHE_HITS in reasons(told, data)) == (proof.cached > 0)
    allowed = replace(told, load=replace(LOAD, prefix_cache="allowed"))
    assert Check.CACHE_HITS not in reasons(allowed, data)


# -- two clocks ----------------------------------------------------------------------------------------------------------

LLAMACPP = {"prompt_ms": 45.0, "predicted_n": 21, "predicted_ms": 200.0}


@pytest.mark.parametrize(
    ("told", "decode", "first", "queue"),
    [
        (LLAMACPP, 0.010, 0.045, None),
        ({"eval_duration": 200e6, "prompt_eval_duration": 45e6}, 0.010, 0.045, None),
        ({"mean_itl_ms": 10.0, "time_to_first_token_ms": 45.0, "queue_time_ms": 3.0}, 0.010, 0.045, 0.003),
        ({"e2e_latency": 0.25, "first_token_latency": 0.05, "queue_time": 0.005}, 0.010, 0.045, 0.005),
        ({"something": 1.0}, None, None, None),
        (None, None, None, None),
    ],
)
def test_every_spelling_of_an_engines_timings(
    told: Mapping[str, float] | None, decode: float | None, first: float | None, queue: float | None
) -> None:
    data = samples(told)
    for found, expected in ((decode_s(data, np.full(8, 21.0)), decode), (first_token_s(data), first), (queue_s(data), queue)):
        assert found.tolist() == pytest.approx([np.nan if expected is None else expected] * 8, nan_ok=True)


def test_a_single_token_has_no_pace() -> None:
    assert np.isnan(decode_s(samples({"predicted_ms": 0.0, "predicted_n": 1}, tokens=1), np.ones(8))).all()
    assert np.isnan(decode_s(samples({"eval_duration": 0.0}, tokens=1), np.ones(8))).all()


def test_the_engines_figures_stand_beside_the_clients() -> None:
    figures = result_of(record(), samples(LLAMACPP)).figures
    assert figures["engine_tpot_p50"] == pytest.approx(0.010)
    assert figures["tpot_p50"] == pytest.approx(0.010)
    assert figures["engine_ttft_p50"] == pytest.approx(0.045)
    assert result_of(record(), samples()).figures["engine_tpot_p50"] is None


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (LLAMACPP, None),
        ({**LLAMACPP, "predicted_ms": 170.0}, None),
        ({**LLAMACPP, "predicted_ms": 130.0}, "the engine says 6.5 ms per token, the client saw 10"),
        ({**LLAMACPP, "predicted_ms": 400.0}, "the engine says 20 ms per token, the client saw 10"),
        ({**LLAMACPP, "prompt_ms": 12.0}, "the engine says 12 ms to the first token, the client saw 50"),
    ],
)
def test_two_clocks_that_differ_beyond_reason_are_said(told: Mapping[str, float], said: str | None) -> None:
    assert reasons(record(), samples(told)).get(Check.TIMINGS_DISAGREE) == said


def test_an_engine_that_leaves_its_queue_out_is_compared_only_where_nobody_queues() -> None:
    slow, many = {**LLAMACPP, "prompt_ms": 12.0}, replace(LOAD, concurrency=4)
    assert Check.TIMINGS_DISAGREE not in reasons(record(load=many), samples(slow))
    known = {"time_to_first_token_ms": 12.0, "queue_time_ms": 36.0, "mean_itl_ms": 10.0}
    assert Check.TIMINGS_DISAGREE not in reasons(record(load=many), samples(known))
    assert Check.TIMINGS_DISAGREE in reasons(record(load=many), samples({**known, "queue_time_ms": 0.0}))


# -- routing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "marked"),
    [
        ({"random_weights": True}, True),
        ({"random_weights": True, "forced_routing": True}, False),
        ({"random_weights": True, "dense": True}, False),
        ({}, False),
    ],
)
def test_random_routing_is_marked(changes: Mapping[str, bool], marked: bool) -> None:
    found = result_of(record(**changes), samples())
    assert found.verdict == ("unranked" if marked else "valid")
    assert (Check.RANDOM_ROUTING in {reason.check for reason in found.reasons}) == marked


def row(name: str, value: float, *, model: str = "m", worse: bool = False, **changes: Any) -> Row:
    """A row of one cell; worse: it is suspect, too."""
    told = record(counters={"preemptions": 1.0} if worse else {}, **changes)
    cell: CellResult = result_of(told, samples())
    deployment = Deployment(name, model, "none", "random:qwen3moe")
    return Row(deployment, LOAD, {}, (cell,), "ok", {"output_throughput": estimate([value])}, cell.verdict, (), name)


@pytest.mark.parametrize("worse", [False, True])
def test_a_random_router_shows_its_figures_and_wins_nothing(worse: bool) -> None:
    rows = [row("a", 100, random_weights=True, worse=worse), row("b", 200, random_weights=True)]
    assert [each.ranked for each in rows] == [False, False]
    assert [each.sound for each in rows] == [True, True]
    assert verdict_sentence(rows) == (
        "measured at 1 stream of 10 + 21 tokens: a 100 tok/s, b 200 tok/s; not ranked, because its weights are random and nothing forces "
        "their routing."
    )
    remark, short = dict.fromkeys(caveats(rows, {}, ()))
    assert short == "2 of 2 cells are too short to tell whether the server was steady: they are measured whole"
    assert "though the same in every engine, so nothing is ranked" in remark


def test_many_are_counted_and_other_models_are_still_ranked() -> None:
    rows = [row(name, 100 + i, random_weights=True) for i, name in enumerate("abcd")]
    rows += [row("a", 7, model="real"), row("b", 5, model="real")]
    said = verdict_sentence(rows)
    assert "m: measured at 1 stream of 10 + 21 tokens: 4 deployments 100 to 103 tok/s; not ranked" in said
    assert "real: a is ahead at 1 stream" in said


def test_forced_routing_is_ranked_and_said() -> None:
    rows = [row("a", 100, random_weights=True, forced_routing=True), row("b", 50, random_weights=True, forced_routing=True)]
    assert verdict_sentence(rows).startswith("a is ahead")
    assert [said for said in set(caveats(rows, {}, ())) if said.endswith("a rule spreads its tokens over the experts")]


def test_what_was_sent_twice_is_said() -> None:
    rows = [row("a", 100, client={"stale": 3}), row("b", 50, client={"stale": 4}), row("c", 50)]
    assert [said for said in caveats(rows, {}, ()) if "again" in said] == [
        "a closed connections that it had promised to keep: 3 requests that met one were sent again on a new one",
        "b closed connections that it had promised to keep: 4 requests that met one were sent again on a new one",
    ]
