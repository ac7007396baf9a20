"""Splits a response body incrementally into event payloads: server-sent events and NDJSON.

The events do not depend on how the body is divided into pieces. Each event is returned by the `feed` that completes it, so the caller
can give it the time stamp of that piece. The only error is `StreamTooLongError`, for a line or an event above MAX_EVENT_BYTES.
Does not know: JSON, HTTP, tokens, time.
"""

from __future__ import annotations

from typing import Final

from enginebench.dialects import Framing

MAX_EVENT_BYTES: Final = 1 << 20
"""Far above any real event (a token with 20 logprobs takes about 2 kB), and harmless for the client's memory."""

BOM: Final = b"\xef\xbb\xbf"
"""A byte order mark, allowed only at the start of a stream."""


class StreamTooLongError(ValueError):
    """A line or an event is longer than MAX_EVENT_BYTES."""


def splitter(framing: Framing) -> SseSplitter | NdjsonSplitter:
    """A new splitter for one response."""
    return SseSplitter() if framing == "sse" else NdjsonSplitter()


class _Lines:
    __slots__ = ("_after_cr", "_bare_cr", "_length", "_parts")

    def __init__(self, *, bare_cr: bool) -> None:
        self._parts: list[bytes] = []  # of the incomplete line; joined once, so that one-byte reads take linear time
        self._length = 0
        self._after_cr = False
        self._bare_cr = bare_cr

    @property
    def empty(self) -> bool:
        return not self._parts and not self._after_cr

    def feed(self, piece: bytes) -> list[bytes]:
        if self._bare_cr:
            piece = self._unify(piece)
        lines = piece.split(b"\n")
        rest = lines.pop()
        if lines:
            if self._parts:
                self._parts.append(lines[0])
                lines[0] = self.finish()
            if max(map(len, lines)) > MAX_EVENT_BYTES:
                raise StreamTooLongError(f"a line of more than {MAX_EVENT_BYTES} bytes")
        if rest:
            self._parts.append(rest)
            self._length += len(rest)
            if self._length > MAX_EVENT_BYTES:
                raise StreamTooLongError(f"a line of more than {MAX_EVENT_BYTES} bytes")
        return lines

    def _unify(self, piece: bytes) -> bytes:
        """Convert all line ends to LF. A CR at the end of a piece ends its line at once; an LF that follows is skipped."""
        if self._after_cr and piece:
            self._after_cr = False
            if piece.startswith(b"\n"):
                piece = piece[1:]
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece

    def finish(self) -> bytes:
        line = b"".join(self._parts)
        self._parts.clear()
        self._length = 0
        return line


class SseSplitter:
    """Server-sent events as in the WHATWG specification, with two deliberate differences.

    A last event without its blank line counts (the specification drops it, but real servers end this way), and an `error:` field
    (older llama.cpp) counts as `event: error`. Comments, `id`, `retry` and unknown fields are ignored, as are events without data.
    """

    __slots__ = ("_data", "_first", "_is_error", "_lines", "_size", "clean", "error")

    def __init__(self) -> None:
        self.error: bytes | None = None
        """Payload of the first event that the *framing* marks as an error (`event: error`), or None."""
        self.clean = True
        """No incomplete event is pending: the next piece starts an event."""
        self._lines = _Lines(bare_cr=True)
        self._data: list[bytes] = []
        self._size = 0
        self._is_error = False
        self._first = True  # a byte order mark may start the first line

    def feed(self, piece: bytes) -> list[bytes]:
        # Fast path: nearly every read of a healthy stream is exactly one `data: ...` line and a blank one.
        if (
            self.clean
            and piece.startswith(b"data: ")
            and piece.endswith(b"\n\n")
            and piece.count(b"\n") == 2
            and b"\r" not in piece
            and 8 < len(piece) <= MAX_EVENT_BYTES
        ):
            self._first = False
            return [piece[6:-2]]
        events: list[bytes] = []
        for line in self._lines.feed(piece):
            self._line(line, events)
        self.clean = not (self._data or self._is_error) and self._lines.empty
        return events

    def finish(self) -> list[bytes]:
        if self.clean:
            return []
        events: list[bytes] = []
        rest = self._lines.finish()
        if rest:
            self._line(rest, events)
        self._line(b"", events)
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._append(value)
        elif name == b"event":
            self._is_error = value == b"error"
        elif name == b"error":
            self._is_error = True
            self._append(value)
        elif line.startswith((b'{"error"', b'{"detail"', b'{"errors"')):  # a proxy's JSON, without any framing
            self._is_error = True
            self._append(line)

    def _append(self, value: bytes) -> None:
        self._size += len(value) + 1
        if self._size > MAX_EVENT_BYTES:
            raise StreamTooLongError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        self._data.append(value)

    def _dispatch(self, events: list[bytes]) -> None:
        payload = b"\n".join(self._data)
        if payload and self._is_error:
            self.error = self.error or payload
        elif payload:
            events.append(payload)
        self._data.clear()
        self._size = 0
        self._is_error = False


class NdjsonSplitter:
    """One JSON value per line (LF or CRLF). Blank lines are skipped, and the last line needs no line end."""

    __slots__ = ("_lines", "clean", "error")

    def __init__(self) -> None:
        self.error: bytes | None = None
        self.clean = True
        self._lines = _Lines(bare_cr=False)  # a lone CR is whitespace inside JSON, not a line end

    def feed(self, piece: bytes) -> list[bytes]:
        payloads = [payload for line in self._lines.feed(piece) if (payload := line.strip())]
        self.clean = self._lines.empty
        return payloads

    def finish(self) -> list[bytes]:
        rest = self._lines.finish().strip()
        return [rest] if rest else []
