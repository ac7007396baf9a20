"""Recognises the next event of a stream that differs from an earlier one in nothing but its text, without parsing it.

Does not know: what the fields mean. Of the 200 bytes of a typical event the framing, the id, the model and the empty fields
are the same from the first token to the last. Parsing them a million times costs as much processor time as receiving them, so
the bytes around the text of one decoded event are kept: a piece with the same bytes around plain characters *is* that event
with another text. A dialect for which that is not so fails the probe below, and its events are decoded in full.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from enginebench.dialects import Dialect, Event
from enginebench.loadgen import outcomes
from enginebench.loadgen.stream import splitter

_PLAIN: Final = bytes(c for c in range(0x20, 0x7F) if c not in b'"\\')
"""Characters that stand for themselves in a JSON string, one byte each."""
_PROBE: Final = "probe 1 2 3"


@dataclass(frozen=True, slots=True)
class Template:
    """The bytes around the text of one event that came as a piece of its own, and the token count of all such events."""

    head: bytes
    tail: bytes
    tokens: int

    def text(self, piece: bytes) -> bytes | None:
        """The text, if the piece is one event of this shape and its text is plain ASCII; None: decode it in full."""
        if piece.startswith(self.head) and piece.endswith(self.tail):
            middle = piece[len(self.head) : -len(self.tail)]  # empty where head and tail overlap
            if middle and not middle.translate(None, _PLAIN):
                return middle
        return None


def teachable(event: Event) -> bool:
    """Whether `learn` is worth its price: the text is letters, digits and spaces, and nothing is counted along."""
    usual = event.output_tokens is None and event.timings is None and event.finish_reason is None and not event.done
    return usual and event.text.isascii() and event.text.replace(" ", "").isalnum()


def learn(piece: bytes, event: Event, tokens: int, dialect: Dialect) -> Template | None:
    """The template of a teachable event that was decoded from exactly this piece; None unless it certainly has one.

    Quoted letters, digits and spaces can match nothing but a whole JSON string, and they must do so exactly once. Decoding a
    probe shows that this string is the text, and that nothing else in the event depends on it.
    """
    quoted = b'"%b"' % event.text.encode()
    if piece.count(quoted) != 1:
        return None
    before, _, after = piece.partition(quoted)
    head, tail = before + b'"', b'"' + after
    try:
        (payload,) = splitter(dialect.framing).feed(head + _PROBE.encode() + tail)
        probed = dialect.decode(payload)
    except outcomes.NONSENSE:
        return None
    return Template(head, tail, tokens) if probed == replace(event, text=_PROBE, chars=len(_PROBE)) else None
