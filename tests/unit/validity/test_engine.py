"""The engine's own figures are read correctly and judged: prefix cache, queue, KV cache, two clocks, routing."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from enginebench.analysis.caveats import caveats
from enginebench.analysis.conclude import conclude
from enginebench.analysis.rows import CellResult, Row, result_of
from enginebench.domain import JSON, Cell, ClosedLoop, Deployment, Load, Sample
from enginebench.metrics.prefix_cache import cache_proof
from enginebench.metrics.server_timings import decode_s, first_token_s, queue_s
from enginebench.metrics.statistics import estimate
from enginebench.records.cell import CellRecord, CellTraits, ClientFacts, EngineCounters
from enginebench.records.counters import CounterSeries, Gauge, acceptance, gauges
from enginebench.records.run import RunRecord
from enginebench.records.samples import Samples
from enginebench.validity import CacheProof

MS, S = 1_000_000, 1_000_000_000
LOAD = ClosedLoop(concurrency=1, output_tokens=21, input_tokens=10, requests=8)


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


def record(
    series: CounterSeries | None = None,
    load: Load = LOAD,
    totals: Mapping[str, float] | None = None,
    client: Mapping[str, JSON] | None = None,
    **traits: bool,
) -> CellRecord:
    cell = Cell(Deployment("fake", "m", "none", "m"), load)
    return CellRecord(
        cell.id, cell.launch_id, cell.deployment, load, 0, "ok", identity="proven", traits=CellTraits(**traits),
        counters=EngineCounters(totals or {}, series or CounterSeries()), client=ClientFacts(client or {}),
    )  # fmt: skip


def series(**values: tuple[float | None, ...]) -> CounterSeries:
    """One reading a second from the first request on."""
    count = max(map(len, values.values()))
    return CounterSeries(tuple((10 + i) * S for i in range(count)), values)


def reasons(cell: CellRecord, data: Samples | None = None) -> dict[str, str]:
    return {reason.check.id: reason.detail for reason in result_of(cell, data or samples()).reasons}


# -- series --------------------------------------------------------------------------------------------------------------


def test_gauges_are_those_of_the_window() -> None:
    readings = series(running=(0.0, 2.0, None, 4.0, 90.0))
    inside = readings.within((11 * S, 13 * S))
    assert inside.at_ns == (11 * S, 12 * S, 13 * S)
    assert gauges(inside, ("running", "kv_use")) == {"running": Gauge(3.0, 4.0, 2)}
    assert result_of(record(readings), samples()).gauges["running"].max == 90.0


def test_a_pair_of_counters_is_of_the_same_reading() -> None:
    assert series(waiting=(1.0, None, 3.0), kv_use=(None, 0.5, 0.9)).pairs("waiting", "kv_use") == [(3.0, 0.9)]
    assert series(waiting=(1.0,)).pairs("waiting", "kv_use") == []


def test_acceptance_is_a_share_of_the_proposed_tokens() -> None:
    assert acceptance({"draft_tokens": 8, "accepted_tokens": 6}) == 0.75
    assert acceptance({"draft_tokens": 0}) is None
    assert acceptance({}) is None


# -- queue and KV cache --------------------------------------------------------------------------------------------------


def test_preemptions_are_reported() -> None:
    assert reasons(record(totals={"preemptions": 3.0}))["preempted"].startswith("3 preemptions: requests were computed again")
    assert reasons(record(totals={"preemptions": 0.0})) == {}


@pytest.mark.parametrize(
    ("waiting", "queued"),
    [((1, 2, 5, 1, 2, 3, 4, 1), True), ((1, 2, 0, 1, 2, 3, 4, 1), False), ((1, 2), False), ((None,) * 8, False)],
)
def test_a_queue_that_is_never_empty_is_reported(waiting: tuple[float | None, ...], queued: bool) -> None:
    found = reasons(record(series(waiting=waiting)))
    assert ("queued" in found) == queued
    assert not queued or "1 to 5 requests waited in the engine's queue at each of 8 readings" in found["queued"]


@pytest.mark.parametrize(
    ("use", "waiting", "full"), [((0.5, 1.0, 0.998), (0, 2, 1), True), ((1.0, 1.0), (0, 0), False), ((0.9, 0.9), (5, 0), False)]
)
def test_a_full_kv_cache_is_reported_only_while_requests_wait(use: tuple[float, ...], waiting: tuple[float, ...], full: bool) -> None:
    found = reasons(record(series(kv_use=use, waiting=waiting)))
    assert ("kv_full" in found) == full
    assert not full or "full at 2 of 3 readings" in found["kv_full"]


# -- the prefix cache ----------------------------------------------------------------------------------------------------


def test_usage_that_some_replies_lack_proves_hits_but_not_their_absence() -> None:
    data = samples(cached=0)
    some = replace(data, cached_tokens=np.where(data.index < 4, 0, -1))
    assert cache_proof(record(), some) == CacheProof()
    assert cache_proof(record(), replace(some, cached_tokens=np.where(data.index < 4, 5, -1))) == CacheProof("usage", 20, 40)


@pytest.mark.parametrize(
    ("counters", "cached", "proof", "text"),
    [
        ({"cached_tokens": 0.0}, None, CacheProof("counters", 0, 80), "cold, proved by counters"),
        ({}, 0, CacheProof("usage", 0, 80), "cold, proved by usage"),
        ({}, None, CacheProof(None), "not provable: the engine does not report cached tokens"),
        ({"prompt_tokens": 80.0}, None, CacheProof(None), "not provable: the engine does not report cached tokens"),
        ({"cached_tokens": 40.0}, 0, CacheProof("counters", 40, 80), "40 of 80 prompt tokens cached, by counters"),
        ({"cached_tokens": 0.0}, 5, CacheProof("usage", 40, 80), "40 of 80 prompt tokens cached, by usage"),
    ],
)
def test_how_it_is_known_that_the_cache_was_cold(counters: Mapping[str, float], cached: int | None, proof: CacheProof, text: str) -> None:
    cell, data = record(totals=counters), samples(cached=cached)
    assert cache_proof(cell, data) == proof == result_of(cell, data).cache
    assert proof.text == text
    assert ("cache_hits" in reasons(cell, data)) == (proof.cached > 0)
    allowed = replace(cell, load=replace(LOAD, prefix_cache="allowed"))
    assert "cache_hits" not in reasons(allowed, data)


# -- two clocks ----------------------------------------------------------------------------------------------------------

LLAMACPP = {"prompt_ms": 45.0, "predicted_n": 21, "predicted_ms": 200.0}


@pytest.mark.parametrize(
    ("timings", "decode", "first", "queue"),
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
    timings: Mapping[str, float] | None, decode: float | None, first: float | None, queue: float | None
) -> None:
    data = samples(timings)
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
    ("timings", "detail"),
    [
        (LLAMACPP, None),
        ({**LLAMACPP, "predicted_ms": 170.0}, None),
        ({**LLAMACPP, "predicted_ms": 130.0}, "the engine reports 6.5 ms per token, the client measured 10 ms (limit 20 %)"),
        ({**LLAMACPP, "predicted_ms": 400.0}, "the engine reports 20 ms per token, the client measured 10 ms (limit 20 %)"),
        ({**LLAMACPP, "prompt_ms": 12.0}, "the engine reports 12 ms to the first token, the client measured 50 ms (limit 50 %)"),
    ],
)
def test_two_clocks_that_differ_too_much_are_reported(timings: Mapping[str, float], detail: str | None) -> None:
    assert reasons(record(), samples(timings)).get("timings_disagree") == detail


def test_an_engine_that_leaves_its_queue_out_is_compared_only_without_a_queue() -> None:
    slow, many = {**LLAMACPP, "prompt_ms": 12.0}, replace(LOAD, concurrency=4)
    assert "timings_disagree" not in reasons(record(load=many), samples(slow))
    known = {"time_to_first_token_ms": 12.0, "queue_time_ms": 36.0, "mean_itl_ms": 10.0}
    assert "timings_disagree" not in reasons(record(load=many), samples(known))
    assert "timings_disagree" in reasons(record(load=many), samples({**known, "queue_time_ms": 0.0}))


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
    assert found.verdict == ("scoped" if marked else "valid")
    assert ("random_routing" in {reason.check.id for reason in found.reasons}) == marked


def sentence(rows: list[Row]) -> str:
    return conclude(rows, RunRecord("demo", "2026-01-01T00:00:00+00:00", {}, "p", (), {}, "1"), {}).sentence


def row(name: str, value: float, *, model: str = "m", worse: bool = False, **changes: Any) -> Row:
    """A row of one cell. worse: it is also suspect."""
    cell: CellResult = result_of(record(totals={"preemptions": 1.0} if worse else {}, **changes), samples())
    deployment = Deployment(name, model, "none", "random:qwen3moe")
    return Row(deployment, LOAD, {}, (cell,), "ok", {"output_throughput": estimate([value])}, cell.verdict, (), name)


@pytest.mark.parametrize("worse", [False, True])
def test_a_random_router_is_ranked_within_its_weights(worse: bool) -> None:
    rows = [row("a", 100, random_weights=True, worse=worse), row("b", 200, random_weights=True)]
    assert [each.ranked for each in rows] == [True, True]
    assert sentence(rows).startswith(
        "On a synthetic MoE, whose routing is even and a trained model's is not: b is probably ahead at 1 stream of 10 + 21 tokens: 2x a"
    )
    caveat, short = dict.fromkeys(caveats(rows, ()))
    assert short == "2 of 2 cells are too short to tell whether the server was steady: they are measured whole"
    assert "expert routing (the same in every engine) are not those of a trained model: ranked within these weights only" in caveat


def test_random_weights_are_not_compared_with_trained_ones() -> None:
    rows = [row("a", 100, random_weights=True), row("b", 50), row("c", 40)]
    assert sentence(rows).startswith("Random weights are not compared with trained ones: b is probably ahead")


def test_each_model_has_its_own_scope() -> None:
    rows = [row(name, 100 + 10 * i, random_weights=True) for i, name in enumerate("abcd")]
    rows += [row("a", 7, model="real"), row("b", 5, model="real")]
    assert "m: On a synthetic MoE, whose routing is even and a trained model's is not: d is probably ahead" in sentence(rows)
    assert "real: a is probably ahead at 1 stream" in sentence(rows)


def test_forced_routing_is_ranked_with_a_caveat() -> None:
    rows = [row("a", 100, random_weights=True, forced_routing=True), row("b", 50, random_weights=True, forced_routing=True)]
    assert "a is probably ahead" in sentence(rows)
    assert [text for text in set(caveats(rows, ())) if text.endswith("a rule spreads tokens over the experts")]


def test_requests_that_were_sent_twice_are_reported() -> None:
    rows = [row("a", 100, client={"stale": 3}), row("b", 50, client={"stale": 4}), row("c", 50)]
    assert [text for text in caveats(rows, ()) if "again" in text] == [
        "a closed keep-alive connections: 3 requests were sent again on new ones",
        "b closed keep-alive connections: 4 requests were sent again on new ones",
    ]
