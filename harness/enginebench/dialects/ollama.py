"""Ollama's two native routes: one JSON object per line, the last with token counts and durations in ns.

Ollama always stops at an end-of-sequence token, so `num_predict` is a maximum. It takes no token ids and does not report tokens per event.
Options such as num_ctx reload the model when they differ between requests, so the dialect does not send them.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from enginebench.dialects.base import Dialect, Event, PromptInput, as_messages, as_text, count, figures, text, tool_text
from enginebench.dialects.finish import finish_of
from enginebench.domain import JSON

_DURATIONS: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


class _Ollama(Dialect):
    framing = "ndjson"

    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        self._output(event, data)
        if data.get("done") is True:
            event.done = True
            event.finish_reason = finish_of(data.get("done_reason"))
            event.input_tokens = count(data.get("prompt_eval_count")) or None
            event.cached_tokens = count(data.get("prompt_eval_cached_count"))
            event.output_tokens = count(data.get("eval_count"))
            event.timings = figures(data, *_DURATIONS)

    def _build(self, model: str, prompt: PromptInput, output_tokens: int, sampling: Mapping[str, JSON]) -> dict[str, JSON]:
        return {"model": model, **self._prompt_fields(prompt), "stream": True, "options": {"num_predict": output_tokens, **sampling}}

    @abstractmethod
    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        """The fields with the prompt."""

    @abstractmethod
    def _output(self, event: Event, data: Mapping[str, Any]) -> None:
        """Set the output of one event."""


class OllamaGenerate(_Ollama):
    """POST /api/generate: a raw prompt (text only), without a chat template."""

    path = "/api/generate"

    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"prompt": as_text(prompt, self.path), "raw": True}

    def _output(self, event: Event, data: Mapping[str, Any]) -> None:
        event.set_output(text(data.get("response")), text(data.get("thinking")))


class OllamaChat(_Ollama):
    """POST /api/chat: messages (text becomes one user message); the server applies its template."""

    path = "/api/chat"

    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"messages": as_messages(prompt)}

    def _output(self, event: Event, data: Mapping[str, Any]) -> None:
        message = data.get("message")
        if isinstance(message, dict):
            event.set_output(text(message.get("content")) + tool_text(message.get("tool_calls")), text(message.get("thinking")))
