"""The server around ExLlamaV3's Generator, over real sockets and with a stand-in that only counts in the Generator's place.

Knows nothing of ExLlamaV3 itself, which needs a GPU: its calls and results are held against the package by `make contracts`.
Run as a program, this file serves the stand-in until it is told to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from enginebench.adapter import WORKERS
from enginebench.dialects import OpenAICompletions
from enginebench.loadgen import LoadSpec, Target, WireRequest, run_load

sys.path.append(str(WORKERS))
from exllamav3_scheduler import Ask, Piece, Usage
from exllamav3_server import Server, serve
from exllamav3_worker import VISIBLE, arguments, claim

ROOM = 1000
"""Tokens that the stand-in has for one request."""


class Counting:
    """A `Backend` whose n-th token of a request is n. With a gate it takes one step for each permit."""

    def __init__(self, slots: int = 4, gate: threading.Semaphore | None = None) -> None:
        self.slots, self.gate = slots, gate
        self.waiting: list[int] = []
        self.running: dict[int, int] = {}
        self.asks: dict[int, Ask] = {}
        self.most = self.output = 0
        self.cancelled: list[int] = []
        self.finished: list[int] = []
        self.closed = False

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        if messages[-1]["role"] != "user":
            raise ValueError("the user has the last word")
        return [0, *self.encode(" ".join(message["content"] for message in messages))]

    def enqueue(self, request: int, ask: Ask) -> None:
        if len(ask.prompt) + ask.max_tokens > ROOM:
            raise ValueError(f"no room for {ask.max_tokens} tokens")
        self.asks[request] = ask
        self.waiting.append(request)

    def cancel(self, request: int) -> None:
        self.cancelled.append(request)
        self.running.pop(request, None)
        self.waiting = [other for other in self.waiting if other != request]

    def step(self) -> list[Piece]:
        if self.gate is not None:
            assert self.gate.acquire(timeout=20)
        while self.waiting and len(self.running) < self.slots:
            self.running[self.waiting.pop(0)] = 0
        self.most = max(self.most, len(self.running))
        return [self._token(request) for request in list(self.running)]

    def _token(self, request: int) -> Piece:
        self.running[request] += 1
        self.output += 1
        made, ask = self.running[request], self.asks[request]
        if made == 666:
            raise RuntimeError("illegal memory access")
        if made < ask.max_tokens:
            return Piece(request, f"{made} ", [made])
        del self.running[request]
        self.finished.append(request)
        timings = {"queue_time_ms": 0.0, "prompt_ms": 1.0, "predicted_ms": 2.0, "predicted_n": made}
        return Piece(request, f"{made} ", [made], "length", Usage(len(ask.prompt), 0, made, timings))

    def gauges(self) -> Mapping[str, float]:
        return {"output_tokens_total": self.output, "running": len(self.running), "waiting": len(self.waiting)}

    def about(self) -> Mapping[str, object]:
        return {"slots": self.slots}

    def close(self) -> None:
        self.closed = True


@contextlib.asynccontextmanager
async def served(load: Callable[[], Counting]) -> AsyncIterator[tuple[Server, int]]:
    """A server in this loop, its engine in a thread, and its port."""
    server = Server(load, "counter")
    port = await server.start("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        assert await server.stop()


async def until_ready(port: int) -> None:
    """Ask until it is; each question gives the engine's thread its turn."""
    while (await exchange(port, "/health"))[0] == 503:
        pass


async def turns(gate: threading.Semaphore, done: Callable[[], object]) -> None:
    """One step of the engine after another until something is so."""
    while not done():
        gate.release()
        await asyncio.to_thread(lambda: None)


def run(test: Awaitable[None]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test, 30)

    asyncio.run(limited())


class Client:
    """A connection that speaks just enough HTTP, and shows what arrived in which chunk."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, path: str, body: Mapping[str, object] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.writer.write(
            b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (b"GET" if body is None else b"POST", path.encode(), len(data))
        )
        self.writer.write(data)

    async def head(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), head.lower()

    async def body(self) -> tuple[int, Any]:
        status, head = await self.head()
        data = await self.reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        return status, json.loads(data) if b"application/json" in head else data.decode()

    async def chunk(self) -> list[Any]:
        """The events of one chunk; an empty list is the end of the stream."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = (await self.reader.readexactly(size + 2))[:-2]
        events = [event.removeprefix(b"data: ") for event in data.split(b"\n\n") if event]
        return [event.decode() if event == b"[DONE]" else json.loads(event) for event in events]


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(port: int, path: str, body: Mapping[str, object] | None = None) -> tuple[int, Any]:
    async with connected(port) as client:
        client.send(path, body)
        return await client.body()


