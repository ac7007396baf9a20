"""Servers that misbehave on the wire: each ends as a classified outcome, in bounded time, and harms no other request."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from enginebench.dialects import OpenAICompletions
from enginebench.loadgen import LoadResult, LoadSpec, Target, WireRequest, run_load
from enginebench.records.samples import Samples

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("stamps")

EVENT = b'data: {"choices":[{"index":0,"text":" a","finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"text":" z","finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
REDIRECT = b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 429 Slow\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy"
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
    handlers: set[asyncio.Task[object]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            handlers.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handle(reader, writer)
        writer.close()

    async def start() -> None:
        ready.append(await asyncio.start_server(connected, "127.0.0.1", 0))

    async def stop() -> None:
        ready[0].close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in handlers:  # asyncio's own task that takes a new connection is not cancelled: its socket would stay open
                task.cancel()
            await asyncio.wait(others, timeout=0.05)

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
    return int(fields[b"x-request-id"].rsplit(b"-", 1)[1], 16)


@dataclass(frozen=True)
class Answer:
    """What a server sends: one write for each part."""

    parts: tuple[bytes, ...]
    close: bool = False
    pause_s: float = 0.0

    async def send(self, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        for part in self.parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(self.pause_s)
        return not self.close


def answer(*parts: bytes, close: bool = False, pause_s: float = 0.0) -> Answer:
    return Answer(parts, close, pause_s)


def answering(choose: Callable[[int], Answer]) -> Handler:
    """A server that gives the n-th request the answer choose(n)."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await choose(await request(reader)).send(writer):
            pass

    return handle


def always(*parts: bytes, close: bool = False, pause_s: float = 0.0) -> Handler:
    """Answer every request with these bytes."""
    return answering(lambda _: answer(*parts, close=close, pause_s=pause_s))


def load(target: Target, count: int = 1, concurrency: int = 1, body: bytes = b"{}") -> LoadResult:
    requests = [WireRequest(i, "/v1/completions", body, 1, 8) for i in range(count)]
    started = time.monotonic()
    result = run_load(LoadSpec(target, requests, concurrency, OpenAICompletions(), TIMEOUT_S))
    assert time.monotonic() - started < 2 * count * TIMEOUT_S + 5
    assert len(result.samples) == count
    return result


