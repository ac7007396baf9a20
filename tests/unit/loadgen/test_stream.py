"""The event splitters: any chunking of a stream gives the same events, and no bytes make them raise."""

from __future__ import annotations

from itertools import pairwise

import pytest
from enginebench.dialects import (
    Dialect,
    Event,
    Framing,
    OllamaChat,
    OllamaGenerate,
    OpenAIChat,
    OpenAICompletions,
    SglangGenerate,
    TgiGenerateStream,
)
from enginebench.loadgen import outcomes
from enginebench.loadgen.stream import MAX_EVENT_BYTES, StreamTooLongError, splitter
from hypothesis import given, settings
from hypothesis import strategies as st


def split(framing: Framing, body: bytes, cuts: list[int] | None = None) -> list[bytes]:
    """All payloads of a body that arrives in pieces cut at these offsets."""
    machine = splitter(framing)
    edges = [0, *sorted(c % (len(body) + 1) for c in cuts or ()), len(body)]
    events = [event for a, b in pairwise(edges) for event in machine.feed(body[a:b])]
    return events + machine.finish()


PAYLOADS = st.lists(st.text('ab {}:"\x00é€😀\u2028', min_size=1), max_size=8)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
CUTS = st.lists(st.integers(0, 10_000), max_size=12)
SOUP_WORDS = (
    *(b"data: ", b"data:", b"data", b"\n", b"\r", b"\r\n", b": ping", b"event: error"),
    *(b"id: 7", b"\xef\xbb\xbf", b"\xe2\x82", b"\xac", b"{}", b"x"),
)
SOUP = st.lists(st.sampled_from(SOUP_WORDS))


@settings(deadline=None)  # a busy machine is no failure
@given(PAYLOADS, ENDS, CUTS)
def test_sse_events_do_not_depend_on_line_ends_or_chunking(payloads: list[str], end: bytes, cuts: list[int]) -> None:
    body = b"".join(b"data: " + p.encode() + end + end for p in payloads)
    assert split("sse", body, cuts) == [p.encode() for p in payloads]


@settings(deadline=None)  # a busy machine is no failure
@given(PAYLOADS, st.sampled_from([b"\n", b"\r\n"]), CUTS)
def test_ndjson_events_do_not_depend_on_line_ends_or_chunking(payloads: list[str], end: bytes, cuts: list[int]) -> None:
    body = end.join(p.encode() for p in payloads)
    assert split("ndjson", body, cuts) == [stripped for p in payloads if (stripped := p.encode().strip())]


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from(["sse", "ndjson"]), SOUP | st.lists(st.binary(max_size=20)), CUTS)
def test_any_bytes_give_the_same_events_however_they_are_cut(framing: Framing, parts: list[bytes], cuts: list[int]) -> None:
    body = b"".join(parts)
    assert split(framing, body, cuts) == split(framing, body)


STREAMS: dict[Framing, bytes] = {
    "sse": b'data: {"choices":[{"text":"a"}]}\n\n' * 5 + b"data: [DONE]\n\n",
    "ndjson": b'{"response":"a","done":false}\n' * 5 + b'{"done":true}\n',
}


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from(["sse", "ndjson"]), st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 255), CUTS)
def test_a_mutated_stream_never_raises_however_it_is_cut(framing: Framing, noise: bytes, at: int, byte: int, cuts: list[int]) -> None:
    body = bytearray(STREAMS[framing])
    body[at % len(body)] = byte
    assert split(framing, bytes(body) + noise, cuts) == split(framing, bytes(body) + noise)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"", []),
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),  # one space belongs to the syntax, the next to the data
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": ping\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b"event: message\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),  # the last event lacks its blank line
        (b"data\n\ndata: \n\n", []),
        (b"\n\n\n", []),
        (b"data: a\r\rdata: b\r\n\r\n", [b"a", b"b"]),
    ],
)
def test_sse_by_example(body: bytes, events: list[bytes]) -> None:
    assert split("sse", body) == events
    assert split("sse", body, list(range(len(body)))) == events


def test_an_event_belongs_to_the_piece_that_completes_it() -> None:
    machine = splitter("sse")
    assert machine.feed(b"data: first\n") == []
    assert machine.feed(b"\ndata: sec") == [b"first"]
    assert machine.feed(b"ond\r") == []
    assert machine.feed(b"\n\r\n") == [b"second"]


