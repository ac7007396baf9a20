"""The fake engine's HTTP server: connections, queueing, and the streams as bytes, faults included, with their times."""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from fake_native import ROUTES
from fake_spelling import Spelling

Frame: TypeAlias = tuple[int, bytes]
"""(token, bytes to write at its time)"""

CUT = b""
"""In place of bytes to write: close the connection."""
AT_ONCE = -1
"""In place of a token: send at once."""
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def frames(options: argparse.Namespace, spelling: Spelling) -> Iterator[Frame]:
    """The stream in the pieces in which it is written. A batch of events is sent with its last event."""
    single, size = events(options, spelling), max(1, options.batch_events)
    if size == 1:
        yield from single
        return
    while batch := list(itertools.islice(single, size)):
        token, last = batch[-1]
        data = b"".join([data for _, data in batch])
        if data:
            yield token, data
        if last == CUT:
            yield token, CUT


def events(options: argparse.Namespace, spelling: Spelling) -> Iterator[Frame]:
    ping = chunk(spelling.ping) if options.pings else b""
    opening, closing = spelling.opening(), spelling.closing()
    ending = (chunk(closing) if closing else b"") + LAST_CHUNK
    if opening or ping:
        yield AT_ONCE, (chunk(opening) if opening else b"") + ping
    if not spelling.count:
        yield 0, ending
    faulty = options.cut_after or options.in_stream_error or options.malformed != "no"
    for number, tokens in enumerate(spelling.tokens()):
        if faulty:
            if options.cut_after and tokens.start >= options.cut_after:
                yield tokens.start, CUT
                return
            if options.in_stream_error and tokens.start >= options.in_stream_error:
                yield tokens.start, chunk(spelling.error("fake error in mid-stream")) + LAST_CHUNK
                return
        data = chunk(spelling.event(tokens)) if number != 1 or options.malformed == "no" else broken(options.malformed, spelling)
        yield tokens.start, data + (ending if spelling.ends(tokens) else ping)


def broken(what: str, spelling: Spelling) -> bytes:
    """An event with invalid JSON or UTF-8, or a chunk that is invalid HTTP."""
    if what == "chunk":
        return b"zz\r\nthis is not a chunk size\r\n"
    return chunk(spelling.frame(b'{"text":' if what == "json" else b'{"text":" \xff\xfe"}'))


@dataclass
class Spelled:
    """A request, whether it is streamed, and the stream if it is prepared in advance."""

    spelling: Spelling
    streams: bool
    made: list[Frame] | None


class Engine:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.started = time.monotonic()
        self.slots = asyncio.Semaphore(options.slots) if options.slots else None
        self.lockstep = Lockstep(options.tick_ms / 1e3) if options.tick_ms else None
        self.requests = self.prompt_tokens = self.output_tokens = 0
        self.fast = options.tick_ms > 0 or options.batch_events > 0
        # Where speed matters, equal requests are prepared once.
        self.spelled = lru_cache(maxsize=64)(self._spelled) if self.fast else self._spelled

    def _spelled(self, path: str, raw: bytes) -> Spelled:
        body = json.loads(raw)
        spelling = ROUTES[self.options.protocol][path](self.options, body)
        made = list(frames(self.options, spelling)) if self.fast else None
        return Spelled(spelling, body.get("stream", path == "/generate_stream") is True, made)

    @property
    def loading(self) -> bool:
        return bool(self.options.never_ready or time.monotonic() - self.started < self.options.load_s)

    def get(self, path: str) -> tuple[int, object]:
        options = self.options
        if path in ("/health", "/ready"):
            return (503, {"error": {"message": "loading model"}}) if self.loading else (200, {"status": "ok"})
        if path == "/metrics":
            counters = {"requests": self.requests, "prompt_tokens": self.prompt_tokens, "output_tokens": self.output_tokens}
            counters["cached_tokens"] = self.requests * options.cached_tokens
            return 200, "".join(f"fake_{name}_total {value}\n" for name, value in counters.items())
        replies = self.about()
        return (200, replies[path]) if path in replies else (404, {"error": {"message": f"no route {path}"}})

    def about(self) -> dict[str, object]:
        """The engine's configuration, where an engine of this protocol reports it."""
        options = self.options
        native: dict[str, dict[str, object]] = {
            "openai": {},
            "ollama": {
                "/api/version": {"version": "fake"},
                "/api/ps": {"models": [{"name": options.model, "context_length": options.context}]},
            },
            "sglang": {"/server_info": {"version": "fake", "context_length": options.context, "max_running_requests": options.slots}},
            "tgi": {"/info": {"version": "fake", "model_id": options.model, "max_total_tokens": options.context}},
        }
        models = {"object": "list", "data": [{"id": options.model, "object": "model"}]}
        return {"/v1/models": models, "/props": vars(options), **native[options.protocol]}


