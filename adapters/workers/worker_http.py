"""HTTP/1.1 for loopback servers of workers: one request after another on a keep-alive connection, answered whole or piece by piece.

The response to a slow client is buffered in memory. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

MAX_HEAD = 64 << 10
MAX_BODY = 256 << 20
"""Bytes; a prompt of a million token ids takes 8 MB."""
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of one connection, which a proxy does not forward but writes again."""
JSON = b"application/json"


class Refused(ValueError):  # noqa: N818  # a response, not a malfunction
    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def as_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def failure(text: str, status: int) -> bytes:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return as_json({"error": {"message": text, "type": kind, "code": status}})


@dataclass(frozen=True)
class Head:
    """The first line of a message and its headers, in order and unchanged."""

    start: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """Parse everything before the empty line. Raises ValueError for an invalid head."""
        start, *lines = raw.split(b"\r\n")
        pairs = [line.partition(b":") for line in lines]
        if not start or not all(colon for _, colon, _ in pairs):
            raise ValueError(f"invalid HTTP head: {raw[:80]!r}")
        return cls(start, tuple((name.strip(), value.strip()) for name, _, value in pairs))

    def get(self, name: bytes) -> bytes:
        """A header's value in lower case; empty where it is missing."""
        return next((value.lower() for key, value in self.headers if key.lower() == name), b"")

    @property
    def status(self) -> int:
        """Of a response. Raises ValueError."""
        return int(self.start.split(b" ", 2)[1])

    def end_to_end(self) -> bytes:
        """The headers that a proxy forwards, each with its line end."""
        return b"".join([b"%b: %b\r\n" % pair for pair in self.headers if pair[0].lower() not in HOP_BY_HOP])


@dataclass(frozen=True)
class Request:
    method: bytes
    path: bytes
    head: Head
    body: bytes = b""


class Reply:
    """The response to one request: `say` it, or `begin` it and `write` its body."""

    def __init__(self, transport: asyncio.Transport, *, close: bool) -> None:
        self.transport, self.close, self.begun, self._head = transport, close, False, b""

    def begin(self, status: bytes, headers: bytes) -> None:
        """Prepare the head; it is sent with the first piece of the body. headers: each with its line end."""
        self.begun = True
        self._head = b"HTTP/1.1 %b\r\n%b%b\r\n" % (status, headers, b"Connection: close\r\n" if self.close else b"")

    def write(self, data: bytes) -> None:
        """Send a piece of the body, in the response's framing; it may be empty."""
        self.transport.write(self._head + data)
        self._head = b""

    def say(self, status: int, body: bytes, kind: bytes = JSON) -> None:
        line = f"{status} {HTTPStatus(status).phrase}".encode()
        self.begin(line, b"Content-Type: %b\r\nContent-Length: %d\r\n" % (kind, len(body)))
        self.write(body)


Answer = Callable[[Request, Reply], Awaitable[None]]
"""Handles one request; cancelled when the client disconnects. Raises Refused, and ConnectionError for a server that it asks."""


class Client(asyncio.Protocol):
    """A client's connection, with one request at a time."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.transport: asyncio.Transport
        self._buffer = bytearray()
        self._head: Head | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # writable; uvloop's has another class

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()  # the client has disconnected: the engine stops too

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        if self._task is not None or self.transport.is_closing():
            return
        try:
            request = self._take()
        except ValueError as error:
            Reply(self.transport, close=True).say(400, failure(str(error), 400))
            self.transport.close()
        else:
            self._task = asyncio.get_running_loop().create_task(self._serve(request)) if request is not None else None

    def _take(self) -> Request | None:
        """The next request, once it is complete. Raises ValueError."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
                raise ValueError("the head is too long")
            if end < 0:
                return None
            self._head = Head.parse(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        method, path, _ = self._head.start.split(b" ", 2)
        length = int(self._head.get(b"content-length") or b"0")
        if self._head.get(b"transfer-encoding") or not 0 <= length <= MAX_BODY:
            raise ValueError(f"a request needs a Content-Length of at most {MAX_BODY}")
        if method not in (b"GET", b"POST"):
            raise ValueError("only GET and POST are served")
        if len(self._buffer) < length:
            return None
        request = Request(method, path, self._head, bytes(self._buffer[:length]))
        del self._buffer[:length]
        self._head = None
        return request

    async def _serve(self, request: Request) -> None:
        reply = Reply(self.transport, close=request.head.get(b"connection") == b"close")
        try:
            await self.answer(request, reply)
        except (ConnectionError, Refused) as error:
            status = error.status if isinstance(error, Refused) else 502
            print(f"{request.path.decode(errors='replace')}: {error}", file=sys.stderr, flush=True)
            if reply.begun:
                self.transport.abort()
            else:
                reply.say(status, failure(str(error), status))
        except BaseException:
            self.transport.abort()  # whatever this is, the client must not wait for a response
            raise
        self._task = None
        if reply.close:
            self.transport.close()
        self._next()
