"""Each protocol: what a request says, and what each of the events that engines really send means."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping

import pytest
from enginebench.dialects import (
    PROTOCOLS,
    Dialect,
    Event,
    OllamaChat,
    OllamaGenerate,
    OpenAIChat,
    OpenAICompletions,
    PromptInput,
    SglangGenerate,
    TgiGenerateStream,
)
from enginebench.domain import JSON
from hypothesis import given, settings
from hypothesis import strategies as st

COMPLETIONS, CHAT, SGLANG, TGI = OpenAICompletions(), OpenAIChat(), SglangGenerate(), TgiGenerateStream()
GENERATE, OLLAMA_CHAT = OllamaGenerate(), OllamaChat()
DIALECTS: tuple[Dialect, ...] = (COMPLETIONS, CHAT, SGLANG, TGI, GENERATE, OLLAMA_CHAT)
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "and?"}]


def body(dialect: Dialect, prompt: PromptInput, temperature: float = 0.0, seed: int | None = None, **extra: JSON) -> Mapping[str, JSON]:
    return dialect.body(model="m", prompt=prompt, output_tokens=8, temperature=temperature, seed=seed, extra=extra)


def decode(dialect: Dialect, payload: object) -> Event:
    return dialect.decode(json.dumps(payload).encode())


def said(answer: str, reasoning: str = "", **fields: object) -> Event:
    """An output event."""
    text = reasoning + answer
    return Event(chars=len(text), answer_chars=len(answer), text=text, **fields)


# -- requests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "prompt", "expected"),
    [
        (COMPLETIONS, "hi", {"model": "m", "prompt": "hi", "max_tokens": 8, "temperature": 0.0, "stream": True}),
        (COMPLETIONS, (1, 2), {"model": "m", "prompt": [1, 2], "max_tokens": 8, "temperature": 0.0, "stream": True}),
        (CHAT, TALK, {"model": "m", "messages": TALK, "max_tokens": 8, "temperature": 0.0, "stream": True}),
        (SGLANG, "hi", {"text": "hi", "sampling_params": {"max_new_tokens": 8, "temperature": 0.0}, "stream": True}),
        (SGLANG, (1, 2), {"input_ids": [1, 2], "sampling_params": {"max_new_tokens": 8, "temperature": 0.0}, "stream": True}),
        (TGI, "hi", {"inputs": "hi", "parameters": {"max_new_tokens": 8, "details": True, "do_sample": False}}),
        (
            GENERATE,
            "hi",
            {"model": "m", "prompt": "hi", "raw": True, "stream": True, "options": {"num_predict": 8, "temperature": 0.0}},
        ),
        (OLLAMA_CHAT, TALK, {"model": "m", "messages": TALK, "stream": True, "options": {"num_predict": 8, "temperature": 0.0}}),
    ],
)
def test_a_request_is_exactly_this(dialect: Dialect, prompt: PromptInput, expected: object) -> None:
    assert body(dialect, prompt) == expected


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (COMPLETIONS, {"temperature": 0.5, "seed": 3}),
        (SGLANG, {"sampling_params": {"max_new_tokens": 8, "temperature": 0.5, "sampling_seed": 3}}),
        (TGI, {"parameters": {"max_new_tokens": 8, "details": True, "do_sample": True, "temperature": 0.5, "seed": 3}}),
        (GENERATE, {"options": {"num_predict": 8, "temperature": 0.5, "seed": 3}}),
    ],
)
def test_sampling_is_spelled_where_the_protocol_wants_it(dialect: Dialect, expected: dict[str, object]) -> None:
    sent = body(dialect, "hi", temperature=0.5, seed=3)
    assert {name: sent[name] for name in expected} == expected


def test_what_the_adapter_adds_is_merged_into_objects() -> None:
    sent = body(SGLANG, "hi", sampling_params={"ignore_eos": True}, priority=1)
    assert sent["sampling_params"] == {"max_new_tokens": 8, "temperature": 0.0, "ignore_eos": True}
    assert sent["priority"] == 1
    assert body(COMPLETIONS, "hi", ignore_eos=True)["ignore_eos"] is True


@pytest.mark.parametrize("dialect", [CHAT, OLLAMA_CHAT])
def test_chat_makes_text_one_message_of_the_user(dialect: Dialect) -> None:
    assert body(dialect, "hi")["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("dialect", "prompt", "words"),
    [
        (CHAT, [1, 2], "token ids"),
        (OLLAMA_CHAT, [1, 2], "token ids"),
        (GENERATE, [1, 2], "takes text"),
        (TGI, [1, 2], "takes text"),
        (COMPLETIONS, TALK, "not messages"),
        (SGLANG, TALK, "not messages"),
        (TGI, TALK, "takes text"),
        (GENERATE, TALK, "takes text"),
    ],
)
def test_a_prompt_that_a_route_does_not_take_is_refused(dialect: Dialect, prompt: PromptInput, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        body(dialect, prompt)


def test_every_dialect_of_every_protocol_can_be_sent_to_another_process() -> None:
    for apis in PROTOCOLS.values():
        for dialect in apis.values():
            copy = pickle.loads(pickle.dumps(dialect))  # noqa: S301 -- our own bytes
            assert (copy.path, copy.framing) == (dialect.path, dialect.framing)


# -- OpenAI --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        ({"choices": [{"text": " a"}]}, said(" a")),
        ({"choices": [{"text": " ab", "token_ids": [5, 6]}]}, said(" ab", tokens=2)),
        ({"choices": [{"text": "", "token_ids": [5]}]}, Event(tokens=1)),  # held back: a token without text is output
        ({"choices": [{"text": "", "finish_reason": "length"}]}, Event(finish_reason="length")),
        ({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}, Event(input_tokens=3, output_tokens=2, closing=True)),
        (
            {"choices": [{"text": "a"}], "usage": {"completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}},
            said("a", output_tokens=2, cached_tokens=1),
        ),
        (
            {"choices": [{"text": "a"}], "timings": {"cache_n": 7, "prompt_ms": 1.5, "name": "x"}},
            said("a", cached_tokens=7, timings={"cache_n": 7, "prompt_ms": 1.5}),
        ),
        ({"error": {"message": "boom", "type": "x"}}, Event(error="boom")),
        ({"error": "boom"}, Event(error="boom")),
        ({}, Event()),
    ],
)  # fmt: skip
def test_what_a_completions_event_says(payload: object, event: Event) -> None:
    assert decode(COMPLETIONS, payload) == event


def tool(**function: object) -> dict[str, object]:
    return {"tool_calls": [{"index": 0, "function": function}]}


@pytest.mark.parametrize(
    ("delta", "event"),
    [
        ({"role": "assistant", "content": ""}, Event()),
        ({"role": "assistant", "content": None}, Event()),
        ({"content": "a"}, said("a")),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}, said("ab")),
        ({"refusal": "no"}, said("no")),
        ({"reasoning_content": "hm"}, said("", "hm")),
        ({"reasoning": "hm"}, said("", "hm")),
        ({"reasoning": "hm", "reasoning_content": "hm"}, said("", "hm")),  # one text under two names
        ({"reasoning": "hm", "content": "a"}, said("a", "hm")),
        ({"reasoning": {"text": "hm"}}, said("", "hm")),
        (tool(name="look", arguments=""), said("look")),
        (tool(arguments='{"a":'), said('{"a":')),
        (tool(arguments={"a": 1}), said('{"a":1}')),
        ({"tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}, None, {"function": 3}]}, said("fg")),
        ({"function_call": {"name": "f", "arguments": "{}"}}, said("f{}")),
        (None, Event()),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]}, said("a", "hm")),
        ({"content": ["a", "b"]}, said("ab")),
        ({"content": [{"type": "refusal", "refusal": "no"}, {"type": "output_text", "text": "a"}]}, said("noa")),
        ({"thinking": "hm"}, said("", "hm")),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}, said("", "hm")),
        ({"reasoning": "", "reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]}, said("", "hm")),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "xyz"}]}, said("", "xyz")),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "x"}}]}, said("fx")),
        ({"audio": {"transcript": "a", "id": "1"}}, said("a")),
        ({"audio": {"data": "UklGRg=="}}, Event(chars=1, answer_chars=1)),
        ({"images": [{"image_url": {"url": "data:x"}}]}, Event(chars=1, answer_chars=1)),
    ],
)
def test_what_a_chat_delta_says(delta: object, event: Event) -> None:
    assert decode(CHAT, {"choices": [{"delta": delta}]}) == event


# -- Ollama --------------------------------------------------------------------------------------------------------------

DONE = {
    "model": "m",
    "done": True,
    "done_reason": "length",
    "prompt_eval_count": 3,
    "eval_count": 2,
    "eval_duration": 9,
    "total_duration": 11,
}
LAST = Event(done=True, finish_reason="length", input_tokens=3, output_tokens=2, timings={"total_duration": 11, "eval_duration": 9})


@pytest.mark.parametrize(
    ("dialect", "payload", "event"),
    [
        (GENERATE, {"model": "m", "response": " a", "done": False}, said(" a")),
        (GENERATE, {"response": "", "thinking": "hm", "done": False}, said("", "hm")),
        (GENERATE, {"response": "", "done": False}, Event()),
        (GENERATE, {"response": "", **DONE}, LAST),
        (GENERATE, {"response": "", "done": True, "prompt_eval_cached_count": 7}, Event(done=True, cached_tokens=7)),
        (GENERATE, {"error": "model not found"}, Event(error="model not found")),
        (OLLAMA_CHAT, {"message": {"role": "assistant", "content": " a"}, "done": False}, said(" a")),
        (OLLAMA_CHAT, {"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False}, said("", "hm")),
        (OLLAMA_CHAT, {"message": {"content": "", **tool(name="f", arguments={"a": 1})}, "done": False}, said('f{"a":1}')),
        (OLLAMA_CHAT, {"message": {"role": "assistant", "content": ""}, **DONE}, LAST),
        (OLLAMA_CHAT, {"message": "x"}, Event()),
    ],
)
def test_what_a_line_of_ollama_says(dialect: Dialect, payload: object, event: Event) -> None:
    assert decode(dialect, payload) == event


# -- SGLang --------------------------------------------------------------------------------------------------------------


def generated(text: str | None, total: int, *, ids: int | None = None, **meta: object) -> dict[str, object]:
    """An event of /generate with so many of all tokens so far; ids: how many it repeats."""
    meta_info = {"prompt_tokens": 5, "completion_tokens": total, "cached_tokens": 1, "finish_reason": None, **meta}
    return {"text": text, "meta_info": meta_info, **({} if ids is None else {"output_ids": [7] * ids})}


def texts(*payloads: object, dialect: Dialect = SGLANG) -> list[str]:
    decoder = dialect.decoder()
    return [decoder(json.dumps(payload).encode()).text for payload in payloads]


def test_what_an_event_of_sglang_says() -> None:
    meta = {"finish_reason": {"type": "length", "length": 2}, "e2e_latency": 0.5, "id": "x"}
    assert decode(SGLANG, generated(" a", 1)) == said(" a", input_tokens=5, output_tokens=1, cached_tokens=1)
    last = said(" a b", input_tokens=5, output_tokens=2, cached_tokens=1, finish_reason="length", timings={"e2e_latency": 0.5})
    assert decode(SGLANG, generated(" a b", 2, **meta)) == last
    assert decode(SGLANG, {"error": {"message": "too long"}}) == Event(error="too long")
    aborted = {"type": "abort", "message": "out of memory", "status_code": 503}
    assert decode(SGLANG, generated("", 0, finish_reason=aborted)).error == "out of memory"


def test_a_text_that_is_repeated_becomes_increments() -> None:
    assert texts(generated(" a", 1, ids=1), generated(" a b", 2, ids=2), generated(" a b", 3, ids=3)) == [" a", " b", ""]
    assert texts(generated(" a", 1), generated(" a b", 2), generated(" a b c", 3)) == [" a", " b", " c"]


def test_a_server_that_sends_increments_is_found_out() -> None:
    assert texts(generated("a", 1, ids=1), generated("a", 2, ids=1), generated("ab", 3, ids=1)) == ["a", "a", "ab"]
    assert texts(generated("a", 1), generated("b", 2), generated("bc", 3)) == ["a", "b", "bc"]


@pytest.mark.parametrize("nothing", ["", None])
def test_an_event_without_text_says_nothing_of_the_manner(nothing: str | None) -> None:
    assert texts(generated(" a", 1), generated(nothing, 2), generated(" a b", 3)) == [" a", "", " b"]


def test_a_text_that_shrinks_at_its_end_repeats_nothing() -> None:
    """A stop string that is cut off again."""
    assert texts(generated(" a b", 2, ids=2), generated(" a", 3, ids=3), generated(" a b c", 4, ids=4)) == [" a b", "", " c"]


def test_streams_do_not_share_what_they_remember() -> None:
    one, other = SGLANG.decoder(), SGLANG.decoder()
    payload = json.dumps(generated(" a", 1)).encode()
    assert (one(payload).text, other(payload).text) == (" a", " a")
    assert COMPLETIONS.decoder() == COMPLETIONS.decode


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.text("ab é", max_size=3), max_size=12), st.booleans(), st.booleans())
def test_increments_are_what_was_generated(pieces: list[str], with_ids: bool, cumulative: bool) -> None:
    """With ids always; without them if the text is repeated, and then only."""
    whole = "".join(pieces)
    ends = [sum(len(piece) for piece in pieces[: i + 1]) for i in range(len(pieces))]
    payloads = []
    for i, piece in enumerate(pieces):
        text = whole[: ends[i]] if cumulative else piece
        ids = (i + 1 if cumulative else 1) if with_ids else None
        payloads.append(generated(text, i + 1, ids=ids))
    if with_ids or cumulative:
        assert texts(*payloads) == pieces


# -- TGI -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        ({"index": 1, "token": {"id": 5, "text": " a", "special": False}, "generated_text": None, "details": None}, said(" a", tokens=1)),
        ({"token": {"id": 2, "text": "</s>", "special": True}}, Event(tokens=1)),
        (
            {
                "token": {"id": 5, "text": "b"},
                "generated_text": " ab",
                "details": {"finish_reason": "length", "generated_tokens": 2, "input_length": 4},
            },
            said("b", tokens=1, finish_reason="length", output_tokens=2, input_tokens=4),
        ),
        ({"token": {"text": "b"}, "generated_text": " ab", "details": None}, said("b", tokens=1, done=True)),
        ({"details": {"finish_reason": "eos_token", "prefill": [{"id": 1}]}}, Event(finish_reason="eos_token", input_tokens=1)),
        ({"error": "overloaded", "error_type": "overloaded"}, Event(error="overloaded")),
    ],
)
def test_what_an_event_of_tgi_says(payload: object, event: Event) -> None:
    assert decode(TGI, payload) == event


# -- all of them, against anything ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [COMPLETIONS, CHAT, SGLANG, TGI])
def test_the_end_marker(dialect: Dialect) -> None:
    assert dialect.decode(b"[DONE]") == Event(done=True)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"7", b"null", b'{"choices":[{"text":"\xff"}]}', b"[DONE] "])
def test_nonsense_is_a_value_error(dialect: Dialect, payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- orjson's messages are its own
        dialect.decode(payload)


NAMES = (
    *("choices", "delta", "text", "usage", "error", "timings", "tool_calls", "function", "name", "arguments", "content", "reasoning"),
    *("message", "response", "thinking", "done", "done_reason", "eval_count", "meta_info", "completion_tokens", "finish_reason"),
    *("output_ids", "type", "token", "special", "details", "prefill", "generated_text"),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**63) | st.sampled_from([0.5, -1e300]) | st.sampled_from(["", "a", "é\n", "abort"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=6)


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from(DIALECTS), st.lists(OBJECTS, max_size=4))
def test_any_json_object_decodes(dialect: Dialect, payloads: list[dict[str, object]]) -> None:
    decoder = dialect.decoder()
    for payload in payloads:
        event = decoder(json.dumps(payload).encode())
        assert event.chars == len(event.text)
        assert 0 <= event.answer_chars <= event.chars


def test_the_last_event_of_increments_that_look_like_repetitions_is_an_event() -> None:
    decoder = SGLANG.decoder()
    last = generated(" a", 3, finish_reason={"type": "length", "length": 3})
    events = [decoder(json.dumps(payload).encode()) for payload in (generated(" a", 1), generated(" a", 2), last)]
    assert [(event.text, event.tokens) for event in events] == [(" a", None), ("", None), ("", 1)]


def test_half_a_character_of_a_text_that_is_repeated_is_not_there_yet() -> None:
    assert texts(generated("a\ufffd", 1), generated("aé", 2), generated("aéb", 3)) == ["a", "é", "b"]
    last = generated("a\ufffd", 2, finish_reason={"type": "length", "length": 2})
    assert texts(generated("a", 1), last) == ["a", "\ufffd"], "nothing follows that could make it whole"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 1}, (9, 4, 8, None)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 8}, (9, 4, 8, None)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "cache_read_input_tokens": 8}, (9, 4, 8, None)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 8}, (9, 4, 8, None)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None}, (9, 4, None, None)),
        ({"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}}, (9, 4, 3, None)),
        ({"prompt_tokens": 9, "total_tokens": 13}, (9, 4, None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, 0, None, None)),
        ({"prompt_tokens": 9, "completion_tokens": 64, "completion_tokens_details": {"reasoning_tokens": 48}}, (9, 64, None, 48)),
        # The count leaves reasoning out: 9 + 16 + 48.
        (
            {"prompt_tokens": 9, "completion_tokens": 16, "total_tokens": 73, "completion_tokens_details": {"reasoning_tokens": 48}},
            (9, 16, None, None),
        ),
    ],
)
def test_counts_under_the_names_of_several_servers(usage: object, counts: object) -> None:
    found = decode(COMPLETIONS, {"choices": [], "usage": usage})
    assert (found.input_tokens, found.output_tokens, found.cached_tokens, found.reasoning_tokens) == counts


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"choices": [{"index": 0, "text": "", "error": {"message": "lost a worker", "code": 502}}]}, "lost a worker"),
        ({"choices": [{"text": "a", "finish_reason": "content_filter"}]}, "a filter removed the answer (finish_reason: content_filter)"),
        ({"choices": [{"text": "", "finish_reason": "ABORT"}]}, "the engine aborted the request (finish_reason: ABORT)"),
        ({"object": "error", "message": "out of memory", "code": 500}, "out of memory"),
        ({"type": "error", "detail": "no"}, "no"),
        ({"detail": "Internal Server Error"}, "Internal Server Error"),
        ({"errors": [{"message": "first"}, {"message": "second"}]}, "first"),
        ({"message": "rate limit", "code": 429}, "rate limit"),
        ({"choices": [{"text": "", "finish_reason": "a_new_word"}]}, None),
        ({"choices": [], "usage": {"completion_tokens": 3}, "detail": "3 tokens"}, None),
    ],
)
def test_errors_wherever_a_server_puts_them(payload: object, error: str | None) -> None:
    assert decode(COMPLETIONS, payload).error == error


@pytest.mark.parametrize("reason", ["", " ", None, "null", "None"])
def test_an_empty_finish_reason_is_none(reason: object) -> None:
    assert decode(COMPLETIONS, {"choices": [{"text": "a", "finish_reason": reason}]}) == said("a")
