"""A server with planted faults: OpenAI's completions and chat over SSE, correct except for what `Faults` says. Standard library only.

    python benchmarks/faulty_server.py --host 127.0.0.1 --port 8000 '{"stall_s": 1.2, "share": 0.25}'

Each fault is one number or switch, so that a benchmark can plant it at several strengths.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

DISK_FILE_BYTES = 256 << 20


@dataclass(frozen=True)
class Faults:
    """The pace of the server, and its faults; at the defaults there is none."""

    ttft_ms: float = 20.0
    itl_ms: float = 3.0
    share: float = 1.0
    """Part of the requests that a fault of single requests hits, spread evenly."""
    cached: float = 0.0
    """Part of each prompt that usage reports as read from a prefix cache."""
    shorter: float = 0.0
    """Part of the asked output that is missing."""
    prompt_limit: int = 0
    """Tokens of a prompt beyond which the server drops the rest without a word, as its usage shows; 0: none."""
    bundle: int = 1
    """Tokens in one event."""
    buffer_events: int = 1
    """Events that are held back and sent together."""
    flush_ms: float = 0.0
    """Whatever is written waits for the next multiple of so many ms, as behind a proxy that buffers."""
    error: bool = False
    """An error event in the middle of a stream."""
    error_in_choice: bool = False
    """The error stands inside the choice, with finish_reason 'error'."""
    unfinished: bool = False
    """The stream ends in the middle, without finish_reason, usage or [DONE], by a proper end of the HTTP body."""
    hidden_tokens: int = 0
    """Reasoning tokens that usage counts and the stream does not show."""
    stall_s: float = 0.0
    """A pause in the middle of a stream."""
    freeze_s: float = 0.0
    """The whole process is stopped once for so long, by SIGSTOP, half a second after the 8th request."""
    drift: float = 0.0
    """By how much the gap between tokens has grown after 5 s: 1 doubles it."""
    no_usage: bool = False
    zero_usage: bool = False
    inflated: float = 0.0
    """By how much usage counts more output tokens than were streamed."""
    slots: int = 0
    """Requests that are served at once; 0: all."""
    dropped: bool = False
    """The connection is closed without an answer, as by a server whose worker died."""
    refused: bool = False
    """HTTP 500."""
    rejects: str = ""
    """HTTP 400 for a request with this field, as from hosted models that do not let the caller choose a temperature."""
    disk_readers: int = 0
    """Threads that wait for the disk without a pause: random blocks of a file of 256 MiB that is kept out of the page cache."""
    disk_share: float = 1.0
    """Part of the time that each of them reads."""
    touches: str = ""
    """A file that is made when the 24th request comes, so that something can happen in the middle of a load."""
    other_model: bool = False
    """The server says that it has another model than the one that was asked for."""
    reports_precision: str = "none"
    reports_context: int = 0
    """0: as it was started."""
    reports_slots: int = 0


class Server:
    def __init__(self, faults: Faults, model: str, context: int) -> None:
        self.faults, self.model, self.context = faults, model, context
        self.requests = 0
        self.hits = 0.0
        self.began = 0.0
        self.slots = asyncio.Semaphore(faults.slots) if faults.slots else None

    def hit(self) -> bool:
        """Whether the fault of single requests hits the next one."""
        self.hits += self.faults.share
        if self.hits >= 1 - 1e-9:
            self.hits -= 1
            return True
        return False

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path, _ = head.split(" ", 2)
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                if method == "GET":
                    self.describe(writer, path)
                elif not await self.generate(writer, path, json.loads(body)):
                    break
                await writer.drain()
        writer.close()

    def describe(self, writer: asyncio.StreamWriter, path: str) -> None:
        replies: dict[str, object] = {
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [{"id": self.model, "object": "model"}]},
            "/props": {
                "model": "another-model" if self.faults.other_model else self.model,
                "precision": self.faults.reports_precision,
                "context": self.faults.reports_context or self.context,
                "slots": self.faults.reports_slots,
            },
        }
        self.whole(writer, 200 if path in replies else 404, replies.get(path, {"error": {"message": f"no route {path}"}}))

    @staticmethod
    def whole(writer: asyncio.StreamWriter, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(data), data))

    async def generate(self, writer: asyncio.StreamWriter, path: str, body: dict[str, object]) -> bool:
        """Answer one request; False to close the connection."""
        faults, arrived = self.faults, asyncio.get_running_loop().time()
        self.requests += 1
        self.began = self.began or arrived
        hit = self.hit()
        if faults.touches and self.requests == 24:
            Path(faults.touches).touch()  # noqa: ASYNC240  (an empty file)
        if faults.freeze_s and self.requests == 8:
            stop = f"sleep 0.5; kill -STOP {os.getpid()}; sleep {faults.freeze_s}; kill -CONT {os.getpid()}"
            subprocess.Popen(["sh", "-c", stop])  # noqa: ASYNC220  (its own process id, after a pause)
        if hit and faults.dropped:
            return False
        if hit and faults.refused:
            self.whole(writer, 500, {"error": {"message": "internal error", "type": "server_error"}})
            return True
        if faults.rejects and faults.rejects in body:
            message = f"Unsupported parameter: '{faults.rejects}' is not supported with this model."
            self.whole(writer, 400, {"error": {"message": message, "type": "invalid_request_error", "param": faults.rejects}})
            return True
        async with self.slots or contextlib.nullcontext():
            await self.stream(writer, "chat" in path, body, hit, arrived if self.slots is None else asyncio.get_running_loop().time())
        return True

    async def stream(self, writer: asyncio.StreamWriter, chat: bool, body: dict[str, object], hit: bool, start: float) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        held: list[bytes] = []
        proxy = asyncio.ensure_future(self.proxy(writer, held)) if self.faults.flush_ms else None
        async for event in self.events(chat, body, hit, start):
            held.append(b"data: %b\n\n" % event)
            if proxy is None and len(held) >= self.faults.buffer_events:
                self.send(writer, held)
        if proxy is not None:
            proxy.cancel()
        self.send(writer, held)
        writer.write(b"0\r\n\r\n")

    async def proxy(self, writer: asyncio.StreamWriter, held: list[bytes]) -> None:
        """Pass on what is held, at a regular interval."""
        while True:
            await asyncio.sleep(self.faults.flush_ms / 1e3)
            self.send(writer, held)

    @staticmethod
    def send(writer: asyncio.StreamWriter, held: list[bytes]) -> None:
        if data := b"".join(held):
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            held.clear()

    async def events(self, chat: bool, body: dict[str, object], hit: bool, start: float) -> AsyncIterator[bytes]:
        """The payload of each event, when it is due."""
        faults, loop = self.faults, asyncio.get_running_loop()
        prompt = body.get("prompt", body.get("messages"))
        prompt_tokens = len(prompt) if isinstance(prompt, list) and not chat else len(json.dumps(prompt).split())
        asked = body.get("max_tokens", body.get("max_completion_tokens", 16))
        count = asked if isinstance(asked, int) else 16
        shown = max(1, round(count * (1 - faults.shorter))) if hit else count
        kind = "chat.completion.chunk" if chat else "text_completion"
        envelope = {"id": f"trust-{self.requests}", "object": kind, "model": "another-model" if faults.other_model else self.model}
        late, due = 0.0, start + faults.ttft_ms / 1e3
        for first in range(0, shown, faults.bundle):
            tokens = range(first, min(first + faults.bundle, shown))
            middle = first >= shown // 2 > first - faults.bundle
            if hit and middle and faults.stall_s:
                late += faults.stall_s
            if hit and middle and faults.unfinished:
                return
            if hit and middle and faults.error:
                yield json.dumps({"error": {"message": "CUDA error: an illegal memory access", "type": "server_error"}}).encode()
                yield b"[DONE]"
                return
            if first:
                slower = 1 + faults.drift * min(1.0, (loop.time() - self.began) / 5)
                due += faults.itl_ms * slower * faults.bundle / 1e3
            await asyncio.sleep(max(0.0, due + late - loop.time()))
            text = "".join(f" {'abcdefgh'[(self.requests + token) % 8]}" for token in tokens)
            last = tokens.stop >= shown
            if hit and last and faults.error_in_choice:
                choice = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "upstream failed"}}
                yield json.dumps({**envelope, "choices": [{**choice, **({"delta": {}} if chat else {"text": ""})}]}).encode()
                yield b"[DONE]"
                return
            part: dict[str, object] = {"delta": {"content": text}} if chat else {"text": text}
            reason = ("length" if shown == count else "stop") if last else None
            yield json.dumps({**envelope, "choices": [{"index": 0, **part, "finish_reason": reason}]}).encode()
        if not faults.no_usage:
            yield json.dumps({**envelope, "choices": [], "usage": self.usage(prompt_tokens, shown)}).encode()
        yield b"[DONE]"

    def usage(self, prompt_tokens: int, shown: int) -> dict[str, object]:
        faults = self.faults
        if faults.zero_usage:
            return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        prompt_tokens = min(prompt_tokens, faults.prompt_limit or prompt_tokens)
        completion = round(shown * (1 + faults.inflated)) + faults.hidden_tokens
        usage: dict[str, object] = {
            "prompt_tokens": prompt_tokens, "completion_tokens": completion, "total_tokens": prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": round(prompt_tokens * faults.cached)},
        }  # fmt: skip
        return usage | ({"completion_tokens_details": {"reasoning_tokens": faults.hidden_tokens}} if faults.hidden_tokens else {})


def read_disk(path: str, share: float) -> None:
    """Wait for a disk, as an engine does whose mapped weights do not fit into memory."""
    block, blocks = 1 << 16, DISK_FILE_BYTES >> 16
    dice, descriptor = random.Random(), os.open(path, os.O_RDONLY)  # noqa: S311  (no secret)
    while True:
        began = time.monotonic()
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # of the whole file: the cache drops whole folios only
        for _ in range(16):
            os.pread(descriptor, block, dice.randrange(blocks) * block)
        time.sleep((time.monotonic() - began) * (1 / share - 1))


def start_disk_readers(faults: Faults) -> None:
    """The file is written at once and is removed with the process, which is killed: it has no name any more."""
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
        file.write(os.urandom(1 << 20) * (DISK_FILE_BYTES >> 20))
        file.flush()
        os.fsync(file.fileno())
        for _ in range(faults.disk_readers):
            path = f"/proc/self/fd/{os.dup(file.fileno())}"
            threading.Thread(target=read_disk, args=(path, faults.disk_share), daemon=True).start()


async def serve(server: Server, host: str, port: int) -> None:
    if server.faults.disk_readers:
        start_disk_readers(server.faults)
    listening = await asyncio.start_server(server.connection, host, port)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="any")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("faults", nargs="?", default="{}", help="a JSON object of Faults")
    given = parser.parse_args()
    print(f"listening on {given.port} since {time.time():.0f}", flush=True)
    asyncio.run(serve(Server(Faults(**json.loads(given.faults)), given.model, given.context), given.host, given.port))
