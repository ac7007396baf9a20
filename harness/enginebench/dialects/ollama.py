"""Ollama's two native routes: one JSON object per line, the last with token counts and durations in ns.

Ollama always stops at an end-of-sequence token, so `num_predict` is a maximum. It takes no token ids and does not report tokens per event.
Options such as num_ctx reload the model when they differ between requests, so the dialect does not send them.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from enginebench.dialects.base import Dialect, Event, PromptInput, as_messages, as_text, count, figures, text, tool_text
from enginebench.dialects.finish import finish_of
from enginebench.dialects.form import Form, parts_of
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

    def form_fields(self, form: Form) -> dict[str, JSON]:
        if form.tools and form.tool_choice != "auto":
            raise ValueError("Ollama has no tool_choice")
        fields: dict[str, JSON] = {"tools": [dict(tool) for tool in form.tools]} if form.tools else {}
        schema = form.schema
        return fields | ({"format": dict(schema) if schema is not None else "json"} if form.response_format is not None else {})

    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"messages": [_message(message) for message in as_messages(prompt) if isinstance(message, dict)]}

    def _output(self, event: Event, data: Mapping[str, Any]) -> None:
        message = data.get("message")
        if isinstance(message, dict):
            event.set_output(text(message.get("content")) + tool_text(message.get("tool_calls")), text(message.get("thinking")))


def _message(message: Mapping[str, JSON]) -> dict[str, JSON]:
    """Text and images are fields of their own."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    parts = parts_of(content)
    images: list[JSON] = [url.partition(";base64,")[2] for kind, url in parts if kind == "image"]
    return {**message, "content": "".join(value for kind, value in parts if kind == "text"), **({"images": images} if images else {})}
