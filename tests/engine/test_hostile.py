"""Servers that misbehave on the wire: each ends as a classified outcome, in bounded time, and harms no other request."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from enginebench.dialects import OpenAICompletions
from enginebench.loadgen import LoadResult, Target, WireRequest, run_load

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

EVENT = b'data: {"choices":[{"index":0,"text":" a","finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"text":" z","finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
REDIRECT = b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
ENDLESS_HEADERS = [b"X-%d: %b\r\n" % (i, b"y" * 1000) for i in range(200)]
TIMEOUT_S = 0.5


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def sized(body: bytes, length: int | None = None, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (head, len(body) if length is None else length, body)


GOOD = CHUNKED + chunk(EVENT) + chunk(LAST) + chunk(DONE) + b"0\r\n\r\n"


@contextlib.contextmanager
def serving(handle: Handler) -> Iterator[Target]:
    """A server in a thread of its own; a connection ends when its handler does."""
    loop = asyncio.new_event_loop()
    ready: list[asyncio.Server] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handle(reader, writer)
        writer.close()

    async def start() -> None:
        ready.append(await asyncio.start_server(connected, "127.0.0.1", 0))

    async def stop() -> None:
        ready[0].close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Target("127.0.0.1", ready[0].sockets[0].getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def request(reader: asyncio.StreamReader) -> int:
    """Read one request; its number."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    await reader.readexactly(int(fields[b"content-length"]))
    return int(fields[b"x-request-id"].rsplit(b"-", 1)[1])


def always(*parts: bytes, close: bool = False, pause_s: float = 0.0) -> Handler:
    """Answer every request with these bytes, one write each."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if close:
                return

    return handle


def load(target: Target, count: int = 1, concurrency: int = 1) -> LoadResult:
    requests = [WireRequest(i, "/v1/completions", b"{}", 1, 8) for i in range(count)]
    started = time.monotonic()
    result = run_load(target, requests, concurrency=concurrency, dialect=OpenAICompletions(), timeout_s=TIMEOUT_S, idle_timeout_s=5.0)
    assert time.monotonic() - started < 2 * count * TIMEOUT_S + 1.5
    assert len(result.samples) == count
    return result


@pytest.mark.parametrize(
    ("handler", "outcome", "words"),
    [
        pytest.param(always(GOOD), "ok", "", id="control"),
        pytest.param(always(*(GOOD[i : i + 1] for i in range(len(GOOD)))), "ok", "", id="one byte at a time"),
        pytest.param(always(CHUNKED, chunk(LAST), b"0\r\n\r\n"), "ok", "", id="no [DONE]"),
        pytest.param(always(CHUNKED, chunk(EVENT), b"0\r\n\r\n"), "ok", "", id="framing ends it without a finish reason"),
        pytest.param(always(CHUNKED, chunk(LAST), b"0\r\nX-Trailer: 1\r\n\r\n"), "ok", "", id="trailers"),
        pytest.param(always(b"HTTP/1.1 100 Continue\r\n\r\n", GOOD), "ok", "", id="100 continue"),
        pytest.param(always(sized(EVENT + LAST)), "ok", "", id="content-length"),
        pytest.param(always(sized(EVENT + LAST[:-2])), "ok", "", id="last event without its blank line"),
        pytest.param(always(UNTIL_CLOSE, EVENT, LAST, close=True), "ok", "", id="until close, finished"),
        pytest.param(always(UNTIL_CLOSE, EVENT, close=True), "cut", "before the stream said", id="until close, unfinished"),
        pytest.param(always(close=True), "cut", "before any byte", id="closes at once"),
        pytest.param(always(b"HTTP/1.1 200", close=True), "cut", "mid-response", id="closes in the status line"),
        pytest.param(always(CHUNKED, close=True), "cut", "mid-response", id="closes after the headers"),
        pytest.param(always(CHUNKED, chunk(LAST), chunk(DONE), close=True), "cut", "mid-response", id="[DONE] but no last chunk"),
        pytest.param(always(sized(EVENT + LAST, 10_000), close=True), "cut", "mid-response", id="content-length too long, closes"),
        pytest.param(always(sized(EVENT + LAST, 10_000)), "timeout", "not complete", id="content-length too long, stays"),
        pytest.param(always(sized(EVENT + LAST, len(EVENT))), "malformed", "after the end", id="content-length too short"),
        pytest.param(always(GOOD + b"garbage"), "malformed", "after the end", id="garbage after the end"),
        pytest.param(always(GOOD + GOOD), "malformed", "after the end", id="two responses"),
        pytest.param(always(CHUNKED, b"zz\r\n"), "malformed", "not HTTP", id="bad chunk size"),
        pytest.param(always(CHUNKED, b"5\r\nabcdefgh\r\n"), "malformed", "not HTTP", id="chunk longer than it says"),
        pytest.param(always(b"220 mail.example ESMTP\r\n"), "malformed", "not HTTP", id="another protocol"),
        pytest.param(always(bytes(range(256))), "malformed", "not HTTP", id="binary"),
        pytest.param(always(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), "malformed", "switch", id="upgrade"),
        pytest.param(always(b"HTTP/1.1 200 OK\r\n", *ENDLESS_HEADERS), "malformed", "headers", id="endless headers"),
        pytest.param(always(REDIRECT), "http_status", "HTTP 307", id="redirect"),
        pytest.param(always(b"HTTP/1.1 204 No\r\n\r\n"), "http_status", "HTTP 204", id="204"),
        pytest.param(always(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\nlost", close=True), "http_status", "lost", id="500 until close"),
        pytest.param(always(sized(b"")), "empty", "without any output", id="empty body"),
        pytest.param(always(sized(DONE)), "empty", "without any output", id="only [DONE]"),
        pytest.param(always(sized(b"<html>login</html>")), "empty", "login", id="a page"),
        pytest.param(always(sized(b'{"error":"no such model"}')), "in_stream_error", "no such model", id="a JSON error under 200"),
        pytest.param(always(sized(b"data: \xff\n\n")), "malformed", "in event", id="broken UTF-8"),
        pytest.param(always(CHUNKED, pause_s=5), "timeout", "not complete", id="silence after the headers"),
        pytest.param(always(CHUNKED, *[chunk(EVENT)] * 100, pause_s=0.02), "timeout", "not complete", id="trickle"),
        pytest.param(always(CHUNKED, *[chunk(b": ping\n\n")] * 100, pause_s=0.02), "timeout", "not complete", id="only pings"),
    ],
)  # fmt: skip
def test_outcome(handler: Handler, outcome: str, words: str) -> None:
    with serving(handler) as target:
        (sample,) = load(target).samples
    assert (sample.outcome, words in (sample.error or "")) == (outcome, True), sample.error


def test_broken_utf8_across_reads_is_whole() -> None:
    body = 'data: {"choices":[{"text":"€","finish_reason":"stop"}]}\n\n'.encode()
    cut = body.index(b"\xe2") + 1
    with serving(always(CHUNKED, chunk(body[:cut]), chunk(body[cut:]), b"0\r\n\r\n", pause_s=0.01)) as target:
        (sample,) = load(target).samples
    assert (sample.outcome, list(sample.event_chars)) == ("ok", [1])


def test_an_event_is_stamped_by_the_read_that_completes_it() -> None:
    with serving(always(CHUNKED, chunk(LAST[:-1]), chunk(LAST[-1:]), b"0\r\n\r\n", pause_s=0.1)) as target:
        (sample,) = load(target).samples
    assert sample.event_ns[0] - sample.headers_ns >= 150_000_000


@pytest.mark.parametrize("flood", [chunk(b"x" * 65536), chunk(EVENT * 500)], ids=["one endless line", "endless events"])
def test_a_flood_ends_before_memory_does(flood: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(CHUNKED)
        for _ in range(20_000):
            writer.write(flood)
            await writer.drain()

    with serving(handle) as target:
        (sample,) = load(target).samples
    assert sample.outcome in ("malformed", "timeout")
    assert len(sample.event_ns) < 10_000


def test_connection_close_reconnects_before_the_clock_starts() -> None:
    with serving(always(sized(LAST, head=b"Connection: close\r\n"), close=True)) as target:
        result = load(target, 6)
    assert [s.outcome for s in result.samples] == ["ok"] * 6
    assert result.client.reconnects == 5


def test_a_server_that_breaks_its_promise_of_keep_alive_gets_a_fresh_connection_for_each_request() -> None:
    """llama.cpp's server does: keep-alive in the headers, and a close after every stream. The request that crossed is sent again."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(GOOD)
        await writer.drain()

    with serving(handle) as target:
        result = load(target, 6)
    assert [s.outcome for s in result.samples] == ["ok"] * 6
    assert [s.index for s in result.samples] == list(range(6))
    assert result.client.stale <= 1
    assert result.client.reconnects == 5


