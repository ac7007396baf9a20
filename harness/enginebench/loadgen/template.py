"""Recognises events of a stream that differ from an earlier one in nothing but their text, without parsing them.

Does not know: what the fields mean. Of the 200 bytes of a typical event the framing, the id, the model and the empty fields
are the same from the first token to the last. Parsing them a million times costs as much processor time as receiving them, so
the bytes around the text of one decoded event are kept: the same bytes around another text *are* that event with another text. Where
every event is an HTTP chunk of its own, that holds for the bytes as they were received, with the size of the chunk that belongs to
their number. A dialect for which it is not so fails the probe below, and its events are decoded in full.
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
"""ASCII that stands for itself in a JSON string."""
_MOST_LENGTHS: Final = 256
"""That are remembered, of the events of a stream."""
_PROBE: Final = "probe 1 2 3"

Spelling: TypeAlias = Literal[b"%x", b"%X"]
"""How a server writes the size of a chunk."""


@dataclass(frozen=True, slots=True)
class Template:
    """The bytes around the text of one event that came as a piece of its own.

    tokens: token count of all such events; answer: whether their text is answer and not reasoning.
    """

    head: bytes
    tail: bytes
    tokens: int
    answer: bool


class Pattern:
    """A template as bytes to compare with: in a body (spelling None), or each event as an HTTP chunk whose size is spelled so.

    Bytes of length n are an event if they are openings[n], a text, and closing, and end is where its text ends.
    """

    __slots__ = ("_boundary", "closing", "end", "openings", "template")

    def __init__(self, template: Template, spelling: Spelling | None) -> None:
        self.template: Final = template
        self.closing: Final = template.tail if spelling is None else template.tail + b"\r\n"
        self.end: Final = -len(self.closing)
        self.openings: Final = _Openings(template, spelling)
        # A short needle is found soonest, and no JSON string holds a line break.
        self._boundary: Final = self.closing[len(self.closing.rstrip()) :]

    def text(self, data: bytes) -> bytes | None:
        """The text, if data is one such event. `Connection.data_received` has this inline."""
        opening = self.openings[len(data)]
        text = data[len(opening) : self.end]
        return text if text and opening + text + self.closing == data else None

    def texts(self, data: bytes) -> tuple[list[bytes], int]:
        """The texts of the events that data begins with, and the number of bytes that they take."""
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
    """Length of an event -> what comes before its text: the size of its chunk, if it is one, and the head."""

    def __init__(self, template: Template, spelling: Spelling | None) -> None:
        self._head, self._spelling = template.head, spelling

    def __missing__(self, whole: int) -> bytes:
        opening = self._size(whole) + self._head
        if len(self) < _MOST_LENGTHS:
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
    """Characters of each of the texts that are joined, by their lengths in bytes; None if they are not one JSON string each."""
    if not joined.translate(None, _PLAIN):
        return lengths
    strings = strings_of(cut(lengths, joined))
    return None if strings is None else array("i", map(len, strings))


def cut(lengths: array[int], joined: bytes) -> list[bytes]:
    """The texts one by one."""
    return [joined[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]


def strings_of(texts: Sequence[bytes]) -> list[str] | None:
    """The texts without JSON's escapes; None if they are not one JSON string each."""
    try:
        # No string holds a line break, so none reaches from one text into the next.
        strings: list[str] = orjson.loads(b'["%b"]' % b'",\n"'.join(texts))
    except orjson.JSONDecodeError:
        return None
    return strings if len(strings) == len(texts) else None


def spelling_of(read: bytes, piece: bytes) -> Spelling | None:
    """How the server spells chunk sizes, from a read that ends with exactly this piece as one whole chunk; None for any other read.

    A size without letters (`ambiguous`) says nothing of the others.
    """
    for spelling in (b"%x", b"%X"):
        if read.endswith(b"%b\r\n%b\r\n" % (spelling % len(piece), piece)):
            return spelling
    return None


def ambiguous(size: int) -> bool:
    """Whether both spellings of a chunk's size are the same."""
    return b"%x" % size == b"%X" % size


def teachable(event: Event) -> bool:
    """Whether `learn` is worth its price: the text is letters, digits and spaces, and nothing is counted along."""
    usual = event.output_tokens is None and event.timings is None and event.finish_reason is None and not event.done
    return usual and event.text.isascii() and event.text.replace(" ", "").isalnum()


def learn(piece: bytes, payload: bytes, event: Event, tokens: int, dialect: Dialect) -> Template | None:
    """The template of a teachable event that was decoded from this payload of exactly this piece; None unless it certainly has one.

    Quoted letters, digits and spaces can match nothing but a whole JSON string, and they must do so exactly once. Decoding a
    probe shows that this string is the text, and that nothing else in the event depends on it; no framing depends on such text.
    """
    quoted = b'"%b"' % event.text.encode()
    if piece.count(quoted) != 1 or payload.count(quoted) != 1:
        return None
    before, _, after = piece.partition(quoted)
    head, tail = before + b'"', b'"' + after
    try:
        probed = dialect.decode(payload.replace(quoted, b'"%b"' % _PROBE.encode()))
    except outcomes.NONSENSE:
        return None
    answer = event.answer_chars > 0
    if (probed.text, probed.chars, probed.answer_chars) != (_PROBE, len(_PROBE), len(_PROBE) if answer else 0):
        return None
    probed.text, probed.chars, probed.answer_chars = event.text, event.chars, event.answer_chars
    return Template(head, tail, tokens, answer) if probed == event else None