COMPLETION = {"model": "counter", "prompt": [5, 6, 7], "max_tokens": 3, "temperature": 0.0, "ignore_eos": True}
STREAM = {**COMPLETION, "stream": True, "stream_options": {"include_usage": True}}


def test_503_while_the_model_is_loaded() -> None:
    async def test() -> None:
        loaded = threading.Event()

        def load() -> Counting:
            assert loaded.wait(20)
            return Counting()

        async with served(load) as (_, port):
            for path, body in (("/health", None), ("/metrics", None), ("/enginebench", None), ("/v1/completions", COMPLETION)):
                status, told = await exchange(port, path, body)
                assert (status, told["error"]["message"]) == (503, "the model is loading")
            loaded.set()
            await until_ready(port)
            assert await exchange(port, "/enginebench") == (200, {"model": "counter", "slots": 4})
            assert (await exchange(port, "/v1/models"))[1]["data"][0]["id"] == "counter"

    run(test())


def test_a_stream_leaves_token_by_token_and_ends_with_usage() -> None:
    async def test() -> None:
        gate = threading.Semaphore(0)
        async with served(lambda: Counting(gate=gate)) as (_, port), connected(port) as client:
            await until_ready(port)
            for _ in range(2):  # on the same connection
                client.send("/v1/completions", STREAM)
                gate.release()
                status, head = await client.head()
                assert status == 200
                assert b"text/event-stream" in head
                for token in (1, 2):
                    (event,) = await client.chunk()
                    assert event["choices"] == [{"index": 0, "text": f"{token} ", "token_ids": [token], "finish_reason": None}]
                    assert "usage" not in event
                    gate.release()
                last, usage, done = await client.chunk()
                assert last["choices"][0]["token_ids"] == [3]
                assert last["choices"][0]["finish_reason"] == "length"
                assert usage["choices"] == []
                counts = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6, "prompt_tokens_details": {"cached_tokens": 0}}
                assert usage["usage"] == counts
                assert usage["timings"]["predicted_n"] == 3
                assert done == "[DONE]"
                assert await client.chunk() == []

    run(test())


def test_chat_and_whole_answers() -> None:
    async def test() -> None:
        backend = Counting()
        async with served(lambda: backend) as (_, port):
            await until_ready(port)
            fields = {"messages": [{"role": "user", "content": "one two"}], "max_tokens": 2, "top_p": 0.9, "seed": 3}
            status, whole = await exchange(port, "/v1/chat/completions", fields)
            assert status == 200
            message = {"role": "assistant", "content": "1 2 "}
            assert whole["choices"] == [{"index": 0, "message": message, "token_ids": [1, 2], "finish_reason": "length"}]
            assert whole["usage"]["prompt_tokens"] == 3
            assert backend.asks[1] == Ask([0, 3, 3], 2, top_p=0.9, seed=3)
            async with connected(port) as client:
                client.send("/v1/chat/completions", {**fields, "stream": True})
                assert (await client.head())[0] == 200
                (event,) = await client.chunk()
                assert event["choices"][0]["delta"] == {"role": "assistant", "content": "1 "}
                *_, done = await client.chunk()
                assert done == "[DONE]"  # and no usage, which nobody asked for
            assert (await exchange(port, "/v1/completions", {**COMPLETION, "prompt": "a bcd"}))[1]["usage"]["prompt_tokens"] == 2

    run(test())


def test_a_client_that_leaves_takes_its_request_with_it() -> None:
    async def test() -> None:
        gate = threading.Semaphore(0)
        backend = Counting(gate=gate)
        async with served(lambda: backend) as (_, port), connected(port) as stays:
            await until_ready(port)
            async with connected(port) as leaves:
                leaves.send("/v1/completions", {**STREAM, "max_tokens": 900})
                gate.release()
                assert (await leaves.head())[0] == 200
                await leaves.chunk()
            stays.send("/v1/completions", STREAM)
            await turns(gate, lambda: backend.cancelled and backend.finished)
            assert (backend.cancelled, backend.finished) == ([1], [2])
            assert (await stays.head())[0] == 200
            events: list[Any] = []
            while chunk := await stays.chunk():
                events += chunk
            assert events[-1] == "[DONE]"

    run(test())


