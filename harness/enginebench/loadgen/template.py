"""Recognises events of a stream that differ from an earlier one only in their text, without parsing them.

Parsing an event costs as much CPU time as receiving it. So the bytes around the text of one decoded event are kept: the same bytes around
another text are the same event with another text. If every event is an HTTP chunk of its own, this also holds for the received bytes, with
the matching chunk size. `learn` decodes a probe to verify it; if that fails, every event is parsed. Does not know: what the fields mean.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, TypeAlias

import orjson

from enginebench.dialects import Dialect, Event
from enginebench.loadgen import outcomes

_PLAIN: Final = bytes(c for c in range(0x20, 0x7F) if c not in b'"\\')
"""ASCII characters that a JSON string holds unescaped."""
_MAX_LENGTHS: Final = 256
"""Most event lengths that are cached per stream."""
_PROBE: Final = "probe 1 2 3"

Spelling: TypeAlias = Literal[b"%x", b"%X"]
"""How a server writes the size of a chunk: hexadecimal digits in lower or upper case."""


@dataclass(frozen=True, slots=True)
class Template:
    """The bytes around the text of an event that was a piece of its own."""

    head: bytes
    tail: bytes
    tokens: int
    """Tokens per event."""
    answer: bool
    """The text is answer, not reasoning."""


class Pattern:
    """A template as bytes to compare with: events in a body (spelling None), or each event as an HTTP chunk with this size spelling.

    n bytes are an event if they are openings[n], a text, and closing. The text ends at index `end`.
    """

    __slots__ = ("_boundary", "closing", "end", "openings", "template")

    def __init__(self, template: Template, spelling: Spelling | None) -> None:
        self.template: Final = template
        self.closing: Final = template.tail if spelling is None else template.tail + b"\r\n"
        self.end: Final = -len(self.closing)
        self.openings: Final = _Openings(template, spelling)
        # Searching for a short needle is fastest, and no JSON string contains a line break.
        self._boundary: Final = self.closing[len(self.closing.rstrip()) :]

    def text(self, data: bytes) -> bytes | None:
        """The text if data is one matching event, else None. `Connection.data_received` has an inlined copy."""
        opening = self.openings[len(data)]
        text = data[len(opening) : self.end]
        return text if text and opening + text + self.closing == data else None

    def texts(self, data: bytes) -> tuple[list[bytes], int]:
        """Texts of the matching events at the start of data, and the number of bytes they take."""
        if not self._boundary:
            return [], 0
        texts: list[bytes] = []
        taken = 0
        boundary = self._boundary
        for cell in data.split(boundary)[:-1]:  # the last one is what follows the last end of an event
            text = self.text(cell + boundary)
            if text is None:
                break
            texts.append(text)
            taken += len(cell) + len(boundary)
        return texts, taken


class _Openings(dict[int, bytes]):
    """Length of an event -> the bytes before its text: the chunk size (unless spelling is None) and the head."""

    def __init__(self, template: Template, spelling: Spelling | None) -> None:
        self._head, self._spelling = template.head, spelling

    def __missing__(self, whole: int) -> bytes:
        opening = self._size(whole) + self._head
        if len(self) < _MAX_LENGTHS:
            self[whole] = opening
        return opening

    def _size(self, whole: int) -> bytes:
        if self._spelling is None:
            return b""
        for digits in range(1, 8):
            line = self._spelling % max(0, whole - digits - len(b"\r\n\r\n"))
            if len(line) == digits:
                return line + b"\r\n"
        return b""


def chars_of(lengths: array[int], joined: bytes) -> array[int] | None:
    """Number of characters of each concatenated text, from their lengths in bytes; None unless each is the content of a JSON string."""
    if not joined.translate(None, _PLAIN):
        return lengths
    strings = strings_of(cut(lengths, joined))
    return None if strings is None else array("i", map(len, strings))


def cut(lengths: array[int], joined: bytes) -> list[bytes]:
    return [joined[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]


def strings_of(texts: Sequence[bytes]) -> list[str] | None:
    """The texts with JSON escapes decoded; None unless each is the content of one JSON string."""
    try:
        # JSON strings contain no line breaks, so none can extend from one text into the next.
        strings: list[str] = orjson.loads(b'["%b"]' % b'",\n"'.join(texts))
    except orjson.JSONDecodeError:
        return None
    return strings if len(strings) == len(texts) else None


def spelling_of(read: bytes, piece: bytes) -> Spelling | None:
    """The spelling of the chunk size if a read ends with this piece as one whole chunk, else None.

    The result is arbitrary for a size without letters (`ambiguous`).
    """
    for spelling in (b"%x", b"%X"):
        if read.endswith(b"%b\r\n%b\r\n" % (spelling % len(piece), piece)):
            return spelling
    return None


def ambiguous(size: int) -> bool:
    """Whether both spellings of a chunk size are the same."""
    return b"%x" % size == b"%X" % size


def learnable(event: Event) -> bool:
    """Whether to try `learn`: the text is letters, digits and spaces only, and the event has no counts or timings."""
    usual = event.output_tokens is None and event.timings is None and event.finish_reason is None and not event.done
    return usual and event.text.isascii() and event.text.replace(" ", "").isalnum()


def learn(piece: bytes, payload: bytes, event: Event, tokens: int, dialect: Dialect) -> Template | None:
    """The template of a `learnable` event, decoded from this payload of exactly this piece; None if it cannot be verified.

    A quoted text of letters, digits and spaces matches only a whole JSON string, and it must occur exactly once. Decoding a probe shows
    that this string is the text and that no other field depends on it. No framing depends on such a text.
    """
    quoted = b'"%b"' % event.text.encode()
    if piece.count(quoted) != 1 or payload.count(quoted) != 1:
        return None
    before, _, after = piece.partition(quoted)
    head, tail = before + b'"', b'"' + after
    try:
        probed = dialect.decode(payload.replace(quoted, b'"%b"' % _PROBE.encode()))
    except outcomes.DECODE_ERRORS:
        return None
    answer = event.answer_chars > 0
    if (probed.text, probed.chars, probed.answer_chars) != (_PROBE, len(_PROBE), len(_PROBE) if answer else 0):
        return None
    probed.text, probed.chars, probed.answer_chars = event.text, event.chars, event.answer_chars
    return Template(head, tail, tokens, answer) if probed == event else None