class Lockstep:
    """A batch whose streams take steps together: one event of each is sent at every tick."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._streams: list[tuple[Callable[[bytes], None], list[bytes], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def play(self, write: Callable[[bytes], None], pieces: list[bytes]) -> None:
        """Send these pieces, one per tick from the next one on; returns when the last has been sent."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._streams.append((write, pieces[::-1], ended))
        if self._task is None:
            self._task = loop.create_task(self._run())
        await ended

    async def _run(self) -> None:
        loop, at = asyncio.get_running_loop(), 0.0
        while True:
            at = max(at + self._tick_s, loop.time())  # ticks that are missed are lost
            await asyncio.sleep(at - loop.time())
            over = False
            for write, left, ended in self._streams:
                write(left.pop())
                if not left:
                    ended.set_result(None)
                    over = True
            if over:
                self._streams = [stream for stream in self._streams if stream[1]]


class Connection:
    def __init__(self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.engine, self.reader, self.writer, self.options = engine, reader, writer, engine.options
        self.routes = ROUTES[engine.options.protocol]
        self.extra_headers = b"Connection: close\r\n" if engine.options.close else b""

    async def serve(self) -> None:
        await asyncio.sleep(self.options.slow_accept_s)
        while True:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split("\r\n", 1)[0].split(" ", 2)
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            raw = await self.reader.readexactly(int(fields.get("content-length", "0")))
            if method == "GET":
                self.reply(*self.engine.get(path))
            else:
                await self.generate(path, raw, asyncio.get_running_loop().time())
            await self.writer.drain()
            if self.options.close:
                self.writer.close()
                return

    def reply(self, status: int, body: object) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        kind = b"text/plain" if isinstance(body, str) else b"application/json"
        head = b"HTTP/1.1 %d Fake\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n"
        self.writer.write(head % (status, kind, len(data), self.extra_headers) + data)

    async def generate(self, path: str, raw: bytes, t0: float) -> None:
        options, engine = self.options, self.engine
        if options.crash_after and engine.requests >= options.crash_after:
            print("fake engine: illegal memory access (as asked by --crash-after)", file=sys.stderr, flush=True)
            os._exit(3)
        if path not in self.routes:
            return self.reply(404, {"error": {"message": f"no route {path}"}})
        if options.http_error:
            return self.reply(options.http_error, {"error": {"message": f"refused with {options.http_error}, as asked"}})
        if engine.loading:
            return self.reply(503, {"error": {"message": "loading model"}})
        spelled = engine.spelled(path, raw)
        spelling = spelled.spelling
        async with engine.slots or contextlib.nullcontext():
            start = t0 if engine.slots is None else max(t0, asyncio.get_running_loop().time())
            if spelled.streams:
                await self.stream(spelled, start)
            else:
                await self.due(spelling, start, spelling.count - 1)
                self.reply(200, spelling.whole())
        engine.requests += 1
        engine.prompt_tokens += 0 if spelling.handed else spelling.prompt_tokens
        engine.output_tokens += 0 if spelling.hands_over else spelling.count
        return None

    async def due(self, spelling: Spelling, start: float, token: int) -> None:
        """Wait for this token's time, which is absolute: a late token never delays the next."""
        options = self.options
        if token == AT_ONCE:
            return
        if options.burst:
            token = spelling.count - 1
        prefill_ms = 0.0 if spelling.handed else options.ttft_ms + spelling.prompt_tokens * options.prefill_ms_per_token
        at = start + (prefill_ms + token * options.itl_ms) / 1e3
        if options.stall_after and token >= options.stall_after:
            at += options.stall_s
        delay = at - asyncio.get_running_loop().time()
        if delay > 0:
            await asyncio.sleep(delay)

    async def stream(self, spelled: Spelled, start: float) -> None:
        spelling, lockstep = spelled.spelling, self.engine.lockstep
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n%b\r\n"
        self.writer.write(head % (spelling.kind.encode(), self.extra_headers))
        if lockstep is not None and spelled.made is not None:
            await self.due(spelling, start, 0)
            await lockstep.play(self.writer.transport.write, [data for _, data in spelled.made])
            if spelled.made[-1][1] == CUT:
                raise ConnectionAbortedError
            return
        for token, data in spelled.made or frames(self.options, spelling):
            await self.due(spelling, start, token)
            if data == CUT:
                raise ConnectionAbortedError
            self.writer.write(data)
            if spelled.made is not None:  # each batch is a separate write, and every stream gets its turn
                await self.writer.drain()
                await asyncio.sleep(0)
