"""From raw pieces to a sample: which events count as output, whose tokens are known, and that the template is only faster."""

from __future__ import annotations

import json
from array import array

import pytest
from enginebench.dialects import Event, OpenAIChat, OpenAICompletions
from enginebench.domain import Sample
from enginebench.loadgen.decode import Decoder
from hypothesis import given, settings
from hypothesis import strategies as st


def decode(pieces: list[bytes], *, templates: bool = True, chat: bool = False) -> tuple[Sample, Decoder]:
    """Decode a stream whose i-th piece arrived at time 10 * i."""
    sample = Sample(0, 1, 100, status_code=200)
    decoder = Decoder(sample, OpenAIChat() if chat else OpenAICompletions(), keep_text=True)
    if not templates:
        decoder._patience = 0
    decoder.feed(array("q", range(0, 10 * len(pieces), 10)), pieces)
    decoder.finish(10 * len(pieces), whole=True)
    return sample, decoder


def event(text: str | None, **fields: object) -> bytes:
    """A completions event as vLLM writes it; fields go beside `choices`, and finish_reason or token_ids into the choice."""
    inner: dict[str, object] = {k: fields.pop(k) for k in ("finish_reason", "token_ids") if k in fields}
    choices: list[dict[str, object]] = [] if text is None else [{"index": 0, "text": text, "logprobs": None, **inner}]
    body = {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": choices, **fields}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


EVENTS = st.one_of(
    st.sampled_from([" the", "a", "text", "index", " 12", "m", "é", "日", '"', "\\", "\n", "", "stop", ":", " ", "<b>"]).map(event),
    st.builds(event, st.sampled_from([" a", "b"]), token_ids=st.lists(st.integers(0, 3), max_size=3)),
    st.builds(event, st.sampled_from([" a", None]), usage=st.fixed_dictionaries({"completion_tokens": st.integers(-1, 9)})),
    st.builds(event, st.sampled_from(["", "z"]), finish_reason=st.just("stop")),
    st.sampled_from([b": ping\n\n", b"data: [DONE]\n\n", b"data: {\n\n", b'data: {"error": "x"}\n\n', event("q")[:-1], b"\n", b"\r\n\r\n"]),
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(EVENTS, max_size=30))
def test_a_template_changes_nothing_but_the_speed(pieces: list[bytes]) -> None:
    fast, fast_decoder = decode(pieces)
    full, full_decoder = decode(pieces, templates=False)
    assert fast == full
    assert (fast_decoder.failure, fast_decoder.finished) == (full_decoder.failure, full_decoder.finished)


def test_a_template_is_used() -> None:
    calls = 0

    class Counting(OpenAICompletions):
        def decode(self, payload: bytes) -> Event:
            nonlocal calls
            calls += 1
            return super().decode(payload)

    sample = Sample(0, 1, 100, status_code=200)
    decoder = Decoder(sample, Counting(), keep_text=False)
    pieces = [event(f" word{i}") for i in range(50)]
    decoder.feed(array("q", range(50)), pieces)
    assert list(sample.event_ns) == list(range(50))
    assert list(sample.event_chars) == [len(f" word{i}") for i in range(50)]
    assert calls == 2, "the first event and the probe"


def test_a_byte_order_mark_teaches_nothing() -> None:
    """It belongs to the start of the stream: before another event it would make that event one of an unknown field."""
    mark = b"\xef\xbb\xbf"
    pieces = [mark + event("first"), mark + event("lost"), event("second")]
    sample, _ = decode(pieces)
    assert (list(sample.event_ns), list(sample.event_chars)) == ([0, 20], [5, 6])
    assert sample == decode(pieces, templates=False)[0]


def test_role_chunks_pings_and_usage_are_no_output() -> None:
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    text = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n'
    sample, decoder = decode([role, b": ping\n\n", text, usage, b"data: [DONE]\n\n"], chat=True)
    assert list(sample.event_ns) == [20]
    assert (sample.input_tokens, sample.output_tokens, sample.text) == (5, 1, "hi")
    assert decoder.finished


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        ([event("a"), event("b", usage={"completion_tokens": 2})], [-1, -1]),  # usage at the end: nothing about its event
        ([event("a", usage={"completion_tokens": 1}), event("b", usage={"completion_tokens": 4})], [1, 3]),  # running usage
        ([event("a", token_ids=[7, 8]), event("b", token_ids=[9])], [2, 1]),
        ([event("a", usage={"completion_tokens": 10**20})], [-1]),
    ],
)
def test_tokens_of_an_event(pieces: list[bytes], tokens: list[int]) -> None:
    assert list(decode(pieces)[0].event_tokens) == tokens


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"error": {"message": "too long"}}', "in_stream_error"),
        (b'{"choices": [{"text": "a whole completion"}]}', "malformed"),
        (b"data: {bad}\n\n", "malformed"),
        (b"event: error\ndata: overloaded\n\n", "in_stream_error"),
    ],
)
def test_a_200_that_is_no_stream_of_events(body: bytes, outcome: str) -> None:
    failure = decode([body])[1].failure
    assert failure is not None
    assert failure[0] == outcome


