"""The two OpenAI routes, as implemented by vLLM, SGLang, TensorRT-LLM, llama.cpp and most others.

Accepts the variants of real servers: usage with or without choices or on every event, with or without [DONE], errors in the stream,
reasoning under two names, content as a list of parts, timings of llama.cpp and vLLM. Does not know: which server it is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from enginebench.dialects.base import (
    Dialect,
    Event,
    GenerationRequest,
    PromptInput,
    as_messages,
    as_text_or_ids,
    count,
    figures,
    function_text,
    text,
    tool_text,
)
from enginebench.domain import JSON


class _OpenAI(Dialect):
    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        _usage(event, data.get("usage"))
        timings = data.get("timings") or data.get("metrics")
        if isinstance(timings, dict):
            event.timings = figures(timings)
            if event.cached_tokens is None:
                event.cached_tokens = count(timings.get("cache_n"))
        choices = data.get("choices")
        if choices and isinstance(choices, list) and isinstance(choices[0], dict):
            choice = choices[0]
            self._output(event, choice)
            ids = choice.get("token_ids")
            if isinstance(ids, list) and ids:
                event.tokens = len(ids)
            reason = choice.get("finish_reason")
            event.finish_reason = reason if isinstance(reason, str) else None
            if reason in ("abort", "error"):
                event.error = f"the engine aborted the request (finish_reason: {reason})"
        else:
            event.closing = event.output_tokens is not None

    def _build(self, request: GenerationRequest) -> dict[str, JSON]:
        body: dict[str, JSON] = {"model": request.model, **self._prompt_fields(request.prompt), "max_tokens": request.output_tokens}
        body |= {"temperature": request.temperature, "stream": True}
        return body | ({"seed": request.seed} if request.seed is not None else {})

    @abstractmethod
    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        """The field with the prompt."""

    @abstractmethod
    def _output(self, event: Event, choice: Mapping[str, Any]) -> None:
        """Set the output of one choice of one event."""


class OpenAICompletions(_OpenAI):
    """POST /v1/completions: raw prompt (text or token ids), without a chat template."""

    path = "/v1/completions"

    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"prompt": as_text_or_ids(prompt, self.path)}

    def _output(self, event: Event, choice: Mapping[str, Any]) -> None:
        event.set_output(text(choice.get("text")))


class OpenAIChat(_OpenAI):
    """POST /v1/chat/completions: messages (text becomes one user message); the server applies its template.

    Output is the reasoning and the answer (content, refusal, tool and function calls).
    """

    path = "/v1/chat/completions"

    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"messages": as_messages(prompt)}

    def _output(self, event: Event, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        answer = text(delta.get("content")) + text(delta.get("refusal")) + tool_text(delta.get("tool_calls"))
        function = delta.get("function_call")  # the older name of tool_calls
        if isinstance(function, dict):
            answer += function_text(function)
        # Some servers send the same reasoning text under both names.
        event.set_output(answer, text(delta.get("reasoning_content")) or text(delta.get("reasoning")))


def _usage(event: Event, usage: Any) -> None:
    if not isinstance(usage, dict):
        return
    event.input_tokens = count(usage.get("prompt_tokens"))
    event.output_tokens = count(usage.get("completion_tokens"))
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        event.cached_tokens = count(details.get("cached_tokens"))
