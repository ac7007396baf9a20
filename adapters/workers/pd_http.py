"""The proxy's connections to servers: keep-alive, and responses of any framing forwarded in the pieces that arrive. Plain HTTP."""

import asyncio
from typing import Protocol
from urllib.parse import urlsplit

from worker_http import MAX_HEAD, Head, Reply

PIECE = 256 << 10


class Lost(ConnectionError):  # noqa: N818  # it names the event
    """A server cannot be reached, or a connection to it ended early. begun: whether its response had begun."""

    def __init__(self, text: str, *, begun: bool = False) -> None:
        super().__init__(text)
        self.begun = begun


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

    def begin(self, head: Head, body: Body) -> None:
        """The head has arrived."""

    def more(self, data: bytes) -> None:
        """A piece of the body; the first may be empty."""


class Relay:
    """A Receiver that passes a response on to the client."""

    def __init__(self, reply: Reply) -> None:
        self.reply, self.more = reply, reply.write

    def begin(self, head: Head, body: Body) -> None:
        self.reply.close = self.reply.close or body.until_close
        framing = b"Transfer-Encoding: chunked\r\n" if body.chunked else b"Content-Length: %b\r\n" % body.length if body.length else b""
        self.reply.begin(head.start.partition(b" ")[2], head.end_to_end() + framing)


class Whole:
    """A Receiver that keeps everything; `body` decodes the chunks."""

    def __init__(self) -> None:
        self.head = Head(b"HTTP/1.1 502 Bad Gateway", ())
        self._chunked = False
        self._parts: list[bytes] = []
        self.more = self._parts.append

    def begin(self, head: Head, body: Body) -> None:
        self.head, self._chunked = head, body.chunked

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

    def relay(self, reply: Reply) -> None:
        """Write it to the client."""
        body = self.body
        reply.begin(self.head.start.partition(b" ")[2], self.head.end_to_end() + b"Content-Length: %d\r\n" % len(body))
        reply.write(body)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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
        used. Cancelling it closes the connection, so that the server stops.
        """
        while True:
            kept = self._kept()
            try:
                connection = kept or await asyncio.open_connection(self.host, self.port, limit=MAX_HEAD)
                if await _exchange(connection, request, receiver):
                    self._idle.append(connection)
            except (OSError, Lost) as error:
                begun = isinstance(error, Lost) and error.begun
                if kept is None or begun:
                    raise Lost(f"{self.url}: {error}", begun=begun) from None
            else:
                return

    async def fetch(self, request: bytes) -> Whole:
        """The whole response to a request. Raises Lost."""
        answer = Whole()
        await self.ask(request, answer)
        return answer

    def _kept(self) -> Connection | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not reader._buffer:  # type: ignore[attr-defined]  # noqa: SLF001  # bytes that no request asked for
                return reader, writer
            writer.transport.abort()
        return None


async def _exchange(connection: Connection, request: bytes, receiver: Receiver) -> bool:
    """One request and its whole response; whether the connection may be used again. Raises OSError and Lost."""
    (reader, writer), begun, usable = connection, False, False
    try:
        writer.write(request)
        head = Head.parse((await reader.readuntil(b"\r\n\r\n"))[:-4])
        body, begun = Body(head), True
        receiver.begin(head, body)
        while not body.ended and (data := await reader.read(PIECE)):
            receiver.more(data)  # before it is parsed: invalid data is forwarded unchanged
            body.feed(data)
        if not body.ended and not body.until_close:
            raise Lost("closed the connection", begun=True)
        receiver.more(b"")  # a head without a body
        usable = not body.until_close and head.get(b"connection") != b"close" and head.start.startswith(b"HTTP/1.1")
    except (ValueError, EOFError, asyncio.LimitOverrunError) as error:
        raise Lost("closed the connection" if isinstance(error, EOFError) else str(error), begun=begun) from None
    finally:
        if not usable:
            writer.transport.abort()
    return usable
