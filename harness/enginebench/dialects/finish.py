"""Finish reasons: which mean that a generation was complete, and which mean that it failed.

Compared in lower case. Sources: OpenAI's API reference; vLLM `FinishReason`; SGLang `FINISH_ABORT`; TensorRT-LLM `CompletionOutput`;
TGI `FinishReason`; Ollama `done_reason`; DeepSeek, Zhipu, Mistral, Cohere, Anthropic and Google API references (through their
OpenAI-compatible routes or gateways). Does not know protocols.
"""

from collections.abc import Mapping
from typing import Any, Final

COMPLETE: Final = frozenset({
    "stop", "length", "tool_calls", "function_call", "tool_use", "tool_call", "eos", "eos_token", "stop_sequence", "stop_token", "stop_str",
    "end_turn", "end_id", "stop_words", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "model_length", "limit",
    "complete", "completed", "end", "pause_turn", "refusal", "repetition", "finish_reason_stop", "finish_reason_max_tokens",
})  # fmt: skip
"""A stop or the length that was asked for."""

FAILED: Final[Mapping[str, str]] = {
    "error": "the engine failed",
    "internal_error": "the engine failed",
    "server_error": "the engine failed",
    "failed": "the engine failed",
    "incomplete": "the generation was broken off",
    "abort": "the engine aborted the request",
    "aborted": "the engine aborted the request",
    "cancel": "the request was cancelled",
    "cancelled": "the request was cancelled",
    "canceled": "the request was cancelled",
    "user_cancel": "the request was cancelled",
    "timeout": "the engine ran out of time",
    "time_limit": "the engine ran out of time",
    "overloaded": "the engine is overloaded",
    "overloaded_error": "the engine is overloaded",
    "insufficient_system_resource": "the engine is overloaded",
    "network_error": "the engine lost a connection",
    "rejected": "the engine rejected the request",
    "not_finished": "the generation was broken off",
    "context_length_exceeded": "the context is too small",
    "model_context_window_exceeded": "the context is too small",
    "error_limit": "the context is too small",
    "content_filter": "a filter removed the answer",
    "content_filtered": "a filter removed the answer",
    "guardrail_intervened": "a filter removed the answer",
    "error_toxic": "a filter removed the answer",
    "sensitive": "a filter removed the answer",
    "safety": "a filter removed the answer",
    "recitation": "a filter removed the answer",
    "blocklist": "a filter removed the answer",
    "prohibited_content": "a filter removed the answer",
    "spii": "a filter removed the answer",
    "malformed_function_call": "the tool call is invalid",
}
"""Reason -> what happened. Such a request is a failure, whatever came before."""


def finish_of(value: Any) -> str | None:
    """The finish reason in a field; None for null and for an empty text, which servers send before the end."""
    reason = value.get("type") if isinstance(value, dict) else value
    return reason if isinstance(reason, str) and reason.strip().lower() not in ("", "null", "none") else None


def failure_of(reason: str | None) -> str | None:
    """Why this finish reason is a failure; None if it is none."""
    meaning = FAILED.get(reason.strip().lower()) if reason else None
    return f"{meaning} (finish_reason: {reason})" if meaning else None
