"""Turns the raw pieces of one response into the compact arrays of its `Sample`, some dozens at a time.

Does not know: sockets and loops. It is handed (stamp, bytes) pairs; an event gets the stamp of the piece that completed it. What
looks like the events before but for its text is taken in runs (`template`), the rest is parsed one by one.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Final

from enginebench.dialects import Dialect, Event
from enginebench.domain import Sample
from enginebench.loadgen import outcomes
from enginebench.loadgen.stream import BOM, StreamTooLongError, splitter
from enginebench.loadgen.template import Pattern, Spelling, Template, chars_of, cut, learn, strings_of, teachable

EXCERPT_BYTES: Final = 600
_INT32: Final = 2**31
_PATIENCE: Final = 4
_RUN: Final = 256
"""Pieces that are looked at together."""
_MAX_NAME, _MAX_TIMINGS = 200, 64
"""Of what a server may add to a sample."""
_KEPT_CHARS, _KEPT_CHARS_PER_TOKEN = 100_000, 64
"""Of a text that is kept, at most."""


class Decoder:
    """Decodes one response into `sample`. `feed` it, then `finish` it once."""

    __slots__ = (
        "_decode",
        "_dialect",
        "_done",
        "_excerpt",
        "_kept",
        "_learned_at",
        "_limit",
        "_patience",
        "_patterns",
        "_running",
        "_splitter",
        "_template",
        "_texts",
        "failure",
        "finished",
        "sample",
    )

    def __init__(self, sample: Sample, dialect: Dialect, *, keep_text: bool) -> None:
        self.sample = sample
        self.failure: tuple[str, str] | None = None
        """(outcome, message) once the stream itself has gone wrong; nothing after it is decoded."""
        self.finished = False
        """The stream said that it ended: a finish reason, an end marker or a closing usage event."""
        self._dialect = dialect
        self._decode = dialect.decoder()
        self._splitter = splitter(dialect.framing)
        self._texts: list[bytes] | None = [] if keep_text else None
        self._kept = 0
        self._excerpt = b""
        self._done = False
        self._running: int | None = 0
        """Total of tokens at the last output event, if the stream counts along."""
        self._template: Template | None = None
        self._patterns: dict[Spelling | None, Pattern] = {}
        # Where the events of a stream build on each other, none can be recognised by its look.
        self._patience = _PATIENCE if self._decode == dialect.decode else 0
        self._learned_at = 0
        # An engine that ignores its length cap must not fill our memory until the time-out.
        self._limit = 4 * sample.asked_output_tokens + 4096

    def feed(self, stamps: Sequence[int], pieces: Sequence[bytes]) -> None:
        """Decode pieces of the body, each with the stamp of its arrival."""
        sample = self.sample
        if sample.status_code != 200 or not sample.event_ns:
            self._keep_excerpt(pieces)
        if sample.status_code != 200:
            return
        first = 0
        while first < len(pieces) and self.failure is None:
            pattern = self.pattern(None)
            texts = _leading(pattern, pieces[first : first + _RUN])
            if pattern is not None and texts:
                run = array("q", stamps[first : first + len(texts)]), array("i", map(len, texts)), b"".join(texts)
                self.take(pattern.template, *run)
            else:
                self._piece(stamps[first], pieces[first])
            first += len(texts) or 1

    @property
    def settled(self) -> bool:
        """Nothing can be learned from the next pieces that would help to recognise those after them."""
        return self._template is not None or not self._patience or self._done or self.failure is not None

    @property
    def recognises(self) -> bool:
        """Whether there is a `pattern`."""
        return self._template is not None and self.failure is None

    def pattern(self, spelling: Spelling | None) -> Pattern | None:
        """What the next events should look like, if that is known: chunks of this spelling, or (None) as they are in the body."""
        if self._template is None or not self.recognises:
            return None
        pattern = self._patterns.get(spelling)
        if pattern is None or pattern.template is not self._template:
            pattern = self._patterns[spelling] = Pattern(self._template, spelling)
        return pattern

    def take(self, template: Template, stamps: array[int], lengths: array[int], texts: bytes) -> None:
        """Events that have been recognised by a `pattern` of this template, which may not be the present one any more: arrivals, lengths
        of the texts as written, and the texts one after another."""
        if self._done or self.failure is not None:
            return
        chars = chars_of(lengths, texts)
        if chars is None:  # decoding in full says what is wrong
            for stamp, text in zip(stamps, cut(lengths, texts), strict=True):
                self._piece(stamp, template.head + text + template.tail)
            return
        self._output(stamps, chars, array("i", (template.tokens,)) * len(lengths), answer=template.answer)
        if self._texts is not None:
            strings = strings_of(cut(lengths, texts)) if b"\\" in texts else None
            self._texts.append(texts if strings is None else "".join(strings).encode())

    def finish(self, stamp: int, *, whole: bool) -> None:
        """No more bytes. whole: the response ended properly, so an event that lacks only its terminator still counts."""
        sample = self.sample
        if sample.status_code == 200 and whole and self.failure is None:
            for payload in self._splitter.finish():
                self._payload(stamp, payload, None)
        if self.failure is None and self._splitter.error is not None:
            self.failure = (outcomes.IN_STREAM_ERROR, _readable(self._splitter.error))
        if self.failure is None and whole and not self.finished and not sample.event_ns and self._excerpt.lstrip().startswith(b"{"):
            self._document()
        if sample.event_ns and not any(sample.event_chars):
            sample.first_answer_ns = sample.event_ns[0]  # nothing tells answer from reasoning where there is no text
        if self._texts is not None:
            sample.text = b"".join(self._texts).decode()

    def _document(self) -> None:
        """A JSON document where a stream was asked for: how some engines refuse a request, under status 200."""
        try:
            error = self._dialect.decode(self._excerpt).error
        except outcomes.NONSENSE:
            error = None
        if error is not None:
            self.failure = (outcomes.IN_STREAM_ERROR, error[:EXCERPT_BYTES])
        else:
            self.failure = (outcomes.MALFORMED, f"a JSON document instead of a stream: {self.excerpt}")

    @property
    def excerpt(self) -> str:
        """The beginning of a body that did not decode into output."""
        return _readable(self._excerpt)

    def _keep_excerpt(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            if len(self._excerpt) >= EXCERPT_BYTES:
                return
            self._excerpt += piece[: EXCERPT_BYTES - len(self._excerpt)]

    def _piece(self, stamp: int, piece: bytes) -> None:
        """Decode in full whatever this piece completes."""
        splitter = self._splitter
        alone = splitter.clean and not piece.startswith(BOM)
        try:
            payloads = splitter.feed(piece)
        except StreamTooLongError as error:
            self.failure = (outcomes.MALFORMED, str(error))
            return
        for payload in payloads:
            self._payload(stamp, payload, piece if alone and len(payloads) == 1 else None)
        if not splitter.clean:
            self._template = None  # a template starts at the start of an event
        if splitter.error is not None and self.failure is None:
            self.failure = (outcomes.IN_STREAM_ERROR, _readable(splitter.error))

    def _payload(self, stamp: int, payload: bytes, piece: bytes | None) -> None:
        """Decode one event; piece, if it came as a piece of its own."""
        if self._done or self.failure is not None:
            return
        try:
            event = self._decode(payload)
        except outcomes.NONSENSE as error:
            self.failure = (outcomes.MALFORMED, f"{error} in event: {_readable(payload)}")
            return
        if event.error is not None:
            self.failure = (outcomes.IN_STREAM_ERROR, event.error[:EXCERPT_BYTES])
            return
        output = event.chars > 0 or (event.tokens or 0) > 0 or self._rises(event)
        if output:
            counts = array("i", (event.chars,)), array("i", (self._count(event),))
            self._output(array("q", (stamp,)), *counts, answer=event.answer_chars > 0)
            if self._texts is not None:
                self._texts.append(event.text.encode("utf-8", "replace"))
        if event.done or event.finish_reason is not None or event.output_tokens is not None or event.timings is not None:
            self._template = None
            self._closing(event)
        elif output and piece is not None and self._patience and teachable(event):
            self._learn(piece, payload, event)

    def _learn(self, piece: bytes, payload: bytes, event: Event) -> None:
        """Expect the next pieces to look like this one, of this payload; give that up in streams where they never do."""
        events = len(self.sample.event_ns)
        self._patience = _PATIENCE if events - self._learned_at > _PATIENCE else self._patience - 1
        self._learned_at = events
        self._template = learn(piece, payload, event, self.sample.event_tokens[-1], self._dialect)

    def _rises(self, event: Event) -> bool:
        """Whether the running total says that there are tokens in an event without text: half a character, or a special token."""
        total = event.output_tokens
        counts_along = total is not None and self._running is not None and not event.closing and event.finish_reason is None
        return counts_along and total > self._running  # type: ignore[operator]  # neither is None

    def _count(self, event: Event) -> int:
        """Tokens of an output event, -1 if unknown. Running usage gives the count of every event; usage on the last event
        alone says nothing about that event."""
        tokens, total = event.tokens, event.output_tokens
        if tokens is None:
            tokens = -1 if total is None or self._running is None else total - self._running
        self._running = total
        return tokens if 0 <= tokens < _INT32 else -1

    def _output(self, stamps: array[int], chars: array[int], tokens: array[int], *, answer: bool) -> None:
        """Record output events, one entry of each array for each."""
        sample = self.sample
        self.finished = False  # whatever looked like the end was none
        if answer and not sample.first_answer_ns:
            sample.first_answer_ns = stamps[0]
        sample.event_ns += stamps
        sample.event_chars += chars
        sample.event_tokens += tokens
        if self._texts is not None:
            self._kept += sum(chars)
            if self._kept > _KEPT_CHARS + _KEPT_CHARS_PER_TOKEN * sample.asked_output_tokens:
                self.failure = (outcomes.MALFORMED, f"{self._kept} characters for {sample.asked_output_tokens} tokens asked")
        if len(sample.event_ns) > self._limit:
            asked = sample.asked_output_tokens
            self.failure = (outcomes.MALFORMED, f"more than {self._limit} output events for {asked} tokens asked")

    def _closing(self, event: Event) -> None:
        sample = self.sample
        if event.output_tokens is not None:
            sample.output_tokens = event.output_tokens
        if event.input_tokens is not None:
            sample.input_tokens = event.input_tokens
        if event.cached_tokens is not None:
            sample.cached_tokens = event.cached_tokens
        if event.finish_reason is not None:
            sample.finish_reason = event.finish_reason[:_MAX_NAME]
        if event.timings is not None:
            sample.server_timings = {name[:_MAX_NAME]: value for name, value in islice(event.timings.items(), _MAX_TIMINGS)}
        self._done = event.done
        if event.done or event.finish_reason is not None or event.closing:
            self.finished = True


def _leading(pattern: Pattern | None, pieces: Sequence[bytes]) -> list[bytes]:
    """The texts of the pieces that are recognised, up to the first one that is not."""
    if pattern is None:
        return []
    return [text for text in takewhile(bool, map(pattern.text, pieces)) if text]


def _readable(body: bytes) -> str:
    return body[:EXCERPT_BYTES].decode("utf-8", "replace")
