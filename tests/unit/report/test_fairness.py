"""The fairness card: the same settings for every deployment, requested and reported values, asymmetries between engines only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from enginebench.adapter import Install, Launch, Resolved
from enginebench.analysis.analysis import Analysis
from enginebench.analysis.rows import CellResult, Row
from enginebench.domain import JSON, ClosedLoop, Deployment, plain_object
from enginebench.records.cell import CellRecord, CellTraits, EngineCounters, PromptFacts
from enginebench.records.launch import Configuration, LaunchRecord, Startup
from enginebench.records.run import RunRecord
from enginebench.report import render_table, to_json, to_markdown
from enginebench.report.sections.fairness import ASPECTS, Card, fairness
from enginebench.runner.priming import differences
from enginebench.validity import CacheProof

LOAD = ClosedLoop(concurrency=4, input_tokens=10, output_tokens=20)


def asked(engine: str, **changes: Any) -> Deployment:
    return replace(Deployment(engine, "m", "f16", "m", max_concurrency=4, max_context=512), **changes)


def analysis(
    *reported: tuple[Deployment, Resolved], machine: Mapping[str, JSON] | None = None, cache: CacheProof | None = None
) -> Analysis:
    """A run in which these deployments ran one load each and reported these settings."""
    rows, launches = [], {}
    for i, (deployment, resolved) in enumerate(reported):
        record = CellRecord(
            f"c{i}", f"l{i}", deployment, LOAD, 0, "ok",
            prompts=PromptFacts("ids"), traits=CellTraits(gpus=1), counters=EngineCounters({"output_tokens": 1.0}),
        )  # fmt: skip
        cell = CellResult(record, {}, "valid", cache=cache or CacheProof("counters"))
        rows.append(Row(deployment, LOAD, {}, (cell,), "ok", {}, "valid", (), deployment.label or deployment.engine))
        launches[f"l{i}"] = LaunchRecord(
            f"l{i}",
            deployment,
            0,
            "2026-01-01T00:00:00+00:00",
            Startup(Launch((), "m", notes=("bf16 KV became auto",) if i else ()), Install("wheel", "1.2")),
            Configuration(plain_object(resolved), differences(deployment, resolved)),
        )
    run = RunRecord("demo", "2026-01-01T00:00:00+00:00", {}, "0", (), machine or {}, "0")
    return Analysis(run, tuple(rows), launches, (), "")


def card(*reported: tuple[Deployment, Resolved], **more: Any) -> Card:
    return fairness(analysis(*reported, **more))


def texts(of: Card, key: str) -> list[str]:
    return [column.facts[key].text for column in of.columns]


def test_every_deployment_has_every_aspect() -> None:
    made = card((asked("a"), Resolved(kv_dtype="f16", prefix_cache=False)), (asked("b"), Resolved()))
    assert all(set(column.facts) == set(ASPECTS) for column in made.columns)
    assert texts(made, "kv_dtype") == ["f16", "not reported"]
    assert texts(made, "prefix_cache") == ["off", "not reported"]
    assert texts(made, "cold") == ["cold, proved by counters"] * 2
    assert texts(made, "version") == ["1.2", "1.2"]
    assert set(made.rows) >= {"version", "precision", "kv_dtype", "slots", "length_control", "prompt_form", "gpus"}
    assert "graphs" not in set(made.rows), "unknown for all"
    assert [column.notes for column in made.columns] == [(), ("bf16 KV became auto",)]


def test_a_requested_value_is_shown_if_it_differs() -> None:
    made = card((asked("a"), Resolved(slots=2, context=512, precision="f16")), (asked("b"), Resolved(slots=8)))
    assert texts(made, "slots") == ["2 (requested: 4)", "8"]
    assert texts(made, "context") == ["512", "512 requested, not reported"]
    assert texts(made, "precision") == ["f16", "f16 requested, not reported"]


@pytest.mark.parametrize(
    ("options", "resolved", "differ"),
    [
        ({"prefix_cache": False}, Resolved(prefix_cache=True), ["prefix_cache"]),
        ({"stream_interval": 1}, Resolved(stream_interval=4), ["stream_interval"]),  # more is not better
        ({"kv_dtype": "auto"}, Resolved(kv_dtype="bf16"), []),
        ({"kv_dtype": None}, Resolved(kv_dtype="bf16"), []),
        ({"kv_tokens": 100}, Resolved(kv_tokens=128), []),
        ({}, Resolved(context=1024, slots=16), []),
        ({}, Resolved(context=256), ["context"]),
    ],
)
def test_an_option_with_a_neutral_name_is_compared_with_the_reported_value(
    options: Mapping[str, JSON], resolved: Resolved, differ: list[str]
) -> None:
    assert [difference.name for difference in differences(asked("a", options=options), resolved)] == differ


@pytest.mark.parametrize(
    ("told", "served_name", "differ"), [("other", "m", ["model"]), ("m", "m", []), (None, "m", []), ("a path", None, [])]
)
def test_a_server_of_another_model_than_requests_name_is_a_difference(told: str | None, served_name: str | None, differ: list[str]) -> None:
    assert [difference.name for difference in differences(asked("a"), Resolved(model=told), served_name)] == differ


def test_an_asymmetry_names_engines_and_effect() -> None:
    told = (asked("a"), Resolved(prefix_cache=True, graphs="FULL_AND_PIECEWISE", stream_interval=1))
    made = card(told, (asked("b"), Resolved(prefix_cache=False, graphs="off", stream_interval=1)))
    assert made.asymmetries == (
        "prefix cache: on for a; off for b; keeping prompts costs memory and time, and hits save the prefill",
        "device graphs: FULL_AND_PIECEWISE for a; off for b; without them every step has the overhead of its kernel launches",
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Resolved(kv_dtype="float16"), Resolved(kv_dtype="f16")),
        (Resolved(graphs="FULL"), Resolved(graphs="decode only")),
        (Resolved(kv_dtype="f16"), Resolved()),
        (Resolved(version="1"), Resolved(version="2")),
        (Resolved(kv_tokens=100), Resolved(kv_tokens=200)),
    ],
    ids=["a spelling", "names of modes", "one is not reported", "versions differ", "the KV cache fits the memory"],
)
def test_not_every_difference_is_an_asymmetry(a: Resolved, b: Resolved) -> None:
    assert card((asked("a"), a), (asked("b"), b)).asymmetries == ()


def test_a_setting_that_varies_within_every_engine_is_not_an_asymmetry() -> None:
    both = [
        (asked(engine, precision=precision, label=f"{engine} {precision}"), Resolved()) for engine in "ab" for precision in ("f16", "q8_0")
    ]
    assert card(*both).asymmetries == ()
    (sentence,) = card(*both[:3]).asymmetries
    assert sentence == "precision: f16 for a and b; q8_0 for a; they do not do the same computation"
    assert card(*both[:2]).asymmetries == (), "one engine"


def test_each_model_is_compared_separately() -> None:
    one = [(asked("a"), Resolved(slots=8)), (asked("b"), Resolved(slots=4))]
    other = [(replace(deployment, model="n"), resolved) for deployment, resolved in one]
    (sentence,) = card(*one, *other).asymmetries
    assert sentence.startswith("max batch: 8 for a; 4 for b")
    (sentence,) = card(*one, *[(deployment, Resolved(slots=4)) for deployment, _ in other]).asymmetries
    assert sentence.startswith("m: max batch: 8 for a; 4 for b")


def test_a_machine_without_devices_uses_none() -> None:
    told = (asked("a"), Resolved())
    assert texts(card(told), "gpus") == ["1"]
    assert texts(card(told, machine={"gpus": []}), "gpus") == ["0"]
    assert texts(card(told, machine={"gpus": [{"name": "x"}]}), "gpus") == ["1"]


def test_cache_hits_take_precedence_over_proofs() -> None:
    assert texts(card((asked("a"), Resolved()), cache=CacheProof("usage", 4, 80)), "cold") == ["4 of 80 prompt tokens cached, by usage"]
    assert texts(card((asked("a"), Resolved()), cache=CacheProof()), "cold") == ["not provable: the engine does not report cached tokens"]


def test_it_is_in_every_output() -> None:
    found = analysis((asked("a"), Resolved(slots=8)), (asked("b"), Resolved(slots=4)))
    (sentence,) = fairness(found).asymmetries
    assert f"fairness: {sentence}" in " ".join(render_table(found, width=200, color=False).split())
    assert f"- fairness: {sentence}" in to_markdown(found)
    document = json.loads(to_json(found))["fairness"]
    assert document["asymmetries"] == [sentence]
    assert document["deployments"][0]["facts"]["slots"] == {"asked": 4, "got": 8, "differs": False}