def test_a_first_request_that_is_cut_is_never_sent_again() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)

    with serving(handle) as target:
        result = load(target, 3)
    assert [s.outcome for s in result.samples] == ["cut"] * 3
    assert result.client.stale == 0


def test_a_429_is_never_retried() -> None:
    asked = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked.append(await request(reader))
            writer.write(b"HTTP/1.1 429 Slow\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy")

    with serving(handle) as target:
        result = load(target, 3)
    assert [(s.outcome, s.status_code) for s in result.samples] == [("http_status", 429)] * 3
    assert asked == [0, 1, 2]


def test_one_bad_request_in_five_harms_no_other() -> None:
    bad = [GOOD + b"garbage", CHUNKED + b"zz\r\n", CHUNKED + chunk(b"data: {\n\n") + b"0\r\n\r\n", b"\x00" * 100]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            number = await request(reader)
            writer.write(bad[number // 5 % len(bad)] if number % 5 == 0 else GOOD)
            await writer.drain()

    with serving(handle) as target:
        result = load(target, 60, concurrency=6)
    assert [s.outcome for s in result.samples] == ["malformed" if i % 5 == 0 else "ok" for i in range(60)]


def test_a_server_that_accepts_and_never_answers() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    with serving(handle) as target:
        assert [s.outcome for s in load(target, 2, concurrency=2).samples] == ["timeout"] * 2


def test_a_server_that_hangs_up_on_every_connection() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    with serving(handle) as target:
        assert {s.outcome for s in load(target, 6, concurrency=2).samples} <= {"cut", "connect"}