def test_more_requests_than_the_batch_holds_wait_and_are_all_answered() -> None:
    async def test() -> None:
        gate = threading.Semaphore(0)
        backend = Counting(slots=2, gate=gate)
        async with served(lambda: backend) as (_, port), contextlib.AsyncExitStack() as stack:
            await until_ready(port)
            clients = [await stack.enter_async_context(connected(port)) for _ in range(5)]
            for client in clients:
                client.send("/v1/completions", {**COMPLETION, "max_tokens": 600})
            await turns(gate, lambda: len(backend.running) == 2 and len(backend.waiting) == 3)
            assert (await exchange(port, "/metrics"))[1].endswith("exllamav3_running 2\nexllamav3_waiting 3\n")
            gate.release(5000)
            answers = [await client.body() for client in clients]
            assert [answer[1]["usage"]["completion_tokens"] for answer in answers] == [600] * 5
            assert backend.most == 2
            assert (await exchange(port, "/metrics"))[1].startswith("exllamav3_output_tokens_total 3000\n")

    run(test())


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("/v1/completions", {**COMPLETION, "best_of": 2}, 400, "best_of: unknown field"),
        ("/v1/completions", {**COMPLETION, "max_tokens": "7"}, 400, "max_tokens: expected int"),
        ("/v1/completions", {**COMPLETION, "max_tokens": True}, 400, "max_tokens: expected int"),
        ("/v1/completions", {**COMPLETION, "max_tokens": 0}, 400, "at least 1"),
        ("/v1/completions", {**COMPLETION, "prompt": ["a", "b"]}, 400, "one list of token ids"),
        ("/v1/completions", {**COMPLETION, "prompt": []}, 400, "no tokens"),
        ("/v1/completions", {**COMPLETION, "top_p": 0}, 400, "0 < top_p <= 1"),
        ("/v1/completions", {**COMPLETION, "model": "other"}, 404, "this server has counter"),
        ("/v1/completions", {**COMPLETION, "max_tokens": ROOM}, 400, "no room for 1000 tokens"),
        ("/v1/completions", {**STREAM, "max_tokens": ROOM}, 400, "no room for 1000 tokens"),
        ("/v1/chat/completions", {"messages": [{"role": "system", "content": "a"}]}, 400, "the user has the last word"),
        ("/v1/chat/completions", {"messages": []}, 400, "non-empty list"),
        ("/v1/embeddings", COMPLETION, 404, "no route POST /v1/embeddings"),
        ("/v1/completions", None, 404, "no route GET /v1/completions"),
    ],
)
def test_what_is_refused(path: str, body: Mapping[str, object] | None, status: int, why: str) -> None:
    async def test() -> None:
        async with served(Counting) as (_, port):
            await until_ready(port)
            refused, told = await exchange(port, path, body)
            assert refused == status
            assert why in told["error"]["message"]
            assert (await exchange(port, "/v1/completions", COMPLETION))[0] == 200  # and the server is none the worse for it

    run(test())


