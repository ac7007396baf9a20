"""Loads and samples that travel to another host and back are what they were, in every field."""

from __future__ import annotations

import json
from array import array
from dataclasses import fields, replace
from typing import Any

import pytest
from enginebench.dialects import OllamaChat, OpenAICompletions
from enginebench.domain import Sample
from enginebench.errors import UserError
from enginebench.loadgen import LoadSpec, Target, WireRequest
from enginebench.loadgen.health import Vitals
from enginebench.loadgen.remote.codec import pack_result, pack_spec, unpack_result, unpack_spec
from enginebench.loadgen.request import WorkerResult
from hypothesis import given
from hypothesis import strategies as st

REQUESTS = [
    WireRequest(0, "/v1/completions", b'{"prompt": "\xc3\xa9"}', 3, 4, due_ns=5),
    WireRequest(1, "/v1/chat/completions", (b"[", 0, b",", 1, b"]"), 3, 4, think_ns=7, conversation=2, turn=2, after=(0,), abort_ns=9),
    WireRequest(2, "/x", b"", 0, 0),
    WireRequest(3, "/x", (b"", 0), 0, 0),
]
SPEC = LoadSpec(
    Target("h", 1, tls=True, headers={"Authorization": "Bearer x"}, ca_file="c"), REQUESTS, 7, OpenAICompletions(), 1.5, keep_text=True,
    ramp_ns=3, duration_ns=4, dispersion=0.5, stamps="loop", acks="delayed", end_marks=frozenset({"usage", "[DONE]"}), starts_ns=[1, 5],
)  # fmt: skip


def through_json(data: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(data, default=sorted)))


def test_every_field_of_a_load_travels() -> None:
    packed, blob = pack_spec(SPEC)
    found = unpack_spec(through_json(packed), blob)
    assert type(found.dialect) is OpenAICompletions
    assert replace(found, dialect=SPEC.dialect) == SPEC
    default = {each.name for each in fields(LoadSpec) if getattr(SPEC, each.name) == each.default}
    assert not default, "each differs from its default, so that none can be left out"


def test_only_dialects_that_are_known_here_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, blob = pack_spec(replace(SPEC, dialect=OllamaChat()))
    assert type(unpack_spec(packed, blob).dialect) is OllamaChat
    for name in ("os:system", "enginebench.dialects.base:Dialect", "enginebench_adapters.mine:Mine"):
        with pytest.raises(UserError, match="is not known on this host\n  start it with the adapter: bench client --adapter FILE"):
            unpack_spec({**packed, "dialect": name}, blob)


def test_bytes_that_are_missing_or_too_many_are_refused() -> None:
    packed, blob = pack_spec(SPEC)
    with pytest.raises(ValueError, match="bytes of bodies"):
        unpack_spec(packed, blob + b"x")
    told, events = pack_result(WorkerResult([Sample(0, 1, 1, event_ns=array("q", [1]))], VITALS, None, saturated=False))
    for wrong in (events + b"1234567", events[:-4]):
        with pytest.raises(ValueError, match=r"bytes of events|not a multiple"):
            unpack_result(told, wrong)


VITALS = Vitals((0.1, 0.2, 0.3), 1.0, 2.0, 3, 4, "uvloop", "kernel", 5, "usual", server_nodelay=True)
COUNT = st.none() | st.integers(0, 2**31)
TIMES = st.integers(0, 2**62)
EVENTS = st.lists(st.tuples(TIMES, st.integers(-1, 2**31 - 1), st.integers(0, 2**31 - 1)), max_size=5)


@st.composite
def sample(draw: st.DrawFn) -> Sample:
    events = draw(EVENTS)
    return Sample(
        draw(st.integers(0, 9)), 1, 2, draw(TIMES), draw(TIMES), draw(TIMES), draw(TIMES), array("q", [e[0] for e in events]),
        array("i", [e[1] for e in events]), array("i", [e[2] for e in events]), draw(TIMES), draw(st.integers(-1, 5)),
        draw(st.integers(0, 5)),
        draw(st.sampled_from(["ok", "cut"])), draw(st.none() | st.text()), draw(COUNT), draw(COUNT), draw(COUNT), draw(COUNT), draw(COUNT),
        draw(st.frozensets(st.sampled_from(["usage", "[DONE]"]))), draw(COUNT), draw(st.none() | st.text()),
        draw(st.none() | st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False), max_size=2)),
        draw(st.none() | st.text() | st.just("half of a pair: \ud800")),
    )  # fmt: skip


@given(st.lists(sample(), max_size=4))
def test_samples_come_back_as_they_were(samples: list[Sample]) -> None:
    told, events = pack_result(WorkerResult(samples, VITALS, "interrupted", saturated=False))
    found = unpack_result(through_json(told), events)
    assert found.samples == samples
    assert (found.vitals, found.stopped) == (VITALS, "interrupted")


def test_every_field_of_a_sample_is_drawn_above() -> None:
    assert len(fields(Sample)) == 25, "add the new one to `sample`"
