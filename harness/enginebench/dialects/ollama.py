"""Ollama's own two routes: one JSON object a line, and a last one with the counts and the engine's durations in ns.

Ollama cannot be made to go on after an end-of-sequence token, so `num_predict` is a cap; and it takes no token ids. Options that
change the launch (num_ctx and others) reload the model when they differ between requests, so the dialect sends none of them.
Does not know how many tokens an event holds: Ollama does not say.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from enginebench.dialects.base import Ask, Dialect, Event, PromptInput, as_messages, as_text, count, figures, text, tool_text
from enginebench.domain import JSON

_DURATIONS: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


class _Ollama(Dialect):
    """What the two routes share."""

    framing = "ndjson"

    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        self._output(event, data)
        if data.get("done") is True:
            event.done = True
            reason = data.get("done_reason")
            event.finish_reason = reason if isinstance(reason, str) else None
            event.input_tokens = count(data.get("prompt_eval_count"))
            event.cached_tokens = count(data.get("prompt_eval_cached_count"))
            event.output_tokens = count(data.get("eval_count"))
            event.timings = figures(data, *_DURATIONS)

    def _spelled(self, ask: Ask) -> dict[str, JSON]:
        options: dict[str, JSON] = {"num_predict": ask.output_tokens, "temperature": ask.temperature}
        if ask.seed is not None:
            options["seed"] = ask.seed
        return {"model": ask.model, **self._asked(ask.prompt), "stream": True, "options": options}

    @abstractmethod
    def _asked(self, prompt: PromptInput) -> dict[str, JSON]:
        """The fields that hold the prompt."""

    @abstractmethod
    def _output(self, event: Event, data: Mapping[str, Any]) -> None:
        """Set the output of one event."""


class OllamaGenerate(_Ollama):
    """POST /api/generate: a raw prompt (text only), no template."""

    path = "/api/generate"

    def _asked(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"prompt": as_text(prompt, self.path), "raw": True}

    def _output(self, event: Event, data: Mapping[str, Any]) -> None:
        event.say(text(data.get("response")), text(data.get("thinking")))


class OllamaChat(_Ollama):
    """POST /api/chat: messages (text becomes one of the user's), the server applies its template."""

    path = "/api/chat"

    def _asked(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"messages": as_messages(prompt)}

    def _output(self, event: Event, data: Mapping[str, Any]) -> None:
        message = data.get("message")
        if isinstance(message, dict):
            event.say(text(message.get("content")) + tool_text(message.get("tool_calls")), text(message.get("thinking")))
