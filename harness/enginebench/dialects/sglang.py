"""SGLang's own /generate: each event repeats the whole text so far, and says how many tokens that was.

A server started with --incremental-streaming-output sends only what is new, and nothing in the stream says which of the two it is;
so each stream's decoder finds out. Does not know chat: the native route has no template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from enginebench.dialects.base import Dialect, Event, PromptInput, as_text_or_ids, count, error_text, figures, json_object, merged, text
from enginebench.nouns import JSON


class SglangGenerate(Dialect):
    """POST /generate: raw prompt (text or token ids). The model is the one that is loaded, so the body does not name it."""

    path = "/generate"

    def body(
        self,
        *,
        model: str,
        prompt: PromptInput,
        output_tokens: int,
        temperature: float,
        seed: int | None,
        extra: Mapping[str, JSON],
    ) -> dict[str, JSON]:
        spelled = as_text_or_ids(prompt, self.path)
        sampling: dict[str, JSON] = {"max_new_tokens": output_tokens, "temperature": temperature}
        if seed is not None:
            sampling["sampling_seed"] = seed
        field = "text" if isinstance(spelled, str) else "input_ids"
        return merged({field: spelled, "sampling_params": sampling, "stream": True}, extra)

    def decode(self, payload: bytes) -> Event:
        return self.decoder()(payload)

    def decoder(self) -> Callable[[bytes], Event]:
        return _Stream().decode


class _Stream:
    """One stream: the text so far, and whether its events repeat it."""

    __slots__ = ("_cumulative", "_seen")

    def __init__(self) -> None:
        self._seen = ""
        self._cumulative = True

    def decode(self, payload: bytes) -> Event:
        if payload == b"[DONE]":
            return Event(done=True)
        data = json_object(payload)
        event = Event()
        error = data.get("error")
        if error:
            event.error = error_text(error)
            return event
        meta = data.get("meta_info")
        if isinstance(meta, dict):
            _meta(event, meta)
        if event.error is None:
            event.say(self._new(text(data.get("text")), data.get("output_ids"), event.output_tokens))
        return event

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
