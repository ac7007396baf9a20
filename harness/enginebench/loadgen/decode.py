"""Decodes the raw pieces of one response into the compact arrays of its `Sample`, dozens at a time.

Input is (time stamp, bytes) pairs. An event gets the time stamp of the piece that completed it. Events that differ from an earlier
one only in their text are decoded in batches (`template`); all others are parsed one by one. Does not know: sockets, event loops.
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
from enginebench.loadgen.template import Pattern, Spelling, Template, chars_of, cut, learn, learnable, strings_of

EXCERPT_BYTES: Final = 600
_INT32: Final = 2**31
_PATIENCE: Final = 4
"""Attempts to learn a template before giving up on a stream."""
_RUN: Final = 256
"""Pieces that are compared with the pattern together."""
_MAX_NAME, _MAX_TIMINGS = 200, 64
"""Limits for strings and timings that a server adds to a sample."""
_KEPT_CHARS, _KEPT_CHARS_PER_TOKEN = 100_000, 64
"""Limits for stored text."""


class Decoder:
    """Decodes one response into `sample`: call `feed` for its pieces, then `finish` once."""

    __slots__ = (
        "_answers", "_decode", "_dialect", "_done", "_done_seen", "_excerpt", "_finish_seen", "_kept", "_learned_at", "_limit", "_patience",
        "_patterns", "_running", "_splitter", "_template", "_texts", "failure", "finished", "sample",
    )  # fmt: skip

    def __init__(self, sample: Sample, dialect: Dialect, *, keep_text: bool) -> None:
        self.sample = sample
        self.failure: tuple[str, str] | None = None
        """(outcome, message) of the first error in the stream. Nothing after it is decoded."""
        self.finished = False
        """The stream ended explicitly: with a finish reason, an end marker or a closing usage event."""
        self._dialect = dialect
        self._decode = dialect.decoder()
        self._splitter = splitter(dialect.framing)
        self._texts: list[bytes] | None = [] if keep_text else None
        self._answers: list[bytes] | None = [] if sample.conversation >= 0 else None
        """The parts of the text that are not reasoning: what the next turn of a conversation repeats."""
        self._kept = 0
        self._excerpt = b""
        self._done = self._done_seen = self._finish_seen = False
        self._running: int | None = 0
        """Running token total at the last output event, if the stream reports one."""
        self._template: Template | None = None
        self._patterns: dict[Spelling | None, Pattern] = {}
        # A stateful decoder's events depend on earlier ones, so they cannot be recognised by their bytes.
        self._patience = _PATIENCE if self._decode == dialect.decode else 0
        self._learned_at = 0
        # Bounds memory if an engine ignores the requested length.
        self._limit = 4 * sample.asked_output_tokens + 4096

    def feed(self, stamps: Sequence[int], pieces: Sequence[bytes]) -> None:
        """Decode pieces of the body, each with its arrival time."""
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
        """No template can be learned from the next pieces."""
        return self._template is not None or not self._patience or self._done or self.failure is not None

    @property
    def recognises(self) -> bool:
        return self._template is not None and self.failure is None

    def pattern(self, spelling: Spelling | None) -> Pattern | None:
        """The expected bytes of the next events, or None. spelling: how chunk sizes are written; None: events without chunk framing."""
        if self._template is None or not self.recognises:
            return None
        pattern = self._patterns.get(spelling)
        if pattern is None or pattern.template is not self._template:
            pattern = self._patterns[spelling] = Pattern(self._template, spelling)
        return pattern

    def take(self, template: Template, stamps: array[int], lengths: array[int], texts: bytes) -> None:
        """Record events that a `pattern` of this template matched (the template may be older than the current one).

        stamps: arrival times. lengths: bytes of each text as received. texts: the texts, concatenated.
        """
        if self._done or self.failure is not None:
            return
        chars = chars_of(lengths, texts)
        if chars is None:  # decode in full to get the error
            for stamp, text in zip(stamps, cut(lengths, texts), strict=True):
                self._piece(stamp, template.head + text + template.tail)
            return
        self._output(stamps, chars, array("i", (template.tokens,)) * len(lengths), answer=template.answer)
        if self._texts is not None or self._answers is not None:
            strings = strings_of(cut(lengths, texts)) if b"\\" in texts else None
            text = texts if strings is None else "".join(strings).encode()
            self._keep(text, text if template.answer else b"")

    def finish(self, stamp: int, *, whole: bool) -> None:
        """End of the body. whole: the response ended properly, so a last event without its terminator still counts."""
        sample = self.sample
        if sample.status_code == 200 and whole and self.failure is None:
            for payload in self._splitter.finish():
                self._payload(stamp, payload, None)
        if self.failure is None and self._splitter.error is not None:
            self.failure = (outcomes.IN_STREAM_ERROR, _readable(self._splitter.error))
        if self.failure is None and whole and not self.finished and not sample.event_ns and self._excerpt.lstrip().startswith(b"{"):
            self._document()
        if sample.event_ns and not any(sample.event_chars):
            sample.first_answer_ns = sample.event_ns[0]  # without text, answer and reasoning cannot be distinguished
        self._drop_placeholders()
        found = (self._finish_seen, bool(sample.output_tokens), self._done_seen)
        sample.end_marks = frozenset(mark for mark, seen in zip(outcomes.END_MARKS, found, strict=True) if seen)
        if self._texts is not None:
            sample.text = b"".join(self._texts).decode()

    def _drop_placeholders(self) -> None:
        """Forget counts that are none: no text has 0 tokens. Some servers send usage with every event and fill it in only at the end."""
        sample = self.sample
        if not any(sample.event_chars):
            return
        if sample.output_tokens == 0:
            sample.output_tokens = None
        if 2 * sample.event_tokens.count(0) > len(sample.event_tokens):
            sample.event_tokens = array("i", (-1,)) * len(sample.event_tokens)

    @property
    def answer(self) -> bytes:
        """The text of a conversation's turn without its reasoning."""
        return b"".join(self._answers or ())

    def _keep(self, text: bytes, answer: bytes) -> None:
        if self._texts is not None:
            self._texts.append(text)
        if self._answers is not None:
            self._answers.append(answer)

    def _document(self) -> None:
        """Record the error of a JSON document that came instead of a stream: some engines reject requests so, with status 200."""
        try:
            error = self._dialect.decode(self._excerpt).error
        except outcomes.DECODE_ERRORS:
            error = None
        if error is not None:
            self.failure = (outcomes.IN_STREAM_ERROR, error[:EXCERPT_BYTES])
        else:
            self.failure = (outcomes.MALFORMED, f"a JSON document instead of a stream: {self.excerpt}")

    @property
    def excerpt(self) -> str:
        return _readable(self._excerpt)

    def _keep_excerpt(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            if len(self._excerpt) >= EXCERPT_BYTES:
                return
            self._excerpt += piece[: EXCERPT_BYTES - len(self._excerpt)]

    def _piece(self, stamp: int, piece: bytes) -> None:
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
            self._template = None  # a template matches only from the start of an event
        if splitter.error is not None and self.failure is None:
            self.failure = (outcomes.IN_STREAM_ERROR, _readable(splitter.error))

    def _payload(self, stamp: int, payload: bytes, piece: bytes | None) -> None:
        """Decode one event. piece: the bytes that held this event and nothing else, or None."""
        if self._done or self.failure is not None:
            return
        try:
            event = self._decode(payload)
        except outcomes.DECODE_ERRORS as error:
            self.failure = (outcomes.MALFORMED, f"{error} in event: {_readable(payload)}")
            return
        if event.error is not None:
            self.failure = (outcomes.IN_STREAM_ERROR, event.error[:EXCERPT_BYTES])
            self._closing(event)
            return
        output = event.chars > 0 or (event.tokens or 0) > 0 or self._adds_tokens(event)
        if output:
            counts = array("i", (event.chars,)), array("i", (self._count(event),))
            self._output(array("q", (stamp,)), *counts, answer=event.answer_chars > 0)
            if self._texts is not None or self._answers is not None:
                answer = event.text[max(0, len(event.text) - event.answer_chars) :]
                self._keep(event.text.encode("utf-8", "replace"), answer.encode("utf-8", "replace"))
        if (
            event.done
            or event.finish_reason is not None
            or event.output_tokens is not None
            or event.timings is not None
            or event.input_tokens
        ):
            self._template = None
            self._closing(event)
        elif output and piece is not None and self._patience and learnable(event):
            self._learn(piece, payload, event)

    def _learn(self, piece: bytes, payload: bytes, event: Event) -> None:
        """Learn a template from this piece. Give up in streams where learned templates do not match."""
        events = len(self.sample.event_ns)
        self._patience = _PATIENCE if events - self._learned_at > _PATIENCE else self._patience - 1
        self._learned_at = events
        self._template = learn(piece, payload, event, self.sample.event_tokens[-1], self._dialect)

    def _adds_tokens(self, event: Event) -> bool:
        """Whether the running total shows tokens in an event without text: an incomplete character, or a special token."""
        total = event.output_tokens
        has_running_total = total is not None and self._running is not None and not event.closing and event.finish_reason is None
        return has_running_total and total > self._running  # type: ignore[operator]  # neither is None

    def _count(self, event: Event) -> int:
        """Tokens of an output event, -1 if unknown. Running usage gives a count per event; usage on only the last event does not."""
        tokens, total = event.tokens, event.output_tokens
        if tokens is None:
            tokens = -1 if total is None or self._running is None else total - self._running
        self._running = total
        return tokens if 0 <= tokens < _INT32 else -1

    def _output(self, stamps: array[int], chars: array[int], tokens: array[int], *, answer: bool) -> None:
        """Record output events: one entry of each array per event."""
        sample = self.sample
        self.finished = False  # an earlier end marker was not the end
        if answer and not sample.first_answer_ns:
            sample.first_answer_ns = stamps[0]
        sample.event_ns += stamps
        sample.event_chars += chars
        sample.event_tokens += tokens
        if self._texts is not None or self._answers is not None:
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
        if event.reasoning_tokens is not None:
            sample.reasoning_tokens = event.reasoning_tokens
        if event.finish_reason is not None:
            sample.finish_reason = event.finish_reason[:_MAX_NAME]
        self._finish_seen |= event.finish_reason is not None
        self._done_seen |= event.done
        if event.timings is not None:
            sample.server_timings = {name[:_MAX_NAME]: value for name, value in islice(event.timings.items(), _MAX_TIMINGS)}
        self._done = event.done
        if event.done or event.finish_reason is not None or event.closing:
            self.finished = True


def _leading(pattern: Pattern | None, pieces: Sequence[bytes]) -> list[bytes]:
    if pattern is None:
        return []
    return [text for text in takewhile(bool, map(pattern.text, pieces)) if text]


def _readable(body: bytes) -> str:
    return body[:EXCERPT_BYTES].decode("utf-8", "replace")