HTTP_10 = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
GZIP = b"Content-Encoding: gzip\r\n"
TORN = 'data: {"choices":[{"text":"€'.encode()
EXTENDED = b'%x;name=value;other="a b"\r\n%b\r\n' % (len(LAST), LAST)
CASES = [
    pytest.param(answer(GOOD), "ok", "", id="control"),
    pytest.param(answer(*(GOOD[i : i + 1] for i in range(len(GOOD)))), "ok", "", id="one byte at a time"),
    pytest.param(answer(CHUNKED, chunk(LAST), b"0\r\n\r\n"), "ok", "", id="no [DONE]"),
    pytest.param(answer(CHUNKED, chunk(EVENT), b"0\r\n\r\n"), "ok", "", id="framing ends it without a finish reason"),
    pytest.param(answer(CHUNKED, chunk(LAST), b"0\r\nX-Trailer: 1\r\n\r\n"), "ok", "", id="trailers"),
    pytest.param(answer(b"HTTP/1.1 100 Continue\r\n\r\n", GOOD), "ok", "", id="100 continue"),
    pytest.param(answer(b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: gzip\r\n\r\n", GOOD), "ok", "", id="103 with an encoding"),
    pytest.param(answer(sized(EVENT + LAST)), "ok", "", id="content-length"),
    pytest.param(answer(sized(EVENT + LAST[:-2])), "ok", "", id="last event without its blank line"),
    pytest.param(answer(UNTIL_CLOSE, EVENT, LAST, close=True), "ok", "", id="until close, finished"),
    pytest.param(answer(UNTIL_CLOSE, EVENT, close=True), "cut", "before the stream was complete", id="until close, unfinished"),
    pytest.param(answer(close=True), "cut", "before any byte", id="closes at once"),
    pytest.param(answer(b"HTTP/1.1 200", close=True), "cut", "mid-response", id="closes in the status line"),
    pytest.param(answer(CHUNKED, close=True), "cut", "mid-response", id="closes after the headers"),
    pytest.param(answer(CHUNKED, chunk(LAST), chunk(DONE), close=True), "cut", "mid-response", id="[DONE] but no last chunk"),
    pytest.param(answer(sized(EVENT + LAST, 10_000), close=True), "cut", "mid-response", id="content-length too long, closes"),
    pytest.param(answer(sized(EVENT + LAST, 10_000)), "timeout", "not complete", id="content-length too long, stays"),
    pytest.param(answer(sized(EVENT + LAST, len(EVENT))), "malformed", "after the end", id="content-length too short"),
    pytest.param(answer(GOOD + b"garbage"), "malformed", "after the end", id="garbage after the end"),
    pytest.param(answer(GOOD + GOOD), "malformed", "after the end", id="two responses"),
    pytest.param(answer(CHUNKED, b"zz\r\n"), "malformed", "not HTTP", id="bad chunk size"),
    pytest.param(answer(CHUNKED, b"5\r\nabcdefgh\r\n"), "malformed", "not HTTP", id="chunk longer than it says"),
    pytest.param(answer(b"220 mail.example ESMTP\r\n"), "malformed", "not HTTP", id="another protocol"),
    pytest.param(answer(bytes(range(256))), "malformed", "not HTTP", id="binary"),
    pytest.param(answer(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), "malformed", "switch", id="upgrade"),
    pytest.param(answer(b"HTTP/1.1 200 OK\r\n", *ENDLESS_HEADERS), "malformed", "headers", id="endless headers"),
    pytest.param(answer(REDIRECT), "http_status", "HTTP 307", id="redirect"),
    pytest.param(answer(b"HTTP/1.1 204 No\r\n\r\n"), "http_status", "HTTP 204", id="204"),
    pytest.param(answer(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\nlost", close=True), "http_status", "lost", id="500 until close"),
    pytest.param(answer(sized(b"")), "empty", "without output events", id="empty body"),
    pytest.param(answer(sized(DONE)), "empty", "without output events", id="only [DONE]"),
    pytest.param(answer(sized(b"<html>login</html>")), "empty", "login", id="a page"),
    pytest.param(answer(sized(b'{"error":"no such model"}')), "in_stream_error", "no such model", id="a JSON error under 200"),
    pytest.param(answer(sized(b"data: \xff\n\n")), "malformed", "in event", id="broken UTF-8"),
    pytest.param(answer(CHUNKED, pause_s=5), "timeout", "not complete", id="silence after the headers"),
    pytest.param(answer(CHUNKED, *[chunk(EVENT)] * 100, pause_s=0.02), "timeout", "not complete", id="trickle"),
    pytest.param(answer(CHUNKED, *[chunk(b": ping\n\n")] * 100, pause_s=0.02), "timeout", "not complete", id="only pings"),
    pytest.param(answer(*(GOOD[i : i + 1] for i in range(len(GOOD))), pause_s=0.02), "timeout", "not complete", id="a byte now and then"),
    pytest.param(answer(HTTP_10, EVENT, LAST, close=True), "ok", "", id="HTTP/1.0, until close"),
    pytest.param(answer(HTTP_10, EVENT, close=True), "cut", "before the stream was complete", id="HTTP/1.0, unfinished"),
    pytest.param(answer(sized(LAST).replace(b"/1.1", b"/1.0"), close=True), "ok", "", id="HTTP/1.0, content-length"),
    pytest.param(answer(CHUNKED, EXTENDED, b'0;end="y"\r\n\r\n'), "ok", "", id="chunk extensions"),
    pytest.param(answer(sized(gzip.compress(EVENT + LAST), head=GZIP)), "malformed", "response (gzip)", id="gzip though not asked for"),
    pytest.param(answer(sized(b"data: {\n\n")), "malformed", "in event", id="half an object"),
    pytest.param(answer(sized(b"data: [1]\n\n")), "malformed", "in event", id="no object"),
    pytest.param(answer(CHUNKED, chunk(TORN[:-1]), chunk(b'"}]}\n\n'), pause_s=0.01), "malformed", "in event", id="torn UTF-8"),
    pytest.param(answer(BUSY), "http_status", "HTTP 429: busy", id="429"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "outcome", "words"), CASES)
def test_outcome(bad: Answer, outcome: str, words: str) -> None:
    with serving(answering(lambda _: bad)) as target:
        (sample,) = load(target).samples
    assert (sample.outcome, words in (sample.error or "")) == (outcome, True), sample.error


@pytest.mark.parametrize(("bad", "outcome", "words"), CASES)
def test_the_other_requests_of_the_load_are_untouched(bad: Answer, outcome: str, words: str) -> None:
    if outcome == "ok" and not all(mark in b"".join(bad.parts) for mark in (b"[DONE]", b"finish_reason")):
        outcome = "cut"  # the others end with both
    with serving(answering(lambda number: bad if number == 3 else answer(GOOD))) as target:
        result = load(target, 9, concurrency=3)
    assert [s.outcome for s in result.samples] == ["ok"] * 3 + [outcome] + ["ok"] * 5
    assert all(len(s.event_ns) == 2 for s in result.samples if s.index != 3)


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


LINE_OF_50_MB = sized(b"data: ", 6 + (50 << 20) + len(LAST)), b"x" * (1 << 16), 800


@pytest.mark.parametrize(
    ("head", "flood", "times"),
    [(CHUNKED, chunk(b"x" * 65536), 20_000), (CHUNKED, chunk(EVENT * 500), 20_000), LINE_OF_50_MB],
    ids=["one endless line", "endless events", "a line of 50 MB"],
)
def test_a_flood_ends_before_memory_does(head: bytes, flood: bytes, times: int) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if await request(reader) != 1:
                writer.write(GOOD)
                continue
            writer.write(head)
            for _ in range(times):
                writer.write(flood)
                await writer.drain()
            writer.write(LAST)

    with serving(handle) as target:
        good, sample, *rest = load(target, 4, concurrency=2).samples
    assert sample.outcome in ("malformed", "timeout")
    assert len(sample.event_ns) < 10_000
    assert [s.outcome for s in (good, *rest)] == ["ok"] * 3


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


@pytest.mark.parametrize(("refusal", "status"), [(BUSY, 429), (REDIRECT, 307), (BUSY.replace(b"429", b"503"), 503)])
def test_a_refusal_is_never_retried_and_a_redirect_never_followed(refusal: bytes, status: int) -> None:
    asked = []

    def choose(number: int) -> Answer:
        asked.append(number)
        return answer(refusal)

    with serving(answering(choose)) as target:
        result = load(target, 3)
    assert [(s.outcome, s.status_code) for s in result.samples] == [("http_status", status)] * 3
    assert asked == [0, 1, 2]


@pytest.mark.clock
@pytest.mark.parametrize(
    ("early", "stays", "allowed"),
    [
        (GOOD, True, {"ok"}),
        (b"HTTP/1.1 413 Too large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", False, {"http_status", "cut"}),  # a reset may win
    ],
    ids=["stays and reads on", "refuses and closes"],
)
def test_an_answer_before_the_request_was_read(early: bytes, stays: bool, allowed: set[str]) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(early)
            await writer.drain()
            if not stays:
                return
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))

    with serving(handle) as target:
        result = load(target, 4, concurrency=2, body=b" " * (4 << 20) + b"{}")
    assert {s.outcome for s in result.samples} <= allowed


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


def test_a_cut_after_much_of_an_answer_is_never_sent_again() -> None:
    """On a kept connection, and just after a batch was decoded: it must not be taken for a close that crossed the request."""
    asked: list[int] = []
    much = chunk(EVENT) * 400

    def choose(number: int) -> Answer:
        asked.append(number)
        return answer(CHUNKED, chunk(LAST), b"0\r\n\r\n") if number == 0 else answer(CHUNKED, much, close=True, pause_s=0.05)

    with serving(answering(choose)) as target:
        result = load(target, count=2)
    assert [s.outcome for s in result.samples] == ["ok", "cut"]
    assert (asked, result.client.stale) == ([0, 1], 0)


def test_trailers_without_end_are_given_up() -> None:
    with serving(always(CHUNKED, chunk(LAST), b"0\r\nX-Endless: ", *(b"x" * 20_000 for _ in range(40)))) as target:
        (sample,) = load(target).samples
    assert sample.outcome == "malformed"
    assert "trailers" in (sample.error or "")


def test_a_count_beyond_all_reason_is_no_count() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":18446744073709551615}}\n\n'
    with serving(always(CHUNKED, chunk(LAST + usage), b"0\r\n\r\n")) as target:
        result = load(target)
    assert (result.samples[0].outcome, result.samples[0].output_tokens) == ("ok", None)
    assert len(Samples.collect(result.samples)) == 1


def test_an_aborted_request_has_failed() -> None:
    abort = b'data: {"choices":[{"text":"","finish_reason":"abort"}]}\n\n'
    with serving(always(CHUNKED, chunk(EVENT + abort), b"0\r\n\r\n")) as target:
        (sample,) = load(target).samples
    assert sample.outcome == "in_stream_error"
    assert "abort" in (sample.error or "")


def test_a_text_that_is_kept_has_a_bound() -> None:
    huge = b'data: {"choices":[{"text":"' + b"a" * 90_000 + b'"}]}\n\n'
    with serving(always(CHUNKED, *(chunk(huge) for _ in range(20)), pause_s=0.01)) as target:
        requests = [WireRequest(0, "/v1/completions", b"{}", 1, 8)]
        (sample,) = run_load(LoadSpec(target, requests, 1, OpenAICompletions(), TIMEOUT_S, keep_text=True)).samples
    assert sample.outcome == "malformed"
    assert "characters for 8 tokens" in (sample.error or "")
    assert len(sample.event_ns) < 20


def test_a_request_that_a_kept_connection_swallowed_is_a_failure_and_not_sent_again() -> None:
    """The server had it for longer than a close is on its way."""
    asked = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked.append(number := await request(reader))
            if number == 1:
                await asyncio.sleep(0.3)
                return
            writer.write(GOOD)

    with serving(handle) as target:
        result = load(target, 4)
    assert [s.outcome for s in result.samples] == ["ok", "cut", "ok", "ok"]
    assert (asked, result.client.stale) == ([0, 1, 2, 3], 0)


def test_one_request_that_hangs_costs_the_others_nothing() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if await request(reader) == 2:
                await asyncio.sleep(60)
            writer.write(GOOD)

    with serving(handle) as target:
        result = load(target, 8)
    assert [s.outcome for s in result.samples] == ["ok", "ok", "timeout"] + ["ok"] * 5
    assert result.stopped is None


@pytest.mark.clock
def test_requests_that_hang_beside_others_that_are_served_cost_only_themselves() -> None:
    """Both time out at the same look."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if await request(reader) in (1, 2):
                await asyncio.sleep(60)
            await answer(*(GOOD[i : i + 20] for i in range(0, len(GOOD), 20)), pause_s=0.01).send(writer)

    with serving(handle) as target:
        result = load(target, 40, concurrency=3)
    assert [s.outcome for s in result.samples] == ["ok", "timeout", "timeout"] + ["ok"] * 37
    assert result.stopped is None


def test_a_server_that_closes_late_costs_one_request_for_each_connection() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(GOOD)
        await writer.drain()
        await asyncio.sleep(0.2)

    with serving(handle) as target:
        result = load(target, 10)
    assert [s.outcome for s in result.samples] == ["ok", "cut"] + ["ok"] * 8


def test_a_server_that_never_shakes_hands_costs_no_time_out_for_each_request() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    with serving(handle) as target:
        started = time.monotonic()
        requests = [WireRequest(i, "/v1/completions", b"{}", 1, 8) for i in range(50)]
        result = run_load(LoadSpec(replace(target, tls=True), requests, 1, OpenAICompletions(), 0.3))
    assert time.monotonic() - started < 5
    assert {s.outcome for s in result.samples} <= {"connect", "cancelled"}
    assert "no connection within 0.3 s" in (result.samples[0].error or "")
    assert "no response from the server" in (result.stopped or "")
    assert result.unsent > 40
