"""One answer, three ways through the client: recognised in C, recognised in Python, and every event parsed. All must say the same."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import pytest
from enginebench.dialects import OpenAICompletions
from enginebench.domain import Sample
from enginebench.loadgen import decode
from enginebench.loadgen.decode import Decoder
from enginebench.loadgen.exchange import Exchange
from enginebench.loadgen.transport import connection as connections
from enginebench.loadgen.transport.connection import Connection
from enginebench.loadgen.transport.library import library
from enginebench.loadgen.transport.receiver import Receiver
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("built_receiver")

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"data: [DONE]\n\n"


def event(text: bytes, reason: bytes = b"null") -> bytes:
    return b'data: {"id":"a","choices":[{"index":0,"text":"' + text + b'","finish_reason":' + reason + b"}]}\n\n"


BREAKS_OUT = b'x","finish_reason":"stop"},{"index":1,"text":"y'
TWO_EVENTS = b'x","finish_reason":null}]}\n\ndata: {"id":"a","choices":[{"index":0,"text":"y'
ERROR = b'x","finish_reason":null}],"error":{"message":"no"},"more":[{"z":"'


def chunk(piece: bytes, spelling: bytes) -> bytes:
    return spelling % len(piece) + b"\r\n" + piece + b"\r\n"


class Owner:
    reuse = True

    def ended(self, exchange: Exchange) -> None:
        exchange.settle()


class Wire(asyncio.Transport):
    """A transport of the event loop, as far as a connection uses one."""

    def __init__(self, connection: Connection) -> None:
        super().__init__({})
        self._connection: Connection | None = connection

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            asyncio.get_running_loop().call_soon(connection.connection_lost, None)


def told(sample: Sample) -> dict[str, object]:
    """Everything but the times, which must be in order."""
    assert sorted(sample.event_ns) == list(sample.event_ns)
    names = ("outcome", "error", "event_chars", "event_tokens", "text", "finish_reason", "output_tokens", "status_code")
    return {name: getattr(sample, name) for name in names} | {"answered": sample.first_answer_ns > 0}


async def through_python(pieces: Sequence[bytes], exchange: Exchange) -> None:
    connection = Connection(Owner())
    connection.connection_made(Wire(connection))
    connection.send(exchange, b"")
    for piece in pieces:
        if connection.exchange is not None:
            connection.data_received(piece)
    if connection.exchange is not None:
        connection.connection_lost(None)


async def through_c(pieces: Sequence[bytes], exchange: Exchange) -> None:
    found = library()
    assert found is not None
    hub, connection = Receiver(found), Connection(Owner())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await hub.connect("127.0.0.1", listening.getsockname()[1], connection)
        server, _ = listening.accept()
    with server:
        connection.send(exchange, b"x")
        server.recv(1)  # else its close would be a reset
        with suppress(ConnectionError):  # the client had enough
            for piece in pieces:
                server.sendall(piece)
                hub._ready()
    for _ in range(1000):
        if connection.exchange is None:
            break
        await asyncio.sleep(0.001)
    hub.close()


def play(way: Any, pieces: Sequence[bytes]) -> dict[str, object]:
    async def run() -> Sample:
        sample = Sample(0, 1, 100)
        await way(pieces, Exchange(sample, Decoder(sample, OpenAICompletions(), keep_text=True), lambda _: None))
        return sample

    return told(asyncio.run(run()))


@contextmanager
def nothing_is_recognised() -> Iterator[None]:
    with patch.object(decode, "learnable", lambda _: False):
        yield


TEXTS = st.one_of(
    st.sampled_from([b" tok", b"word", b" a b", b"123"]),
    st.sampled_from([b" tok", b"word", b" a b", b"123"]),
    st.sampled_from(
        [
            b"\\n",
            b'\\"',
            b"\\u20ac",
            b"\\ud83d\\ude00",
            "\u00fc\u20ac".encode(),
            b"\xff",
            b"a\\",
            BREAKS_OUT,
            TWO_EVENTS,
            ERROR,
            b"z" * 9000,
        ]
    ),
)
ANSWERS = st.tuples(
    st.lists(TEXTS, min_size=1, max_size=24),
    st.sampled_from([b"%x", b"%X"]),
    st.lists(st.one_of(st.integers(1, 400), st.integers(1, 30)), max_size=60),
    st.integers(1, 4),
    st.binary(max_size=3),
)


def cut(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    return [piece for piece in (*pieces, stream) if piece]


@settings(max_examples=300, deadline=None)
@given(ANSWERS)
def test_the_same_answer_whatever_the_way(answer: tuple[list[bytes], bytes, list[int], int, bytes]) -> None:
    texts, spelling, sizes, together, noise = answer
    events = [event(text) for text in texts] + [event(b"end", b'"length"'), END]
    chunks = [chunk(b"".join(events[at : at + together]), spelling) for at in range(0, len(events), together)]
    if noise:
        chunks.insert(len(chunks) // 2, noise)
    stream = HEAD + b"".join(chunks) + b"0\r\n\r\n"
    whole = [HEAD, *chunks, b"0\r\n\r\n"]
    ended_at_once = [*whole[:-3], b"".join(whole[-3:])]
    for pieces in (whole, ended_at_once, cut(stream, sizes)):
        with nothing_is_recognised():
            parsed = play(through_python, pieces)
        assert play(through_python, pieces) == parsed
        assert play(through_c, pieces) == parsed


@pytest.mark.parametrize("text", [BREAKS_OUT, TWO_EVENTS, ERROR])
@pytest.mark.parametrize("way", [through_python, through_c])
def test_a_text_that_breaks_out_of_its_string_is_read_for_what_it_is(way: Any, text: bytes) -> None:
    events = [event(b" tok")] * 4 + [event(text)] * 300 + [event(b" tok")] * 300 + [event(b"end", b'"length"'), END]
    pieces = [HEAD, *(chunk(piece, b"%x") for piece in events), b"0\r\n\r\n"]
    with nothing_is_recognised():
        parsed = play(through_python, pieces)
    assert play(way, pieces) == parsed


@pytest.mark.parametrize("way", [through_python, through_c])
def test_a_long_event_among_short_ones_keeps_its_place(way: Any) -> None:
    texts = [b"one", b"two", b"z" * 9000, b"three", b"four"]
    found = play(way, [HEAD, *(chunk(event(text), b"%x") for text in texts), chunk(END, b"%x"), b"0\r\n\r\n"])
    assert found["text"] == b"".join(texts).decode()


@pytest.mark.parametrize("way", [through_python, through_c])
@pytest.mark.parametrize("spelling", [b"%x", b"%X"])
def test_either_spelling_of_sizes_is_learned_though_the_first_size_has_no_letter(way: Any, spelling: bytes) -> None:
    plain = next(n for n in range(1, 99) if spelling % len(event(b"a" * n)) == b"%d%d" % divmod(len(event(b"a" * n)), 16))
    letter = next(n for n in range(1, 99) if b"%x" % len(event(b"a" * n)) != b"%X" % len(event(b"a" * n)))
    texts = [b"a" * plain] * 2 + [b"a" * letter] * 50
    reads: list[int] = []
    read = Exchange.read
    with patch.object(Exchange, "read", lambda self, stamp, data: (reads.append(1) if data else None, read(self, stamp, data))[1]):
        play(way, [HEAD, *(chunk(event(text), spelling) for text in texts), chunk(END, b"%x"), b"0\r\n\r\n"])
    assert len(reads) < 10


@pytest.mark.parametrize(("opened_s", "again"), [(0.0, False), (0.9, False), (1.1, True), (4.9, True)])
def test_a_request_that_crosses_the_close_of_a_connection_without_requests_is_sent_again(opened_s: float, again: bool) -> None:
    """A server may close a connection that a load kept ready, as llama.cpp's does after 5 s."""
    connection = Connection(Owner())
    with patch.object(connections, "monotonic_ns", lambda: 0):
        connection.connection_made(Wire(connection))
    sample = Sample(0, 1, 100)
    exchange = Exchange(sample, Decoder(sample, OpenAICompletions(), keep_text=True), lambda _: None)
    with patch.object(connections, "monotonic_ns", lambda: int(opened_s * 1e9)):
        connection.send(exchange, b"")
        connection.connection_lost(None)
    assert (sample.outcome, exchange.stale) == ("cut", again)
