"""The server side of the proxy's HTTP/1.1: keep-alive connections, requests as bytes, responses forwarded in the pieces that arrive.

Does not read requests. Standard library only; plain HTTP, responses of any framing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of one connection, which are not forwarded but written again."""


class Lost(ConnectionError):  # noqa: N818  # it names the event
    """A server cannot be reached, or a connection to it ended early. begun: whether its response had begun."""

    def __init__(self, text: str, *, begun: bool = False) -> None:
        super().__init__(text)
        self.begun = begun


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
        """The headers that are forwarded, each with its line end."""
        return b"".join([b"%b: %b\r\n" % pair for pair in self.headers if pair[0].lower() not in HOP_BY_HOP])


class Body:
    """Finds the end of a response's body, by its length, its last chunk or the end of the connection, without changing it."""

    def __init__(self, head: Head) -> None:
        self.chunked = b"chunked" in head.get(b"transfer-encoding")
        self.length = head.get(b"content-length")
        self.until_close = not self.chunked and not self.length and head.status not in (204, 304)
        self._skip = 0 if self.chunked or not self.length else int(self.length)
        self._line = b""
        self._trailer = False
        self.ended = not self.chunked and not self.until_close and self._skip == 0

    def feed(self, data: bytes) -> None:
        """Process what has arrived. Raises ValueError for a chunk without a size, or for more than the body."""
        if self.until_close:
            return
        at, size = 0, len(data)
        while at < size and not self.ended:
            if self._skip:
                step = min(self._skip, size - at)
                at, self._skip = at + step, self._skip - step
                self.ended = not self.chunked and self._skip == 0
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                return
            self._chunk_line((self._line + data[at:end]).strip())
            self._line, at = b"", end + 1
        if at < size:
            raise ValueError("more than one response to one request")

    def _chunk_line(self, line: bytes) -> None:
        if self._trailer:
            self.ended = not line
            return
        size = int(line.partition(b";")[0], 16)
        self._trailer, self._skip = size == 0, size + 2 if size else 0


class Receiver(Protocol):
    """Receives a response as it arrives."""

    def begin(self, head: Head, body: Body, data: bytes) -> None:
        """The head, and the part of the body that arrived with it."""

    def more(self, data: bytes) -> None:
        """The next piece of the body."""


class Whole:
    """A Receiver that keeps everything; `body` decodes the chunks."""

    def __init__(self) -> None:
        self.head = Head(b"HTTP/1.1 502 Bad Gateway", ())
        self._chunked = False
        self._parts: list[bytes] = []

    def begin(self, head: Head, body: Body, data: bytes) -> None:
        self.head, self._chunked = head, body.chunked
        self._parts.append(data)

    def more(self, data: bytes) -> None:
        self._parts.append(data)

    @property
    def body(self) -> bytes:
        raw = b"".join(self._parts)
        if not self._chunked:
            return raw
        out, at = [], 0
        while size := int(raw[at : (end := raw.index(b"\n", at))].partition(b";")[0], 16):
            out.append(raw[end + 1 : end + 1 + size])
            at = end + 1 + size + 2
        return b"".join(out)


class Connection(asyncio.Protocol):
    """One connection to a server, with one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.usable = True
        self._receiver: Receiver | None = None
        self._body: Body | None = None
        self._head = b""
        self._ended: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # writable; uvloop's has another class

    async def ask(self, request: bytes, receiver: Receiver) -> None:
        """Send a request and receive its whole response. Raises Lost. Cancelling it closes the connection, so that the server stops."""
        self._receiver, self._body, self._head = receiver, None, b""
        self._ended = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            await self._ended
        except BaseException:
            self.usable = False
            self.transport.abort()
            raise
        finally:
            self._receiver = None

    def data_received(self, data: bytes) -> None:
        if self._receiver is None or self._ended is None or self._ended.done():
            self.usable = False
            return self.transport.abort()
        try:
            if self._body is not None:
                self._receiver.more(data)  # before it is parsed: invalid data is forwarded unchanged
                self._body.feed(data)
            else:
                self._begin(data)
        except ValueError as error:
            self._fail(str(error))
        if self._body is not None and self._body.ended and not self._ended.done():
            self._ended.set_result(None)
        return None

    def _begin(self, data: bytes) -> None:
        raw, found, rest = (self._head + data).partition(b"\r\n\r\n")
        if not found:
            self._head = raw
            return
        head = Head.parse(raw)
        self._body = Body(head)
        self.usable = not self._body.until_close and head.get(b"connection") != b"close" and head.start.startswith(b"HTTP/1.1")
        assert self._receiver is not None  # noqa: S101  # data_received checked
        self._receiver.begin(head, self._body, rest)
        self._body.feed(rest)

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._ended is not None and not self._ended.done():
            if self._body is not None and self._body.until_close and error is None:
                self._ended.set_result(None)
            else:
                self._fail(str(error) if error else "closed the connection")

    def _fail(self, text: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(Lost(text, begun=self._body is not None))


class Server:
    """One server behind the proxy, with its keep-alive connections."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path.strip("/"):
            raise ValueError(f"expected http://HOST:PORT, not {url!r}")
        self.url, self.host, self.port = url.rstrip("/"), parts.hostname, parts.port
        self._idle: list[Connection] = []

    async def ask(self, request: bytes, receiver: Receiver) -> None:
        """Send a request on an open connection, or on a new one. Raises Lost, with the server's address.

        The server may close an open connection just as it is used. Then, and only if no part of a response arrived, another connection is
        used.
        """
        while True:
            kept = self._kept()
            try:
                connection = kept or await self._connect()
                await connection.ask(request, receiver)
            except (OSError, Lost) as error:
                begun = isinstance(error, Lost) and error.begun
                if kept is None or begun:
                    raise Lost(f"{self.url}: {error}", begun=begun) from None
                continue
            if connection.usable:
                self._idle.append(connection)
            else:
                connection.transport.close()
            return

    async def fetch(self, request: bytes) -> Whole:
        """The whole response to a request. Raises Lost."""
        answer = Whole()
        await self.ask(request, answer)
        return answer

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self.host, self.port)
        return connection
