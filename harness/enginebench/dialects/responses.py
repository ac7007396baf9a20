"""OpenAI's Responses route: a stream of named events, of which the deltas hold output and the last one the whole response with its usage.

Does not know: which server it is. Sources: OpenAI's API reference; vLLM `ResponsesRequest`.
"""

from collections.abc import Mapping
from typing import Any, Final

from enginebench.dialects.base import Dialect, Event, PromptInput, as_messages, count, error_text, text
from enginebench.dialects.form import Form, parts_of
from enginebench.domain import JSON

_ANSWERS: Final = frozenset({
    "response.output_text.delta", "response.refusal.delta", "response.function_call_arguments.delta", "response.mcp_call_arguments.delta",
    "response.custom_tool_call_input.delta", "response.code_interpreter_call_code.delta", "response.audio.transcript.delta",
})  # fmt: skip
_THOUGHTS: Final = frozenset({"response.reasoning_text.delta", "response.reasoning_summary_text.delta", "response.reasoning.delta"})
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_CALLS: Final = frozenset({"function_call", "custom_tool_call"})


class OpenAIResponses(Dialect):
    """POST /v1/responses: items of input (text becomes one user message); the server applies its template.

    Output is the deltas of text, refusal, reasoning and tool calls, and the name of a called function. The events that repeat a text when
    it is complete are not.
    """

    path = "/v1/responses"
    lacks = frozenset({"stream_options"})

    def _build(self, model: str, prompt: PromptInput, output_tokens: int, sampling: Mapping[str, JSON]) -> dict[str, JSON]:
        items: list[JSON] = [_item(message) for message in as_messages(prompt) if isinstance(message, dict)]
        return {"model": model, "input": items, "max_output_tokens": output_tokens, **sampling, "stream": True, "store": False}

    def form_fields(self, form: Form) -> dict[str, JSON]:
        fields: dict[str, JSON] = {}
        if form.tools:
            fields |= {"tools": [{"type": "function", **function} for function in form.functions], "tool_choice": form.tool_choice}
        if form.response_format is not None:
            inner = form.response_format.get("json_schema")
            fields["text"] = {"format": {"type": "json_schema", **inner} if isinstance(inner, dict) else {"type": "json_object"}}
        return fields

    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        kind = data.get("type")
        if kind in _ANSWERS:
            event.set_output(text(data.get("delta")))
        elif kind in _THOUGHTS:
            event.set_output("", text(data.get("delta")))
        elif kind == "response.output_item.added":
            item = data.get("item")
            if isinstance(item, dict) and item.get("type") in _CALLS:
                event.set_output(text(item.get("name")))
        elif kind in _ENDS:
            _ended(event, data.get("response"))


def _item(message: Mapping[str, JSON]) -> dict[str, JSON]:
    content = message.get("content")
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    parts: list[JSON] = [
        {"type": "input_text", "text": value} if kind == "text" else {"type": "input_image", "image_url": value}
        for kind, value in parts_of(content)
    ]
    return {"role": message["role"], "content": parts}


def _ended(event: Event, response: Any) -> None:
    if not isinstance(response, dict):
        raise ValueError("the last event holds no response")
    usage = response.get("usage")
    if isinstance(usage, dict):
        event.input_tokens, event.output_tokens = count(usage.get("input_tokens")) or None, count(usage.get("output_tokens"))
        entered, made = usage.get("input_tokens_details"), usage.get("output_tokens_details")
        event.cached_tokens = count(entered.get("cached_tokens")) if isinstance(entered, dict) else None
        event.reasoning_tokens = (count(made.get("reasoning_tokens")) or None) if isinstance(made, dict) else None
    event.closing = True
    status, details = response.get("status"), response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    event.finish_reason = str(reason or status or "completed")
    if error := response.get("error"):
        event.error = error_text(error)
