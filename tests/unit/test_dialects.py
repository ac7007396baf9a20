"""The two OpenAI routes: what a request says, and what each of the events that engines really send means."""

from __future__ import annotations

import json

import pytest
from enginebench.dialects import Event, OpenAIChat, OpenAICompletions
from hypothesis import given, settings
from hypothesis import strategies as st

COMPLETIONS, CHAT = OpenAICompletions(), OpenAIChat()
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.sampled_from([0.5, -1e300]) | st.sampled_from(["", "a", "é\n"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "delta", "text", "usage", "error", "timings", "x"]), inner)
    ),
    max_leaves=8,
)


def test_a_request_streams_with_explicit_sampling_and_the_adapters_fields() -> None:
    body = COMPLETIONS.body(model="m", prompt=(1, 2), output_tokens=8, temperature=0.0, seed=None, extra={"ignore_eos": True})
    assert body == {"model": "m", "prompt": [1, 2], "max_tokens": 8, "temperature": 0.0, "stream": True, "ignore_eos": True}
    chat = CHAT.body(model="m", prompt="hi", output_tokens=8, temperature=0.5, seed=3, extra={})
    assert chat["messages"] == [{"role": "user", "content": "hi"}]
    assert (chat["seed"], chat["temperature"], chat["stream"]) == (3, 0.5, True)


def test_chat_refuses_token_ids() -> None:
    with pytest.raises(ValueError, match="token ids"):
        CHAT.body(model="m", prompt=[1, 2], output_tokens=8, temperature=0.0, seed=None, extra={})


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        ({"choices": [{"text": " a"}]}, Event(chars=2, text=" a")),
        ({"choices": [{"text": " ab", "token_ids": [5, 6]}]}, Event(chars=3, text=" ab", tokens=2)),
        ({"choices": [{"text": "", "token_ids": [5]}]}, Event(tokens=1)),  # held back: a token without text is output
        ({"choices": [{"text": "", "finish_reason": "length"}]}, Event(finish_reason="length")),
        ({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}, Event(input_tokens=3, output_tokens=2)),
        (
            {"choices": [{"text": "a"}], "usage": {"completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}},
            Event(chars=1, text="a", output_tokens=2, cached_tokens=1),
        ),
        (
            {"choices": [{"text": "a"}], "timings": {"cache_n": 7, "prompt_ms": 1.5, "name": "x"}},
            Event(chars=1, text="a", cached_tokens=7, timings={"cache_n": 7, "prompt_ms": 1.5}),
        ),
        ({"error": {"message": "boom", "type": "x"}}, Event(error="boom")),
        ({"error": "boom"}, Event(error="boom")),
        ({}, Event()),
    ],
)  # fmt: skip
def test_what_a_completions_event_says(payload: object, event: Event) -> None:
    assert COMPLETIONS.decode(json.dumps(payload).encode()) == event


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"role": "assistant", "content": ""}, ""),
        ({"role": "assistant", "content": None}, ""),
        ({"content": "a"}, "a"),
        ({"reasoning_content": "hm"}, "hm"),
        ({"reasoning": "hm"}, "hm"),
        (None, ""),
    ],
)
def test_what_a_chat_delta_says(delta: object, text: str) -> None:
    assert CHAT.decode(json.dumps({"choices": [{"delta": delta}]}).encode()) == Event(chars=len(text), text=text)


def test_the_end_marker() -> None:
    assert COMPLETIONS.decode(b"[DONE]") == Event(done=True)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"7", b"null", b'{"choices":[{"text":"\xff"}]}', b"[DONE] "])
def test_nonsense_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- orjson's messages are its own
        COMPLETIONS.decode(payload)


@settings(deadline=None)  # a busy machine is no failure
@given(st.dictionaries(st.sampled_from(["choices", "usage", "error", "timings"]), JSON_VALUES))
def test_any_json_object_decodes(payload: dict[str, object]) -> None:
    for dialect in (COMPLETIONS, CHAT):
        event = dialect.decode(json.dumps(payload).encode())
        assert event.chars == len(event.text)
