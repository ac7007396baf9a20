"""The client side of the proxy's HTTP/1.1: reads requests, writes responses.

Does not know which server a request goes to. The response to a slow client is buffered in memory. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import cast

from pd_http import Body, Head, Lost, Server, Whole


class Refused(Exception):  # noqa: N818  # a response, not a malfunction
    """An error response by the proxy itself."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Request:
    """A client's request."""

    method: bytes
    path: bytes
    head: Head
    body: bytes = b""

    def bytes_for(self, server: Server) -> bytes:
        """The request as it is sent to a server."""
        own = b"Host: %b:%d\r\nContent-Length: %d\r\n" % (server.host.encode(), server.port, len(self.body))
        return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (self.method, self.path, own, self.head.end_to_end(), self.body)

    def named(self) -> Request:
        """The request with an X-Request-Id: the client's if it has one."""
        if self.head.get(b"x-request-id"):
            return self
        name = (b"X-Request-Id", uuid.uuid4().hex.encode())
        return replace(self, head=replace(self.head, headers=(*self.head.headers, name)))

    def fields(self) -> dict[str, object]:
        """The body as a JSON object. Raises Refused."""
        try:
            fields = json.loads(self.body)
        except ValueError:
            fields = None
        if not isinstance(fields, dict) or not fields:
            raise Refused(400, "the body is not a JSON object")
        return fields

    def with_fields(self, fields: dict[str, object]) -> Request:
        """The request with further fields, appended as text because serializing a long prompt again takes time."""
        return replace(self, body=self.body.rstrip()[:-1] + b"," + json.dumps(fields).encode()[1:])


class Relay:
    """A Receiver that writes a response to the client as it arrives."""

    def __init__(self, transport: asyncio.Transport, *, close: bool) -> None:
        self.transport, self.close, self.begun = transport, close, False

    def begin(self, head: Head, body: Body, data: bytes) -> None:
        self.begun, self.close = True, self.close or body.until_close
        framing = b"Transfer-Encoding: chunked\r\n" if body.chunked else b"Content-Length: %b\r\n" % body.length if body.length else b""
        self._write(head.start.partition(b" ")[2], head.end_to_end() + framing, data)

    def more(self, data: bytes) -> None:
        self.transport.write(data)

    def whole(self, answer: Whole) -> None:
        """Write a response that was received as a whole."""
        body = answer.body
        self.begun = True
        self._write(answer.head.start.partition(b" ")[2], answer.head.end_to_end() + b"Content-Length: %d\r\n" % len(body), body)

    def say(self, status: int, text: str, kind: bytes = b"text/plain; charset=utf-8") -> None:
        """Write a response of the proxy itself."""
        data = text.encode()
        self.begun = True
        line = f"{status} {HTTPStatus(status).phrase}".encode()
        self._write(line, b"Content-Type: %b\r\nContent-Length: %d\r\n" % (kind, len(data)), data)

    def _write(self, status: bytes, headers: bytes, data: bytes) -> None:
        kept = b"Connection: close\r\n" if self.close else b""
        self.transport.write(b"HTTP/1.1 %b\r\n%b%b\r\n%b" % (status, headers, kept, data))


Answer = Callable[[Request, Relay], Awaitable[None]]
"""Handles one request. Raises Refused and Lost."""


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
            Relay(self.transport, close=True).say(400, str(error))
            self.transport.close()
        else:
            self._task = asyncio.get_running_loop().create_task(self._serve(request)) if request is not None else None

    def _take(self) -> Request | None:
        """The next request, once it is complete. Raises ValueError."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._head = Head.parse(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        if self._head.get(b"transfer-encoding"):
            raise ValueError("a request needs a Content-Length")
        length = int(self._head.get(b"content-length") or b"0")
        if len(self._buffer) < length:
            return None
        method, path, _ = self._head.start.split(b" ", 2)
        request = Request(method, path, self._head, bytes(self._buffer[:length]))
        del self._buffer[:length]
        self._head = None
        if method not in (b"GET", b"POST"):
            raise ValueError("only GET and POST are forwarded")
        return request

    async def _serve(self, request: Request) -> None:
        relay = Relay(self.transport, close=request.head.get(b"connection") == b"close")
        try:
            await self.answer(request, relay)
        except (Lost, Refused) as error:
            status = error.status if isinstance(error, Refused) else 502
            print(f"{request.path.decode(errors='replace')}: {error}", file=sys.stderr, flush=True)
            if relay.begun:
                self.transport.abort()
            else:
                relay.say(status, json.dumps({"error": {"message": str(error), "code": status}}), b"application/json")
        except BaseException:
            self.transport.abort()  # whatever this is, the client must not wait for a response
            raise
        self._task = None
        if relay.close:
            self.transport.close()
        self._next()
