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

_MEANINGS: Final[Mapping[str, str]] = {
    "the engine failed": "error internal_error server_error failed",
    "the generation was broken off": "incomplete not_finished",
    "the engine aborted the request": "abort aborted",
    "the request was cancelled": "cancel cancelled canceled user_cancel",
    "the engine ran out of time": "timeout time_limit",
    "the engine is overloaded": "overloaded overloaded_error insufficient_system_resource",
    "the engine lost a connection": "network_error",
    "the engine rejected the request": "rejected",
    "the context is too small": "context_length_exceeded model_context_window_exceeded error_limit",
    "a filter removed the answer": "content_filter content_filtered guardrail_intervened error_toxic sensitive safety recitation blocklist "
    "prohibited_content spii",
    "the tool call is invalid": "malformed_function_call",
}
FAILED: Final = {reason: meaning for meaning, reasons in _MEANINGS.items() for reason in reasons.split()}
"""Reason -> what happened. Such a request is a failure, whatever came before."""


def finish_of(value: Any) -> str | None:
    """The finish reason in a field; None for null and for an empty text, which servers send before the end."""
    reason = value.get("type") if isinstance(value, dict) else value
    return reason if isinstance(reason, str) and reason.strip().lower() not in ("", "null", "none") else None


def failure_of(reason: str | None) -> str | None:
    """Why this finish reason is a failure; None if it is none."""
    meaning = FAILED.get(reason.strip().lower()) if reason else None
    return f"{meaning} (finish_reason: {reason})" if meaning else None
