"""HTTP/1.1 for a loopback server: one request after another on a keep-alive connection, answered whole or in chunks.

Does not read request bodies. A request body without a Content-Length is refused. Standard library only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

MAX_HEAD = 64 << 10
MAX_BODY = 256 << 20
"""Bytes; a prompt of a million token ids takes 8 MB."""


@dataclass(frozen=True)
class Request:
    """A request with its whole body."""

    method: str
    path: str
    body: bytes


class Handler(Protocol):
    """Handles the events of connections."""

    def opened(self, connection: Connection) -> None:
        """A client has connected."""

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer a request, now or later, with one `reply` or with `begin_stream` and `stream`."""

    def closed(self, connection: Connection) -> None:
        """The client has disconnected, or was cut off."""


class Connection(asyncio.Protocol):
    """One client. The next request is read when the previous one has been answered."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._busy = False
        self._pending = b""

    # -- called by asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # TCP
        self._transport = transport
        self._handler.opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._handler.closed(self)

    # -- called by the handler ----------------------------------------------------------------------------------------------

    def reply(self, status: int, body: bytes, kind: str) -> None:
        """Send a complete response."""
        head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self._write(head % (status, HTTPStatus(status).phrase.encode(), kind.encode(), len(body)) + body)
        self._answered()

    def begin_stream(self) -> None:
        """Prepare a chunked response; its head is sent with the first chunk."""
        self._pending = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    def stream(self, data: bytes, *, last: bool) -> None:
        """Send a chunk, which may be empty; `last` ends the response."""
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self._write(self._pending + chunk + (b"0\r\n\r\n" if last else b""))
        self._pending = b""
        if last:
            self._answered()

    def abort(self) -> None:
        """Cut the client off."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def _answered(self) -> None:
        self._busy = False
        self._next()

    def _next(self) -> None:
        if self._busy or self._transport is None:
            return
        try:
            request = self._take()
        except ValueError:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self._transport.close()
            return
        if request is not None:
            self._busy = True
            self._handler.handle(self, request)

    def _take(self) -> Request | None:
        """The next complete request of the buffer; None while it is incomplete. Raises ValueError for an invalid request."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                raise ValueError("the head is too long")
            return None
        start, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        method, path, _ = start.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if "transfer-encoding" in headers or not 0 <= length <= MAX_BODY:
            raise ValueError("the body has no length, or is too long")
        if len(self._buffer) < end + 4 + length:
            return None
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        return Request(method, path.partition("?")[0], body)