def test_more_events_than_could_have_been_asked_for() -> None:
    sample, decoder = decode([event("a")] * 5000)
    assert decoder.failure is not None
    assert decoder.failure[0] == "malformed"
    assert 4 * 100 + 4096 < len(sample.event_ns) <= 4 * 100 + 4096 + 256  # a run of events is taken whole


def test_a_token_without_text_is_output_where_the_stream_counts_along() -> None:
    pieces = [
        event("", usage={"completion_tokens": 0}),
        event("", usage={"completion_tokens": 1}),
        event("é", usage={"completion_tokens": 2}),
    ]
    sample, decoder = decode(pieces)
    assert (list(sample.event_ns), list(sample.event_tokens)) == ([10, 20], [1, 1])
    assert not decoder.finished, "usage beside choices is no end"


def test_reasoning_without_text_is_no_answer() -> None:
    silent, said = event("", token_ids=[7]), event("yes", token_ids=[8])
    sample, _ = decode([silent, said])
    assert (sample.event_ns[0], sample.first_answer_ns) == (0, 10)
    sample, _ = decode([silent, silent])
    assert sample.first_answer_ns == 0 == sample.event_ns[0]


def test_usage_at_the_beginning_is_no_end_of_the_stream() -> None:
    usage = event(None, usage={"prompt_tokens": 3, "completion_tokens": 0})
    assert not decode([usage, event(" a"), event(" b")])[1].finished
    assert decode([usage, event(" a"), event("", finish_reason="stop"), usage])[1].finished


def test_two_texts_that_are_no_strings_are_not_one_pair_of_strings() -> None:
    """Joined by '","' they would be: the first one ends with a backslash, the second one has the quotes that are missing."""
    plain = [event(f" t{i}") for i in range(6)]
    bad = [event("TEXT").replace(b"TEXT", text) for text in (b"x\\", b',"z')]
    sample, decoder = decode([*plain, *bad])
    assert decoder.failure is not None
    assert decoder.failure[0] == "malformed"
    assert len(sample.event_ns) == 6


def test_usage_of_zeros_beside_text_is_no_count() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    sample, _ = decode([event("a"), event("b"), event("", finish_reason="stop"), event(None, usage=zeros), b"data: [DONE]\n\n"])
    assert (sample.output_tokens, sample.input_tokens) == (None, None)
    assert sample.end_marks == {"finish_reason", "[DONE]"}


@pytest.mark.parametrize("early", [0, 1, 16], ids=["zeros", "ones", "the total"])
def test_usage_that_is_filled_in_at_the_end_counts_no_single_event(early: int) -> None:
    pieces = [event("a", usage={"completion_tokens": early}) for _ in range(16)]
    sample, _ = decode([*pieces, event("", finish_reason="length", usage={"completion_tokens": 16}), b"data: [DONE]\n\n"])
    assert sample.output_tokens == 16
    assert set(sample.event_tokens) == {-1}
    assert sample.end_marks == {"finish_reason", "usage", "[DONE]"}


def test_running_usage_counts_each_event() -> None:
    pieces = [event("a", usage={"completion_tokens": 2 * (i + 1)}) for i in range(4)]
    assert list(decode(pieces)[0].event_tokens) == [2, 2, 2, 2]


def test_the_answer_of_a_conversation_leaves_reasoning_out() -> None:
    sample = Sample(0, 1, 100, status_code=200, conversation=3)
    decoder = Decoder(sample, OpenAIChat(), keep_text=True)
    deltas = [{"reasoning_content": "hm "}] * 6 + [{"content": "yes "}] * 6 + [{"reasoning_content": "x", "content": 'y"'}]
    pieces = [b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n" for delta in deltas]
    decoder.feed(array("q", range(len(pieces))), pieces)
    decoder.finish(99, whole=True)
    assert decoder.answer.decode() == "yes " * 6 + 'y"'
    assert sample.text == "hm " * 6 + "yes " * 6 + 'xy"'


def test_an_error_that_a_proxy_adds_without_framing_is_an_error() -> None:
    _, decoder = decode([event("a"), b'{"error": {"message": "upstream gone"}}\n\n'])
    assert decoder.failure is not None
    assert decoder.failure[0] == "in_stream_error"
