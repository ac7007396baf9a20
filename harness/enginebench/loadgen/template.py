"""Recognises the next events of a stream that differ from an earlier one in nothing but their text, without parsing them.

Does not know: what the fields mean. Of the 200 bytes of a typical event the framing, the id, the model and the empty fields
are the same from the first token to the last. Parsing them a million times costs as much processor time as receiving them, so
the bytes around the text of one decoded event are kept: a piece with the same bytes around plain characters *is* that event
with another text. That is checked for many pieces at a time. A dialect for which it is not so fails the probe below, and its
events are decoded in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from enginebench.dialects import Dialect, Event
from enginebench.loadgen import outcomes
from enginebench.loadgen.stream import splitter

_PLAIN: Final = bytes(c for c in range(0x20, 0x100) if c not in b'"\\\x7f')
"""Bytes that stand for themselves in a JSON string, those of UTF-8 sequences included."""
_PROBE: Final = "probe 1 2 3"


@dataclass(frozen=True, slots=True)
class Template:
    """The bytes around the text of one event that came as a piece of its own.

    tokens: token count of all such events; answer: whether their text is answer and not reasoning.
    """

    head: bytes
    tail: bytes
    tokens: int
    answer: bool

    def texts(self, pieces: Sequence[bytes]) -> list[bytes]:
        """The texts of the leading pieces that are one event of this shape each, with nothing escaped in the text.

        Works on all pieces at once, so that it costs a fraction of looking at them one by one.
        """
        head, tail = self.head, self.tail
        start, end = len(head), -len(tail)
        texts = [piece[start:end] for piece in pieces if piece.startswith(head) and piece.endswith(tail)]
        if len(texts) < len(pieces):
            texts = [p[start:end] for p in takewhile(lambda piece: piece.startswith(head) and piece.endswith(tail), pieces)]
        if b"".join(texts).translate(None, _PLAIN) or not all(texts):  # empty: head and tail overlap
            texts = list(takewhile(lambda text: text and not text.translate(None, _PLAIN), texts))
        return texts


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
    answer = event.answer_chars > 0
    if (probed.text, probed.chars, probed.answer_chars) != (_PROBE, len(_PROBE), len(_PROBE) if answer else 0):
        return None
    probed.text, probed.chars, probed.answer_chars = event.text, event.chars, event.answer_chars
    return Template(head, tail, tokens, answer) if probed == event else None
