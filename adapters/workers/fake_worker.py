"""A fake engine over a real socket: its token schedule is exact and every way an engine can misbehave is a flag.

It knows no model: token i of a request leaves at t0 + ttft + i * itl, t0 being the moment its last byte was read (or a slot came
free). The text depends on the prompt alone. Speaks OpenAI completions and chat, streaming or not. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator

WORDS = (
    "mixture",
    "of",
    "experts",
    "routes",
    "each",
    "token",
    "to",
    "a",
    "few",
    "and",
    "sums",
    "what",
    "they",
    "say",
    "then",
    "goes",
    "on",
)
USAGE = ("separate", "choices", "none")
MALFORMED = ("no", "json", "utf8", "chunk")


def arguments() -> argparse.Namespace:
    """Every knob; the adapter's options have the same names."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("--model", default="fake")
    add("--context", type=int, default=4096)
    add("--ttft-ms", type=float, default=20.0)
    add("--itl-ms", type=float, default=5.0)
    add("--tokens-per-event", type=int, default=1, help="tokens in each event; the next event comes that many ITLs later")
    add("--role-chunk", action="store_true", help="chat: an event with the role and no text comes first")
    add("--no-done", action="store_true", help="end the stream without data: [DONE]")
    add("--usage", choices=USAGE, default="separate", help="usage in an event of its own, with the last choices, or not at all")
    add("--pings", action="store_true", help="comments before the first token and between events")
    add("--slots", type=int, default=0, help="requests served at once, the others queue (0: no limit)")
    add("--stall-after", type=int, default=0, help="pause after this many tokens, for --stall-s")
    add("--stall-s", type=float, default=1.0)
    add("--burst", action="store_true", help="deliver all tokens at once, when the last one is due")
    add("--short-output", type=int, default=0, help="stop after this many tokens whatever was asked")
    add("--cached-tokens", type=int, default=0, help="prompt tokens to report as served from a cache")
    add("--load-s", type=float, default=0.0, help="answer 503 for so long after the start")
    add("--never-ready", action="store_true")
    add("--slow-accept-s", type=float, default=0.0, help="leave every new connection alone for so long")
    add("--malformed", choices=MALFORMED, default="no", help="what the second event breaks")
    add("--cut-after", type=int, default=0, help="close the connection after this many tokens")
    add("--in-stream-error", type=int, default=0, help="send an error event after this many tokens")
    add("--crash-after", type=int, default=0, help="exit when this many requests have been answered and another one comes")
    add("--http-error", type=int, default=0, help="answer every generation with this status")
    add("--exit-at-start", action="store_true")
    return parser.parse_args()


class Engine:
    """The state that requests share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.started = time.monotonic()
        self.slots = asyncio.Semaphore(options.slots) if options.slots else None
        self.requests = self.prompt_tokens = self.output_tokens = 0

    @property
    def loading(self) -> bool:
        return bool(self.options.never_ready or time.monotonic() - self.started < self.options.load_s)

    def get(self, path: str) -> tuple[int, object]:
        """What a GET answers: status, and a string or something for JSON."""
        options = self.options
        if path == "/health":
            return (503, {"error": {"message": "loading model"}}) if self.loading else (200, {"status": "ok"})
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": options.model, "object": "model"}]}
        if path == "/props":
            return 200, vars(options)
        if path == "/metrics":
            counters = {"requests": self.requests, "prompt_tokens": self.prompt_tokens, "output_tokens": self.output_tokens}
            counters["cached_tokens"] = self.requests * options.cached_tokens
            return 200, "".join(f"fake_{name}_total {value}\n" for name, value in counters.items())
        return 404, {"error": {"message": f"no route {path}"}}


class Generation:
    """One request's tokens and how they are spelled."""

    def __init__(self, options: argparse.Namespace, body: dict[str, object], *, chat: bool) -> None:
        self.options, self.chat = options, chat
        prompt = body.get("messages") if chat else body.get("prompt")
        ids = isinstance(prompt, list) and not chat
        self.prompt_tokens = len(prompt) if ids else round(len(json.dumps(prompt).split()) * 4 / 3)  # type: ignore[arg-type]
        asked = body.get("max_tokens")
        self.count = asked if isinstance(asked, int) else 16
        if options.short_output:
            self.count = min(self.count, options.short_output)
        self.with_ids = body.get("return_token_ids") is True
        self._seed = zlib.crc32(json.dumps(prompt).encode())

    def tokens(self) -> Iterator[range]:
        """The tokens of each event."""
        step = max(1, self.options.tokens_per_event)
        for first in range(0, self.count, step):
            yield range(first, min(first + step, self.count))

    def text(self, tokens: range) -> str:
        return "".join(f" {WORDS[(self._seed + 7 * i) % len(WORDS)]}" for i in tokens)

    def event(self, tokens: range, *, stream: bool = True) -> dict[str, object]:
        """A choice with these tokens; the last one says why it ends."""
        choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": "length" if tokens.stop >= self.count else None}
        if self.chat:
            choice["delta" if stream else "message"] = {"content": self.text(tokens)}
        else:
            choice["text"] = self.text(tokens)
        if self.with_ids:
            choice["token_ids"] = list(tokens)
        return self.envelope([choice])

    def envelope(self, choices: list[object]) -> dict[str, object]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {"id": f"fake-{self._seed:08x}", "object": kind, "created": 1700000000, "model": self.options.model, "choices": choices}

    def usage(self) -> dict[str, object]:
        details = {"cached_tokens": self.options.cached_tokens}
        total = self.prompt_tokens + self.count
        usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.count, "total_tokens": total}
        return {**usage, "prompt_tokens_details": details}


