"""Wire dialects: how a generation request is spelled and what one event of its stream says.

A dialect is pure: it builds a request body and decodes one event payload. It knows no socket, no clock and no engine; an
adapter picks one and adds that engine's own fields. The same few dialects serve almost every engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import orjson

from enginebench.nouns import JSON

Framing = Literal["sse", "ndjson"]


@dataclass(slots=True)
class Event:
    """What one event of a stream carried. chars > 0 or tokens > 0 makes it an *output* event.

    tokens: number of output tokens in it, None when the engine does not say. The usage counts are running or final totals.
    """

    chars: int = 0
    tokens: int | None = None
    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    timings: Mapping[str, float] | None = None
    error: str | None = None
    done: bool = False
    """The engine's end-of-stream marker ([DONE], done:true); many streams end without one."""


class Dialect(Protocol):
    """How one family of engines spells requests and streams."""

    path: str
    framing: Framing

    def body(
        self,
        *,
        model: str,
        prompt: str | Sequence[int],
        output_tokens: int,
        temperature: float,
        seed: int | None,
        extra: Mapping[str, JSON],
    ) -> dict[str, JSON]:
        """The JSON body of a streaming request with explicit sampling; extra is what the adapter adds."""
        ...

    def decode(self, payload: bytes) -> Event:
        """One event's payload (SSE data or one NDJSON line) -> Event. Raises ValueError when it is not what the dialect promises."""
        ...


def _usage(event: Event, usage: Any) -> None:
    if not isinstance(usage, dict):
        return
    event.input_tokens = _count(usage.get("prompt_tokens"))
    event.output_tokens = _count(usage.get("completion_tokens"))
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        event.cached_tokens = _count(details.get("cached_tokens"))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error.get("type") or error)
    return str(error)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class _OpenAI(ABC):
    """What the two OpenAI routes share: usage with or without choices, [DONE] or not, in-stream errors, llama.cpp's timings."""

    framing: Framing = "sse"

    def decode(self, payload: bytes) -> Event:
        if payload == b"[DONE]":
            return Event(done=True)
        data = orjson.loads(payload)
        if not isinstance(data, dict):
            raise ValueError("event is not a JSON object")
        event = Event()
        error = data.get("error")
        if error:
            event.error = _error_text(error)
            return event
        _usage(event, data.get("usage"))
        timings = data.get("timings")
        if isinstance(timings, dict):
            event.timings = {k: v for k, v in timings.items() if isinstance(v, int | float)}
            if event.cached_tokens is None:
                event.cached_tokens = _count(timings.get("cache_n"))
        choices = data.get("choices")
        if choices and isinstance(choices, list) and isinstance(choices[0], dict):
            choice = choices[0]
            event.text = self._output(choice)
            event.chars = len(event.text)
            ids = choice.get("token_ids")
            if isinstance(ids, list) and ids:
                event.tokens = len(ids)
            reason = choice.get("finish_reason")
            event.finish_reason = reason if isinstance(reason, str) else None
        return event

    def body(
        self,
        *,
        model: str,
        prompt: str | Sequence[int],
        output_tokens: int,
        temperature: float,
        seed: int | None,
        extra: Mapping[str, JSON],
    ) -> dict[str, JSON]:
        body: dict[str, JSON] = {"model": model, **self._spelled(prompt), "max_tokens": output_tokens, "temperature": temperature}
        return body | {"stream": True} | ({"seed": seed} if seed is not None else {}) | dict(extra)

    @abstractmethod
    def _spelled(self, prompt: str | Sequence[int]) -> dict[str, JSON]:
        """The field that holds the prompt."""

    @abstractmethod
    def _output(self, choice: Mapping[str, Any]) -> str:
        """The output text of one choice of one event."""


class OpenAICompletions(_OpenAI):
    """POST /v1/completions: raw prompt (text or token ids), no chat template."""

    path = "/v1/completions"

    def _spelled(self, prompt: str | Sequence[int]) -> dict[str, JSON]:
        return {"prompt": prompt if isinstance(prompt, str) else list(prompt)}

    def _output(self, choice: Mapping[str, Any]) -> str:
        return _text(choice.get("text"))


class OpenAIChat(_OpenAI):
    """POST /v1/chat/completions: the prompt is one user message, the server applies its template. Reasoning counts as output."""

    path = "/v1/chat/completions"
    _FIELDS: ClassVar[tuple[str, ...]] = ("content", "reasoning_content", "reasoning")

    def _spelled(self, prompt: str | Sequence[int]) -> dict[str, JSON]:
        if not isinstance(prompt, str):
            raise ValueError("the chat route takes text, not token ids")
        return {"messages": [{"role": "user", "content": prompt}]}

    def _output(self, choice: Mapping[str, Any]) -> str:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return ""
        return "".join(_text(delta.get(name)) for name in self._FIELDS)