@pytest.mark.parametrize("body", [b'event: error\ndata: {"message":"no"}\n\n', b'error: {"message":"no"}\n\n'])
def test_an_error_event_is_no_payload(body: bytes) -> None:
    machine = splitter("sse")
    assert machine.feed(b"data: a\n\n" + body + b"data: b\n\n") == [b"a", b"b"]
    assert machine.error == b'{"message":"no"}'


def feed_repeatedly(framing: Framing, piece: bytes) -> None:
    """Feed twice the bound."""
    machine = splitter(framing)
    for _ in range(0, 2 * MAX_EVENT_BYTES + len(piece), len(piece)):
        machine.feed(piece)


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
@pytest.mark.parametrize("size", [1 << 10, 1 << 16, 1 << 22])
def test_an_endless_line_is_refused(framing: Framing, size: int) -> None:
    with pytest.raises(StreamTooLongError):
        feed_repeatedly(framing, b"x" * size)


def test_an_event_of_endless_lines_is_refused() -> None:
    with pytest.raises(StreamTooLongError):
        feed_repeatedly("sse", b"data: " + b"x" * (1 << 10) + b"\n")


# -- a splitter with the decoder of a dialect behind it ------------------------------------------------------------------

SAID: dict[Dialect, list[bytes]] = {
    OpenAICompletions(): [b'{"choices":[{"text":"\xc3\xa9"}]}', b'{"choices":[],"usage":{"completion_tokens":1}}'],
    OpenAIChat(): [
        b'{"choices":[{"delta":{"reasoning":"hm"}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}',
    ],
    SglangGenerate(): [
        b'{"text":" a","output_ids":[7],"meta_info":{"completion_tokens":1,"finish_reason":null}}',
        b'{"text":" a \xc3\xa9","output_ids":[7,8],"meta_info":{"completion_tokens":2,"finish_reason":{"type":"stop"}}}',
    ],
    TgiGenerateStream(): [
        b'{"token":{"id":1,"text":" a","special":false},"details":null}',
        b'{"token":{"text":"b"},"generated_text":" ab","details":{"generated_tokens":2}}',
    ],
    OllamaGenerate(): [b'{"response":" a","done":false}', b'{"response":"","done":true,"eval_count":2}'],
    OllamaChat(): [b'{"message":{"content":" a"},"done":false}', b'{"message":{"content":""},"done":true,"eval_count":2}'],
}


def on_the_wire(dialect: Dialect) -> bytes:
    sse = dialect.framing == "sse"
    return b"".join(b"data: %b\n\n" % p if sse else p + b"\n" for p in SAID[dialect] * 3) + (b"data: [DONE]\n\n" if sse else b"")


def heard(dialect: Dialect, body: bytes, cuts: list[int]) -> tuple[list[Event], str | None]:
    """The events of a stream that arrives in pieces cut at these offsets, up to what ends it."""
    machine, decoder = splitter(dialect.framing), dialect.decoder()
    edges = [0, *sorted(c % (len(body) + 1) for c in cuts), len(body)]
    events: list[Event] = []
    try:
        for a, b in pairwise(edges):
            events += map(decoder, machine.feed(body[a:b]))
        events += map(decoder, machine.finish())
    except outcomes.DECODE_ERRORS as error:
        return events, type(error).__name__
    return events, None


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["set", "insert", "drop", "repeat"]), st.binary(max_size=6)), max_size=6
)


def mutated(body: bytes, mutations: list[tuple[int, str, bytes]]) -> bytes:
    for at, how, noise in mutations:
        i = at % (len(body) + 1)
        after = body[i:] if how == "insert" else body[i + len(noise) :] if how in ("set", "drop") else body[i // 2 :]
        body = body[:i] + (noise if how in ("set", "insert") else b"") + after
    return body


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from(list(SAID)), CUTS)
def test_the_events_of_a_stream_do_not_depend_on_how_it_is_cut(dialect: Dialect, cuts: list[int]) -> None:
    body = on_the_wire(dialect)
    assert heard(dialect, body, cuts) == heard(dialect, body, [])
    assert heard(dialect, body, [])[1] is None


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(list(SAID)), MUTATIONS, CUTS)
def test_a_mutated_stream_ends_as_nonsense_at_worst(dialect: Dialect, mutations: list[tuple[int, str, bytes]], cuts: list[int]) -> None:
    """And what was heard before the nonsense is the same however it was cut."""
    body = mutated(on_the_wire(dialect), mutations)
    assert heard(dialect, body, cuts) == heard(dialect, body, [])
