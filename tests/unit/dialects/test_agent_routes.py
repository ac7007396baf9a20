"""OpenAI's Responses and Anthropic's Messages: what a request says, and what each event of their streams means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from enginebench.dialects import (
    AnthropicMessages,
    Dialect,
    Event,
    Form,
    OllamaChat,
    OpenAIChat,
    OpenAICompletions,
    OpenAIResponses,
    image_part,
)
from enginebench.domain import JSON

RESPONSES, MESSAGES, CHAT, OLLAMA = OpenAIResponses(), AnthropicMessages(), OpenAIChat(), OllamaChat()
TALK: list[dict[str, JSON]] = [
    {"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"},
    {"role": "user", "content": [image_part("QUJD"), {"type": "text", "text": "and?"}]},
]  # fmt: skip
TOOL: dict[str, JSON] = {
    "type": "function",
    "function": {"name": "look", "description": "Look it up", "parameters": {"type": "object", "properties": {"word": {"type": "string"}}}},
}
SCHEMA: dict[str, JSON] = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
FORM = Form((TOOL,), "required", {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}})
ANY_OBJECT = Form(response_format={"type": "json_object"})


def body(dialect: Dialect, prompt: Any, **extra: JSON) -> Mapping[str, JSON]:
    return dialect.body(model="m", prompt=prompt, output_tokens=8, temperature=0.5, seed=3, extra=extra)


def said(answer: str, reasoning: str = "") -> Event:
    text = reasoning + answer
    return Event(chars=len(text), answer_chars=len(answer), text=text)


def test_a_request_of_the_responses_route() -> None:
    assert body(RESPONSES, "hi", stream_options={"include_usage": True}, ignore_eos=True) == {
        "model": "m", "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 8, "temperature": 0.5, "seed": 3, "stream": True,
        "store": False, "ignore_eos": True,
    }  # fmt: skip
    assert body(RESPONSES, TALK)["input"] == [
        *TALK[:3],
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "data:image/png;base64,QUJD"}, {"type": "input_text", "text": "and?"},
            ],
        },
    ]  # fmt: skip


def test_a_request_of_the_messages_route() -> None:
    """The system message is beside the others, and the route has neither a seed nor options of the stream."""
    assert body(MESSAGES, TALK, stream_options={}, top_k=0) == {
        "model": "m", "max_tokens": 8, "temperature": 0.5, "stream": True, "top_k": 0, "system": "be kind",
        "messages": [
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"},
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "text", "text": "and?"},
            ]},
        ],
    }  # fmt: skip
    assert MESSAGES.headers == {"anthropic-version": "2023-06-01"}


def test_ollama_takes_images_beside_the_text() -> None:
    assert body(OLLAMA, TALK[-1:])["messages"] == [{"role": "user", "content": "and?", "images": ["QUJD"]}]


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (CHAT, {"tools": [TOOL], "tool_choice": "required", "response_format": FORM.response_format}),
        (
            RESPONSES,
            {
                "tools": [{"type": "function", **FORM.functions[0]}],
                "tool_choice": "required",
                "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}},
            },
        ),
        (
            MESSAGES,
            {
                "tools": [{"name": "look", "description": "Look it up", "input_schema": FORM.functions[0]["parameters"]}],
                "tool_choice": {"type": "any"},
                "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
            },
        ),
    ],
)
def test_tools_and_the_form_of_an_answer(dialect: Dialect, fields: Mapping[str, JSON]) -> None:
    assert dialect.form_fields(FORM) == fields


def test_what_a_route_does_not_have_is_refused() -> None:
    assert CHAT.form_fields(ANY_OBJECT) == {"response_format": {"type": "json_object"}}
    assert RESPONSES.form_fields(ANY_OBJECT) == {"text": {"format": {"type": "json_object"}}}
    assert OLLAMA.form_fields(ANY_OBJECT) == {"format": "json"}
    for dialect, form in ((MESSAGES, ANY_OBJECT), (OpenAICompletions(), FORM), (OLLAMA, FORM)):
        with pytest.raises(ValueError, match=r"ha(s|ve)"):
            dialect.form_fields(form)
    with pytest.raises(ValueError, match="input_audio"):
        body(RESPONSES, [{"role": "user", "content": [{"type": "input_audio"}]}])


USAGE = {
    "input_tokens": 12, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 21,
}  # fmt: skip
COUNTS = {"input_tokens": 12, "cached_tokens": 4, "output_tokens": 9, "reasoning_tokens": 3, "closing": True}


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        ({"type": "response.created", "response": {"status": "in_progress", "usage": None, "error": None}}, Event()),
        ({"type": "response.output_item.added", "item": {"type": "message", "content": []}}, Event()),
        ({"type": "response.output_item.added", "item": {"type": "function_call", "name": "look", "arguments": ""}}, said("look")),
        ({"type": "response.output_text.delta", "delta": " one", "sequence_number": 5, "logprobs": []}, said(" one")),
        ({"type": "response.output_text.done", "text": " one two"}, Event()),
        ({"type": "response.reasoning_text.delta", "delta": "hm"}, said("", "hm")),
        ({"type": "response.reasoning_summary_text.delta", "delta": "hm"}, said("", "hm")),
        ({"type": "response.refusal.delta", "delta": "no"}, said("no")),
        ({"type": "response.function_call_arguments.delta", "delta": '{"a'}, said('{"a')),
        ({"type": "response.completed", "response": {"status": "completed", "usage": USAGE}}, Event(finish_reason="completed", **COUNTS)),
        (
            {
                "type": "response.incomplete",
                "response": {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": USAGE},
            },
            Event(finish_reason="max_output_tokens", **COUNTS),
        ),
        (
            {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error", "message": "oh"}}},
            Event(finish_reason="failed", error="oh", closing=True),
        ),
        ({"type": "error", "code": "server_error", "message": "oh"}, Event(error="oh")),
    ],
)
def test_events_of_the_responses_route(payload: object, event: Event) -> None:
    assert RESPONSES.decode(json.dumps(payload).encode()) == event


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (
            {"type": "message_start", "message": {"usage": {"input_tokens": 8, "cache_read_input_tokens": 4, "output_tokens": 1}}},
            Event(input_tokens=12, cached_tokens=4),
        ),
        ({"type": "ping"}, Event()),
        ({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, Event()),
        (
            {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "look", "input": {}}},
            said("look"),
        ),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " one"}}, said(" one")),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}, said("", "hm")),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}}, Event()),
        ({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a'}}, said('{"a')),
        ({"type": "content_block_stop", "index": 0}, Event()),
        (
            {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 9}},
            Event(output_tokens=9, finish_reason="max_tokens", closing=True),
        ),
        (
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 7, "output_tokens": 9}},
            Event(input_tokens=7, output_tokens=9, finish_reason="end_turn", closing=True),
        ),
        ({"type": "message_stop"}, Event(done=True)),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "later"}}, Event(error="later")),
    ],
)
def test_events_of_the_messages_route(payload: object, event: Event) -> None:
    assert MESSAGES.decode(json.dumps(payload).encode()) == event
