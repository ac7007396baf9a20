"""The two OpenAI routes, as implemented by vLLM, SGLang, TensorRT-LLM, llama.cpp and most others.

Accepts the variants of real servers: usage with or without choices or on every event, with or without [DONE], errors in the stream or in
a choice, reasoning under many names, content as a list of parts, cache hits under many names, timings of llama.cpp and vLLM. Does not
know: which server it is.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from enginebench.dialects.base import (
    Dialect,
    Event,
    PromptInput,
    as_messages,
    as_text_or_ids,
    count,
    error_text,
    figures,
    function_text,
    text,
    texts,
    tool_text,
)
from enginebench.dialects.finish import finish_of
from enginebench.dialects.form import Form
from enginebench.domain import JSON

_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thinking_blocks", "reasoning_details")
"""Where servers put reasoning (DeepSeek, vLLM, SGLang; OpenRouter, Groq; Ollama; GitHub Copilot; LiteLLM; OpenRouter as parts, perhaps
encrypted). Some send the same under several names, so the first that holds any counts."""
_CACHED = frozenset({"cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "cache_read_tokens", "num_cached_tokens"})
"""Prompt tokens from a cache: OpenAI and Moonshot, DeepSeek, Anthropic and gateways, and two of engines."""

_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_COUNTS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_PLAIN = frozenset({"content", "role"})


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
            if (reason := choice.get("finish_reason")) is not None:
                event.finish_reason = finish_of(reason)
            if error := choice.get("error"):
                event.error = error_text(error)
        else:
            event.closing = event.output_tokens is not None
            if "choices" not in data and not event.closing and ("detail" in data or {"message", "code"} <= data.keys()):
                event.error = error_text(data)

    def _build(self, model: str, prompt: PromptInput, output_tokens: int, sampling: Mapping[str, JSON]) -> dict[str, JSON]:
        return {"model": model, **self._prompt_fields(prompt), "max_tokens": output_tokens, **sampling, "stream": True}

    @abstractmethod
    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]: ...

    @abstractmethod
    def _output(self, event: Event, choice: Mapping[str, Any]) -> None: ...


class OpenAICompletions(_OpenAI):
    """POST /v1/completions: raw prompt (text or token ids), without a chat template."""

    path = "/v1/completions"

    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"prompt": as_text_or_ids(prompt, self.path)}

    def _output(self, event: Event, choice: Mapping[str, Any]) -> None:
        event.set_output(text(choice.get("text")), _reasoning(choice))


class OpenAIChat(_OpenAI):
    """POST /v1/chat/completions: messages (text becomes one user message); the server applies its template.

    Output is the reasoning and the answer (content, refusal, tool and function calls, the transcript of speech).
    """

    path = "/v1/chat/completions"

    def form_fields(self, form: Form) -> dict[str, JSON]:
        tools: dict[str, JSON] = {"tools": [dict(tool) for tool in form.tools], "tool_choice": form.tool_choice} if form.tools else {}
        return tools | ({"response_format": dict(form.response_format)} if form.response_format is not None else {})

    def _prompt_fields(self, prompt: PromptInput) -> dict[str, JSON]:
        return {"messages": as_messages(prompt)}

    def _output(self, event: Event, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        content = delta.get("content")
        if isinstance(content, str) and not _others(delta, _PLAIN):  # nearly every event
            event.set_output(content)
            return
        thought, answer = texts(content)
        audio = delta.get("audio")
        spoken = text(audio.get("transcript")) if isinstance(audio, dict) else ""
        calls = tool_text(delta.get("tool_calls")) + function_text(delta.get("function_call"))  # the older name of tool_calls
        event.set_output(
            answer + text(delta.get("refusal")) + calls + spoken,
            _reasoning(delta) or thought,
            without_text=bool(delta.get("images") or (isinstance(audio, dict) and audio.get("data"))),
        )
        if error := delta.get("error"):
            event.error = error_text(error)


def _reasoning(fields: Mapping[str, Any]) -> str:
    return next((found for name in _REASONING if fields.get(name) and (found := text(fields[name]))), "")


def _usage(event: Event, usage: Any) -> None:
    """Read the counts. No prompt has 0 tokens, so that is no count; `total_tokens` replaces a count of the output that is missing."""
    if not isinstance(usage, dict):
        return
    event.input_tokens, event.output_tokens = count(usage.get("prompt_tokens")) or None, count(usage.get("completion_tokens"))
    if event.output_tokens is None or event.input_tokens is None or _others(usage, _COUNTS):
        _details(event, usage)


def _others(fields: Mapping[str, Any], usual: frozenset[str]) -> bool:
    """Whether any field but the usual ones has a value. Asked for every event of a stream."""
    for name in fields.keys() - usual:  # noqa: SIM110  # a generator takes longer than this loop
        if fields[name]:
            return True
    return False


def _details(event: Event, usage: Mapping[str, Any]) -> None:
    event.input_tokens = _first(usage, "prompt_tokens", "input_tokens") or None
    event.output_tokens = _first(usage, "completion_tokens", "output_tokens")
    total = count(usage.get("total_tokens"))
    if event.output_tokens is None and event.input_tokens and total and total > event.input_tokens:
        event.output_tokens = total - event.input_tokens
    places = [usage, *(found for name in _PROMPT_DETAILS if isinstance(found := usage.get(name), dict))]
    cached = [found for place in places for name in _CACHED & place.keys() if (found := count(place[name])) is not None]
    event.cached_tokens = max(cached, default=None)  # of several names, the ones that are not in use hold 0
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or usage
    reasoning = count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    if reasoning and total != (event.input_tokens or 0) + (event.output_tokens or 0) + reasoning:  # else the count leaves reasoning out
        event.reasoning_tokens = reasoning


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    return next((found for name in names if (found := count(usage.get(name))) is not None), None)