class Connection:
    """One client connection, kept alive from request to request."""

    def __init__(self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.engine, self.reader, self.writer, self.options = engine, reader, writer, engine.options

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

    def reply(self, status: int, body: object) -> None:
        """A response of known length."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        kind = "text/plain" if isinstance(body, str) else "application/json"
        head = f"HTTP/1.1 {status} Fake\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)

    async def generate(self, path: str, raw: bytes, t0: float) -> None:
        options, engine = self.options, self.engine
        if options.crash_after and engine.requests >= options.crash_after:
            print("fake engine: illegal memory access (as asked by --crash-after)", file=sys.stderr, flush=True)
            os._exit(3)
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return self.reply(404, {"error": {"message": f"no route {path}"}})
        if options.http_error:
            return self.reply(options.http_error, {"error": {"message": f"refused with {options.http_error}, as asked"}})
        if engine.loading:
            return self.reply(503, {"error": {"message": "loading model"}})
        body = json.loads(raw)
        generation = Generation(options, body, chat="chat" in path)
        async with engine.slots or contextlib.nullcontext():
            start = t0 if engine.slots is None else max(t0, asyncio.get_running_loop().time())
            if body.get("stream"):
                await self.stream(generation, start)
            else:
                await self.due(generation, start, generation.count - 1)
                whole = generation.event(range(generation.count), stream=False)
                self.reply(200, {**whole, "usage": generation.usage()})
        engine.requests += 1
        engine.prompt_tokens += generation.prompt_tokens
        engine.output_tokens += generation.count
        return None

    async def due(self, generation: Generation, start: float, token: int) -> None:
        """Wait until this token is due. Always from the absolute schedule: lateness of one token never moves the next."""
        options = self.options
        if options.burst:
            token = generation.count - 1
        at = start + (options.ttft_ms + token * options.itl_ms) / 1e3
        if options.stall_after and token >= options.stall_after:
            at += options.stall_s
        delay = at - asyncio.get_running_loop().time()
        if delay > 0:
            await asyncio.sleep(delay)

    async def stream(self, generation: Generation, start: float) -> None:
        options = self.options
        self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if options.role_chunk and generation.chat:
            self.send(generation.envelope([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]))
        for number, tokens in enumerate(generation.tokens()):
            if options.pings:
                self.chunk(b": ping\n\n")
            await self.due(generation, start, tokens.start)
            if options.cut_after and tokens.start >= options.cut_after:
                raise ConnectionAbortedError
            if options.in_stream_error and tokens.start >= options.in_stream_error:
                self.send({"error": {"message": "fake error in mid-stream", "type": "server_error"}})
                break
            event = generation.event(tokens)
            if options.usage == "choices" and tokens.stop >= generation.count:
                event["usage"] = generation.usage()
            if number == 1 and options.malformed != "no":
                self.break_something()
            else:
                self.send(event)
        else:
            if options.usage == "separate":
                self.send({**generation.envelope([]), "usage": generation.usage()})
            if not options.no_done:
                self.chunk(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")

    def break_something(self) -> None:
        if self.options.malformed == "json":
            self.chunk(b'data: {"choices":[{"index":0,"text":\n\n')
        elif self.options.malformed == "utf8":
            self.chunk(b'data: {"choices":[{"index":0,"text":" \xff\xfe","finish_reason":null}]}\n\n')
        else:
            self.writer.write(b"zz\r\nthis is no chunk size\r\n")

    def send(self, event: dict[str, object]) -> None:
        self.chunk(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def main(options: argparse.Namespace) -> None:
    """Serve until killed."""
    engine = Engine(options)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Connection(engine, reader, writer).serve()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            writer.transport.abort()  # the client went away, or --cut-after

    server = await asyncio.start_server(connected, options.host, options.port, limit=1 << 24, backlog=2048)
    print(f"fake engine on {options.host}:{options.port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    chosen = arguments()
    if chosen.exit_at_start:
        sys.exit("fake engine: out of memory before it began (as asked by --exit-at-start)")
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(chosen))