@pytest.mark.parametrize(
    "said", [b"nonsense\r\n\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_no_request_ends_the_connection(said: bytes) -> None:
    async def test() -> None:
        async with served(Counting) as (_, port), connected(port) as client:
            client.writer.write(said)
            assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")

    run(test())


def test_an_engine_that_fails_says_so_to_everybody_and_ends_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        async with served(Counting) as (server, port), connected(port) as streams, connected(port) as whole:
            await until_ready(port)
            streams.send("/v1/completions", {**STREAM, "max_tokens": 700})
            whole.send("/v1/completions", {**COMPLETION, "max_tokens": 700})
            assert (await streams.head())[0] == 200
            events: list[Any] = []
            while chunk := await streams.chunk():
                events += chunk
            assert events[-1]["error"]["message"] == "the engine failed: RuntimeError: illegal memory access"
            status, told = await whole.body()
            assert status == 500
            assert told["error"]["type"] == "server_error"
            assert await server.ended == 1

    run(test())
    assert "illegal memory access" in capfd.readouterr().err


def test_a_load_that_fails_ends_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    def load() -> Counting:
        raise MemoryError("the weights do not fit")

    async def test() -> None:
        async with served(load) as (server, _):
            assert await server.ended == 1

    run(test())
    assert "the weights do not fit" in capfd.readouterr().err


def test_stopping_closes_the_engine() -> None:
    async def test() -> None:
        backend = Counting()
        async with served(lambda: backend) as (_, port):
            await until_ready(port)
        assert backend.closed

    run(test())


def test_the_load_generator_counts_what_the_server_counts() -> None:
    async def test() -> None:
        dialect = OpenAICompletions()
        async with served(lambda: Counting(slots=3)) as (_, port):
            await until_ready(port)
            body = json.dumps(STREAM | {"max_tokens": 40}).encode()
            spec = LoadSpec(Target("127.0.0.1", port), [WireRequest(i, dialect.path, body, 3, 40) for i in range(12)], 6, dialect, 20.0)
            found = await asyncio.to_thread(run_load, spec)
        assert {(s.outcome, s.input_tokens, s.output_tokens, s.cached_tokens, s.finish_reason) for s in found.samples} == {
            ("ok", 3, 40, 0, "length")
        }
        assert all(list(s.event_tokens) == [1] * 40 for s in found.samples)
        assert all(s.server_timings is not None and s.server_timings["predicted_n"] == 40 for s in found.samples)

    run(test())


@pytest.mark.parametrize("state", ["loading", "idle", "streaming"])
def test_sigterm_ends_it_at_once(state: str) -> None:
    process = subprocess.Popen([sys.executable, __file__, state], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stderr.readline().partition("127.0.0.1:")[2].partition(",")[0])
        assert process.stdout.readline() == f"{'loading' if state == 'loading' else 'loaded'}\n"

        async def test() -> None:
            async with connected(port) as client:
                if state == "streaming":
                    await until_ready(port)
                    client.send("/v1/completions", {**STREAM, "max_tokens": 900})
                    assert (await client.head())[0] == 200
                    await client.chunk()
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(ConnectionError):
                    await client.reader.read()

        run(test())
        assert process.wait(15) == 0, process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("visible", "gpus", "left"),
    [(None, 1, "0"), (None, 2, "0,1"), ("2,3,5", 2, "2,3"), ("GPU-a,GPU-b", 1, "GPU-a")],
)
def test_the_worker_sees_only_its_devices(monkeypatch: pytest.MonkeyPatch, visible: str | None, gpus: int, left: str) -> None:
    monkeypatch.setenv(VISIBLE, "")  # so that it is put back
    if visible is None:
        monkeypatch.delenv(VISIBLE)
    else:
        monkeypatch.setenv(VISIBLE, visible)
    claim(gpus)
    assert os.environ[VISIBLE] == left


def test_the_worker_refuses_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "3")
    with pytest.raises(SystemExit, match="leaves 1 of the 2 GPUs"):
        claim(2)


def test_the_worker_leaves_others_flags_in_their_order() -> None:
    own, rest = arguments().parse_known_args(["serve", "--gpus", "2", "--slots", "8", "-m", "/m", "-gs", "20,22", "-tp", "--port", "9"])
    assert (own.mode, own.gpus, own.slots, own.port) == ("serve", 2, 8, 9)
    assert rest == ["-m", "/m", "-gs", "20,22", "-tp"]
    own, rest = arguments().parse_known_args(["tabbyapi", "--gpus", "1", "/opt/tabbyAPI/main.py", "--config", "/site/config.yml"])
    assert rest == ["/opt/tabbyAPI/main.py", "--config", "/site/config.yml"]


def _stand_in(state: str) -> int:
    def load() -> Counting:
        print("loading" if state == "loading" else "loaded", flush=True)
        if state == "loading":
            threading.Event().wait()
        return Counting(gate=threading.Semaphore(3))  # after three steps it is in the middle of one for 20 s

    return serve(load, model="counter", host="127.0.0.1", port=0)


if __name__ == "__main__":
    sys.exit(_stand_in(sys.argv[1]))
