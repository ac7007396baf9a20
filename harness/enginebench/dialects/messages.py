"""Anthropic's Messages route: named events; the first has the count of the prompt, the last but one that of the answer and why it ended.

Does not know: which server it is. Sources: Anthropic's API reference; vLLM's and llama.cpp's routes of the same name.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from enginebench.dialects.base import Dialect, Event, PromptInput, as_messages, count, text
from enginebench.dialects.finish import finish_of
from enginebench.dialects.form import Form, parts_of
from enginebench.domain import JSON

_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_CACHES: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Parts of the prompt that `input_tokens` leaves out."""


class AnthropicMessages(Dialect):
    """POST /v1/messages: messages, and the system message beside them; the server applies its template.

    Output is the deltas of text, thinking and a tool's input, and the name of a called tool.
    """

    path = "/v1/messages"
    headers: ClassVar[Mapping[str, str]] = {"anthropic-version": "2023-06-01"}
    lacks = frozenset({"stream_options", "min_p"})

    def _build(self, model: str, prompt: PromptInput, output_tokens: int, sampling: Mapping[str, JSON]) -> dict[str, JSON]:
        said = [message for message in as_messages(prompt) if isinstance(message, dict)]
        system = "\n\n".join(str(message["content"]) for message in said if message["role"] == "system")
        messages: list[JSON] = [_message(message) for message in said if message["role"] != "system"]
        kept = {name: value for name, value in sampling.items() if name != "seed"}  # which the route does not have
        body: dict[str, JSON] = {"model": model, "messages": messages, "max_tokens": output_tokens, **kept, "stream": True}
        return body | ({"system": system} if system else {})

    def form_fields(self, form: Form) -> dict[str, JSON]:
        fields: dict[str, JSON] = {}
        if form.tools:
            tools: list[JSON] = [
                {
                    "name": its.get("name"), "description": its.get("description") or "",
                    "input_schema": its.get("parameters") or {"type": "object"},
                }
                for its in form.functions
            ]  # fmt: skip
            fields |= {"tools": tools, "tool_choice": {"type": _CHOICES[form.tool_choice]}}
        if form.response_format is not None:
            if form.schema is None:
                raise ValueError("the messages route has answers of a JSON schema, and none that are any JSON object")
            fields["output_config"] = {"format": {"type": "json_schema", "schema": dict(form.schema)}}
        return fields

    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        kind = data.get("type")
        if kind == "content_block_delta":
            delta = data.get("delta")
            if isinstance(delta, dict):
                event.set_output(text(delta.get("text")) + text(delta.get("partial_json")), text(delta.get("thinking")))
        elif kind == "content_block_start":
            block = data.get("content_block")
            if isinstance(block, dict):
                event.set_output(text(block.get("text")) + text(block.get("name")), text(block.get("thinking")))
        elif kind == "message_start":
            message = data.get("message")
            _prompt(event, message.get("usage") if isinstance(message, dict) else None)
        elif kind == "message_delta":
            usage, delta = data.get("usage"), data.get("delta")
            _prompt(event, usage)
            event.output_tokens = count(usage.get("output_tokens")) if isinstance(usage, dict) else None
            event.finish_reason = finish_of(delta.get("stop_reason")) if isinstance(delta, dict) else None
            event.closing = True
        elif kind == "message_stop":
            event.done = True


def _prompt(event: Event, usage: Any) -> None:
    """The whole prompt, and what of it came from the cache."""
    if not isinstance(usage, dict):
        return
    fresh, cached = count(usage.get("input_tokens")), [count(usage.get(name)) for name in _CACHES]
    if fresh is not None:
        event.input_tokens = fresh + sum(part or 0 for part in cached) or None
        event.cached_tokens = cached[0]


def _message(message: Mapping[str, JSON]) -> dict[str, JSON]:
    content = message.get("content")
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    parts: list[JSON] = [{"type": "text", "text": value} if kind == "text" else _image(value) for kind, value in parts_of(content)]
    return {"role": message["role"], "content": parts}


def _image(url: str) -> dict[str, JSON]:
    head, _, data = url.partition(";base64,")
    if not data:
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}}
