"""SGLang's own /generate: each event repeats the whole text so far, and says how many tokens that was.

A server started with --incremental-streaming-output sends only what is new, and nothing in the stream says which of the two it is;
so each stream's decoder finds out. Does not know chat: the native route has no template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from enginebench.dialects.base import Ask, Dialect, Event, as_text_or_ids, count, error_text, figures, read_event, text
from enginebench.domain import JSON

HALF = "\ufffd"
"""Stands at the end of a text whose last character is not whole yet; the next event has the character in its place."""


class SglangGenerate(Dialect):
    """POST /generate: raw prompt (text or token ids). The model is the one that is loaded, so the body does not name it."""

    path = "/generate"

    def _spelled(self, ask: Ask) -> dict[str, JSON]:
        spelled = as_text_or_ids(ask.prompt, self.path)
        sampling: dict[str, JSON] = {"max_new_tokens": ask.output_tokens, "temperature": ask.temperature}
        if ask.seed is not None:
            sampling["sampling_seed"] = ask.seed
        field = "text" if isinstance(spelled, str) else "input_ids"
        return {field: spelled, "sampling_params": sampling, "stream": True}

    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        _Stream().read(event, data)

    def decoder(self) -> Callable[[bytes], Event]:
        return _Stream().decode


class _Stream:
    """One stream: the text so far, and whether its events repeat it."""

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
                whole = whole.rstrip(HALF)
            event.say(self._new(whole, data.get("output_ids"), event.output_tokens))
        total = event.output_tokens or 0
        if event.finish_reason is not None and not event.chars and total > self._total:
            event.tokens = total - self._total  # the last token, without text, or with one that looks like a repetition
        self._total = total

    def _new(self, said: str, ids: Any, total: int | None) -> str:
        """What of this text is new. Once incremental, always incremental.

        The ids tell for certain, from the second event on: there are as many as tokens so far, or fewer. Without them, a text that
        does not begin with the one before cannot repeat it; until that happens the tokens of an incremental stream can look like a
        repetition ('a', 'a'), which costs characters and no event, because the events are counted by their tokens.
        """
        if self._cumulative and said:
            if isinstance(ids, list) and total is not None:
                self._cumulative = len(ids) >= total
            else:
                self._cumulative = said.startswith(self._seen)
        if not self._cumulative:
            return said
        new = said[len(self._seen) :]
        self._seen = said if len(said) > len(self._seen) else self._seen
        return new


def _meta(event: Event, meta: Mapping[str, Any]) -> None:
    event.input_tokens = count(meta.get("prompt_tokens"))
    event.output_tokens = count(meta.get("completion_tokens"))
    event.cached_tokens = count(meta.get("cached_tokens"))
    reason = meta.get("finish_reason")
    kind = reason.get("type") if isinstance(reason, dict) else reason
    if not isinstance(kind, str):
        return
    event.finish_reason = kind
    if kind == "abort" and isinstance(reason, dict):
        event.error = error_text(reason.get("message") or "aborted")
    # The engine's seconds and rates are the fractional fields; the others are counts, which have names of their own above.
    event.timings = figures({name: value for name, value in meta.items() if isinstance(value, float)})
