"""SGLang's native /generate route: each event repeats the whole text so far and reports its number of tokens.

With --incremental-streaming-output a server sends only new text. The stream does not declare its mode, so each stream's decoder detects it.
The route has no chat template.
"""

from collections.abc import Callable, Mapping
from typing import Any

from enginebench.dialects.base import Dialect, Event, PromptInput, as_text_or_ids, count, error_text, figures, read_event, text
from enginebench.dialects.finish import finish_of
from enginebench.domain import JSON

INCOMPLETE = "\ufffd"
"""Replaces an incomplete character at the end of a text. The next event has the complete character in its place."""


class SglangGenerate(Dialect):
    """POST /generate: raw prompt (text or token ids). The server has one model, so the body does not name it."""

    path = "/generate"

    def _build(self, model: str, prompt: PromptInput, output_tokens: int, sampling: Mapping[str, JSON]) -> dict[str, JSON]:
        field = "text" if isinstance(prompt, str) else "input_ids"
        named = {"sampling_seed" if name == "seed" else name: value for name, value in sampling.items()}
        return {field: as_text_or_ids(prompt, self.path), "sampling_params": {"max_new_tokens": output_tokens, **named}, "stream": True}

    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        _Stream().read(event, data)

    def decoder(self) -> Callable[[bytes], Event]:
        return _Stream().decode


class _Stream:
    """The state of one stream: the text so far, and whether events repeat it."""

    __slots__ = ("_cumulative", "_seen", "_total")

    def __init__(self) -> None:
        self._seen = ""
        self._total = 0
        self._cumulative = True

    def decode(self, payload: bytes) -> Event:
        return read_event(payload, self.read)

    def read(self, event: Event, data: Mapping[str, Any]) -> None:
        meta = data.get("meta_info")
        if isinstance(meta, dict):
            _meta(event, meta)
        if event.error is None:
            whole = text(data.get("text"))
            if self._cumulative and event.finish_reason is None:
                whole = whole.rstrip(INCOMPLETE)
            event.set_output(self._new_part(whole, data.get("output_ids"), event.output_tokens))
        total = event.output_tokens or 0
        if event.finish_reason is not None and not event.chars and total > self._total:
            event.tokens = total - self._total  # the last token has no text, or text that looks like a repetition
        self._total = total

    def _new_part(self, received: str, ids: Any, total: int | None) -> str:
        """The new part of the received text. Once a stream is found to be incremental, it stays so.

        Token ids decide reliably from the second event on: a cumulative event has as many ids as tokens so far, an incremental one fewer.
        Without ids, a text that does not start with the previous one shows that the stream is incremental. Until then equal tokens ('a',
        'a') can look like a repetition, which loses characters but no events, because events are counted by their tokens.
        """
        if self._cumulative and received:
            if isinstance(ids, list) and total is not None:
                self._cumulative = len(ids) >= total
            else:
                self._cumulative = received.startswith(self._seen)
        if not self._cumulative:
            return received
        new = received[len(self._seen) :]
        self._seen = received if len(received) > len(self._seen) else self._seen
        return new


def _meta(event: Event, meta: Mapping[str, Any]) -> None:
    event.input_tokens = count(meta.get("prompt_tokens"))
    event.output_tokens = count(meta.get("completion_tokens"))
    event.cached_tokens = count(meta.get("cached_tokens"))
    reason = meta.get("finish_reason")
    event.finish_reason = finish_of(reason)
    if event.finish_reason is None:
        return
    if event.finish_reason == "abort" and isinstance(reason, dict):
        event.error = error_text(reason.get("message") or "aborted")
    # Fractional fields are the engine's durations and rates; integer fields are counts, handled above.
    event.timings = figures({name: value for name, value in meta.items() if isinstance(value, float)})
