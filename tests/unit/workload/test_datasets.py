"""Data sets: what is read, what is left out, and that a cut prompt has exactly the length that was asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.checkpoints.vocabulary import Vocabulary, is_plain
from enginebench.domain import ClosedLoop, Load, kind_of
from enginebench.errors import UserError
from enginebench.workload import Prompt, TextScale, check, make_prompts
from enginebench.workload.datasets import Reference, Turn, parse_reference, read_records
from hypothesis import given, settings
from hypothesis import strategies as st

PLAIN = tuple(i for i, token in enumerate(word_tokenizer().tokens) if token not in word_tokenizer().control and is_plain(token))
KNOWN = Vocabulary(PLAIN, (), word_tokenizer().tokenizer())
WITH_BOS = Vocabulary(PLAIN, (1021,), word_tokenizer().tokenizer())

SHAREGPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "the one"}, {"from": "gpt", "value": "what is that"}]},
    {"conversations": [{"from": "system", "value": "be kind"}, {"from": "human", "value": "two"}, {"from": "gpt", "value": "it is"}]},
    {"conversations": [{"from": "gpt", "value": "nobody asked"}]},
    {"conversations": []},
    {"messages": [
        {"role": "user", "content": "first"}, {"role": "assistant", "content": "one"},
        {"role": "user", "content": "second"}, {"role": "user", "content": "third"}, {"role": "assistant", "content": "three"},
    ]},
]  # fmt: skip


def load_of(**fields: Any) -> Load:
    return kind_of(fields)(**fields)


def encoded(vocabulary: Vocabulary, prompt: Prompt) -> tuple[int, ...]:
    assert vocabulary.tokenizer is not None
    prefix = () if prompt.turn else vocabulary.prefix_ids
    return (*prefix, *vocabulary.tokenizer.encode(prompt.text, add_special_tokens=False).ids)


def count(text: str) -> int:
    assert KNOWN.tokenizer is not None
    return len(KNOWN.tokenizer.encode(text, add_special_tokens=False).ids)


def lines(folder: Path, *rows: object) -> Path:
    file = folder / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def recorded(**fields: Any) -> Load:
    return load_of(**{"prompts": "jsonl:data.jsonl", "input_tokens": "data", "output_tokens": "data", "requests": 1} | fields)


def test_sharegpt_is_what_users_said_and_what_was_answered(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SHAREGPT))
    assert read_records("sharegpt:s.json", tmp_path) == (
        (Turn("the one", "what is that"),),
        (Turn("two", "it is", system="be kind"),),
        (Turn("first", "one"), Turn("second"), Turn("third", "three")),
    )


@pytest.mark.parametrize(
    ("row", "column", "turns"),
    [
        ({"text": "t", "prompt": "p", "question": "q"}, "", (Turn("p"),)),
        ({"text": "t", "question": "q", "answer": "a"}, "", (Turn("q", "a"),)),
        ({"text": "t", "question": "q"}, "#text", (Turn("t"),)),
        ({"prompt": "p", "output_tokens": 9}, "", (Turn("p", None, 9),)),
        ({"prompt": "p", "output_tokens": 0, "response": "r"}, "", (Turn("p", "r"),)),
        ({"instruction": "i", "output": "o"}, "", (Turn("i", "o"),)),
        ({"output": "o", "text": "t"}, "#output", (Turn("o"),)),
        ({"turns": ["one", "two"]}, "#turns", (Turn("one"), Turn("two"))),
        ({"conversation": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}, "", (Turn("u", "a"),)),
        ({"prompt": "half \ud83d"}, "", (Turn("half \ufffd"),)),
    ],
)
def test_the_columns_of_a_record(tmp_path: Path, row: dict[str, object], column: str, turns: tuple[Turn, ...]) -> None:
    lines(tmp_path, row, {"nothing": 1})
    assert read_records(f"jsonl:data.jsonl{column}", tmp_path) == (turns,)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("sharegpt:a/b#c.json", Reference("sharegpt", "a/b#c.json")),
        ("jsonl:a/b.jsonl#question", Reference("jsonl", "a/b.jsonl", "question")),
        ("hf:org/name", Reference("hf", "org/name")),
        ("hf:org/name/test#q", Reference("hf", "org/name", "q", "test")),
        ("hf:org/name:main/train[:50%]#q", Reference("hf", "org/name", "q", "train[:50%]", "main")),
        ("hf:org/name:main", Reference("hf", "org/name", config="main")),
    ],
)
def test_how_a_data_set_is_named(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text", ["sharegpt", "sharegpt:", "jsonl:", "jsonl:#a", "hf:name", "hf:a/b#", "hf:a/b:", "hf:a b/c", "csv:a", "Random"]
)
def test_what_names_no_data_set_is_refused_with_what_does(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_reference(text)
    assert caught.value.key == "prompts"
    assert caught.value.advice


def test_as_recorded_prompts_are_as_written_and_answers_as_long_as_they_were(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": "what is it", "answer": "the one"}, {"prompt": "no answer"}, {"prompt": "is it", "output_tokens": 77})
    prompts = make_prompts(WITH_BOS, recorded(requests=3), 2, salt="", base=tmp_path)
    assert {p.text: p.output_tokens for p in prompts} == {"what is it": count("the one"), "is it": 77}
    assert all(p.ids == encoded(WITH_BOS, p) and p.tokens == len(p.ids) for p in prompts)


def test_without_a_tokenizer_words_are_counted(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": "one two three four", "answer": "five six"}, {"prompt": "one two"})
    scale = TextScale(2.0, 1.0)
    (prompt,) = make_prompts(None, recorded(), 1, salt="", scale=scale, base=tmp_path)
    assert (prompt.ids, prompt.text, prompt.tokens, prompt.output_tokens) == (None, "one two three four", 9, 5)
    (prompt,) = make_prompts(None, recorded(input_tokens=7, output_tokens=3), 1, salt="", scale=scale, base=tmp_path)
    assert (prompt.ids, prompt.text, prompt.tokens, prompt.output_tokens) == (None, "one two three", 7, 3)


def test_what_a_chat_template_adds_takes_from_a_record(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": "what is the one of all that they have to do with it", "answer": "the one"})
    scale = TextScale(overhead=4.0)
    (whole,) = make_prompts(KNOWN, recorded(api="chat"), 1, salt="", scale=scale, base=tmp_path)
    assert whole.tokens == len(encoded(KNOWN, whole)) + 4
    (cut,) = make_prompts(KNOWN, recorded(api="chat", input_tokens=9), 1, salt="", scale=scale, base=tmp_path)
    assert (cut.tokens, len(encoded(KNOWN, cut))) == (9, 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=8), st.integers(2, 12), st.sampled_from([KNOWN, WITH_BOS]))
def test_a_cut_prompt_has_exactly_the_length_asked_or_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], length: int, vocabulary: Vocabulary
) -> None:
    folder = tmp_path_factory.mktemp("data")
    lines(folder, {"prompt": "what is the one of all that they have to do with it"}, *({"prompt": text} for text in texts))
    load = recorded(input_tokens=length, output_tokens=5, prefix_cache="allowed")
    for prompt in make_prompts(vocabulary, load, 5, salt="", base=folder):
        assert prompt.ids == encoded(vocabulary, prompt)
        assert len(prompt.ids) == prompt.tokens == length
        assert any(text.startswith(prompt.text or "?") for text in [*texts, "what is the one of all that they have to do with it"])


def test_what_is_longer_than_the_limit_is_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": "the " * words, "output_tokens": 4} for words in (2, 30, 3, 40)]
    lines(tmp_path, *rows)
    prompts = make_prompts(KNOWN, recorded(), 2, salt="", base=tmp_path, limit=20)
    assert {(p.text or "").count("the") for p in prompts} == {2, 3}
    with pytest.raises(UserError, match="has 2 requests within 20 tokens, and 3 are wanted"):
        make_prompts(KNOWN, recorded(), 3, salt="", base=tmp_path, limit=20)


def test_the_order_depends_on_seed_and_salt_and_no_prompt_comes_twice(tmp_path: Path) -> None:
    lines(tmp_path, *({"prompt": f"the one of {n}", "answer": "x"} for n in range(50)))
    texts = {salt: [p.text for p in make_prompts(KNOWN, recorded(), 50, salt=salt, base=tmp_path)] for salt in "ab"}
    assert sorted(map(str, texts["a"])) == sorted(map(str, texts["b"])) == sorted(f"the one of {n}" for n in range(50))
    assert texts["a"] != texts["b"]
    assert [p.text for p in make_prompts(KNOWN, recorded(), 20, salt="a", base=tmp_path)] == texts["a"][:20]
    assert [p.text for p in make_prompts(KNOWN, recorded(seed=1), 50, salt="a", base=tmp_path)] != texts["a"]


def test_prompts_are_sent_again_only_where_a_cache_may_help(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": "one", "answer": "x"}, {"prompt": "two", "answer": "x"})
    with pytest.raises(UserError, match="has 2 requests, and 5 are wanted") as caught:
        make_prompts(KNOWN, recorded(), 5, salt="", base=tmp_path)
    assert "prefix_cache: allowed" in (caught.value.advice or "")
    prompts = make_prompts(KNOWN, recorded(prefix_cache="allowed"), 5, salt="", base=tmp_path)
    assert {p.text for p in prompts[:2]} == {p.text for p in prompts[2:4]} == {"one", "two"}


def test_a_data_set_that_is_too_small_is_refused_before_the_run(tmp_path: Path) -> None:
    lines(tmp_path, *({"prompt": f"number {n}", "answer": "x"} for n in range(4)))
    check(recorded(requests=4), tmp_path)
    for load in (recorded(requests=5), recorded(requests=0, rate=5.0, arrivals="constant", duration_s=1.0), recorded(requests=5, rate=1.0)):
        with pytest.raises(UserError, match=r"jsonl:data.jsonl has 4 records, and 5 requests are wanted") as caught:
            check(load, tmp_path)
        assert caught.value.key == "prompts"
        assert "prefix_cache: allowed" in (caught.value.advice or "")
        check(replace(load, prefix_cache="allowed"), tmp_path)
    check(recorded(requests=5, duration_s=1.0), tmp_path)


def test_a_closed_loop_over_a_duration_gets_what_there_is(tmp_path: Path) -> None:
    lines(tmp_path, *({"prompt": "the " * words, "answer": "x"} for words in (1, 2, 30)))
    timed = recorded(requests=0, duration_s=2.0)
    prompts = make_prompts(KNOWN, timed, 50, salt="", base=tmp_path, limit=20)
    assert sorted((p.text or "").count("the") for p in prompts) == [1, 2]
    with pytest.raises(UserError, match="has 0 requests"):
        make_prompts(KNOWN, timed, 50, salt="", base=tmp_path, limit=1)
    due = recorded(requests=0, duration_s=1.0, rate=3.0, arrivals="constant")
    with pytest.raises(UserError, match="has 2 requests within 20 tokens, and 3 are wanted"):  # an open loop asks for what it sends
        make_prompts(KNOWN, due, 3, salt="", base=tmp_path, limit=20)


def test_a_data_set_of_which_nothing_is_long_enough_does_not_go_round_for_ever(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": "one"})
    load = recorded(input_tokens=500, output_tokens=5, prefix_cache="allowed")
    with pytest.raises(UserError, match="has 0 requests of 500 tokens"):
        make_prompts(KNOWN, load, 1, salt="", base=tmp_path)


def test_conversations_take_the_turns_in_order_as_far_as_they_go(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": ["a one", "a two", "a three"]}, {"prompt": ["b one", "b two"]}, {"prompt": ["c one"]})
    load = recorded(output_tokens=5, turns=2, rate=1.0, arrivals="constant", prefix_cache="allowed")
    prompts = make_prompts(WITH_BOS, load, 5, salt="", base=tmp_path)
    assert all(p.ids == encoded(WITH_BOS, p) for p in prompts)
    said: dict[int, list[str]] = {}
    for prompt in prompts:
        assert prompt.due_s == (float(prompt.conversation) if prompt.turn == 0 else None)
        assert prompt.turn == len(said.setdefault(prompt.conversation, []))
        said[prompt.conversation].append(prompt.text or "")
    assert sorted(said) == [0, 1, 2]
    assert sorted(said.values()) == [["a one", "a two"], ["b one", "b two"], ["c one"]]


def test_the_limit_holds_for_a_conversation_as_a_whole(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": ["the one", "the two", "the three"]})
    turn = count("the one") + 5
    load = recorded(output_tokens=5, turns=3, prefix_cache="allowed")
    prompts = make_prompts(KNOWN, load, 2, salt="", base=tmp_path, limit=turn)
    assert [(p.text, p.turn) for p in prompts] == [("the one", 0)] * 2
    prompts = make_prompts(KNOWN, load, 2, salt="", base=tmp_path, limit=10 * turn)
    assert [p.turn for p in prompts] == [0, 1]


@pytest.mark.parametrize(
    ("prompts", "content", "message"),
    [
        ("sharegpt:f", "{}", "a JSON list"),
        ("sharegpt:f", '{"a": 1}\n{"a": 2}', "invalid JSON"),
        ("sharegpt:f", "[1]", "a JSON object"),
        ("sharegpt:f", "[]", "no record holds a prompt"),
        ("jsonl:f", '{"prompt": "x"}\n{"prom', "invalid JSON"),
        ("jsonl:f", '{"body": "x"}', "no record holds a prompt"),
        ("jsonl:f#q", '{"q": 3}', "no record holds text under q"),
        ("jsonl:f", "[" * 200_000, "invalid JSON"),
        ("sharegpt:f", "[" * 200_000, "invalid JSON"),
        ("jsonl:f", "7", "a record is a JSON object, not 7"),
        ("jsonl:f#title", '{"prompt": "x"}', "no record holds a prompt under title"),
        ("jsonl:f", '"text"', "a JSON object"),
    ],
)
def test_a_file_that_is_no_data_set_is_refused_at_plan_time(tmp_path: Path, prompts: str, content: str, message: str) -> None:
    (tmp_path / "f").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        check(recorded(prompts=prompts), tmp_path)
    assert caught.value.file == tmp_path / "f"


def test_a_bad_line_is_named_and_so_are_the_columns_there_are(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": "x"}, ["y"])
    with pytest.raises(UserError) as caught:
        read_records("jsonl:data.jsonl", tmp_path)
    assert caught.value.line == 2
    lines(tmp_path, {"body": "x", "title": "y", "longer": 1})
    with pytest.raises(UserError) as caught:
        read_records("jsonl:data.jsonl", tmp_path)
    assert "body, longer, title" in (caught.value.advice or "")
    (tmp_path / "list.json").write_text('[{"conversations": 5}]')
    with pytest.raises(UserError) as caught:
        read_records("sharegpt:list.json", tmp_path)
    assert "#COLUMN" not in (caught.value.advice or ""), "there is none to be named"
    assert "from: human" in (caught.value.advice or "")
    (tmp_path / "latin").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(UserError, match="invalid UTF-8"):
        read_records("jsonl:latin", tmp_path)


ODD = [
    {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image"}]},
        ]
    },
    {"messages": [{"role": "assistant", "content": "hello"}]},
    {
        "tools": [{"name": "f"}],
        "messages": [{"role": "user", "content": "call"}, {"role": "assistant", "content": None, "tool_calls": [1]}],
    },
    {"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "42"}, {"role": "assistant", "content": "a b"}]},
    {"messages": None},
]


def test_what_is_left_out_of_a_data_set_is_counted(tmp_path: Path) -> None:
    lines(tmp_path, *ODD)
    records = read_records("jsonl:data.jsonl", tmp_path)
    assert tuple(records) == ((Turn("look", system="be brief"),), (Turn("call"),), (Turn("q", "a b"),))
    assert records.left_out == {
        "parts that are not text": 1, "records without a prompt": 2, "tool calls": 1, "records with tools": 1, "tool results": 1,
    }  # fmt: skip
    load = recorded(output_tokens=4, requests=2, api="chat")
    found = make_prompts(None, load, 2, salt="s", base=tmp_path)
    (note,) = found.notes  # type: ignore[attr-defined]
    assert note.startswith("jsonl:data.jsonl has 3 records with a prompt; left out: ")
    assert "2 records without a prompt" in note


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_system_turn_is_sent_and_counted(tmp_path: Path, api: str) -> None:
    lines(tmp_path, ODD[0])
    (prompt,) = make_prompts(KNOWN, recorded(output_tokens=4, api=api), 1, salt="s", base=tmp_path)
    if api == "chat":
        assert (prompt.system, prompt.text) == ("be brief", "look")
        assert prompt.tokens == count("be brief") + len(KNOWN.prefix_ids) + count("look")
    else:
        assert (prompt.system, prompt.text) == (None, "be brief\n\nlook")


def test_records_that_are_passed_over_for_their_length_are_counted(tmp_path: Path) -> None:
    lines(tmp_path, {"prompt": "one two three four five six"}, {"prompt": "one"}, {"prompt": "seven eight nine ten eleven twelve"})
    found = make_prompts(None, recorded(input_tokens=6, output_tokens=4, requests=2), 2, salt="s", base=tmp_path)
    notes = found.notes  # type: ignore[attr-defined]
    assert not notes or "1 records were passed over" in notes[0]


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
BATCH = [
    {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {
        "model": "gpt", "max_completion_tokens": 7, "tools": [TOOL], "tool_choice": "none", "response_format": {"type": "json_object"},
        "messages": [
            {"role": "system", "content": "be kind"}, {"role": "user", "content": "the one"},
            {"role": "assistant", "content": "what is that"},
            {"role": "user", "content": [{"type": "text", "text": "two"}]},
        ],
    }},
    {"custom_id": "2", "method": "POST", "url": "/v1/completions", "body": {"model": "gpt", "prompt": "it is", "max_tokens": 3}},
    {"custom_id": "3", "method": "POST", "url": "/v1/responses", "body": {"model": "gpt", "input": "and that", "max_output_tokens": 4}},
]  # fmt: skip


def test_a_line_of_a_batch_is_one_request_and_is_sent_as_it_is(tmp_path: Path) -> None:
    lines(tmp_path, *BATCH)
    load = recorded(requests=3, api="chat", prefix_cache="allowed")
    chat = {p.text: p for p in make_prompts(WITH_BOS, load, 3, salt="", base=tmp_path)}
    assert {p.output_tokens for p in chat.values()} == {7, 3, 4}
    whole = next(p for p in chat.values() if p.output_tokens == 7)
    assert json.loads(whole.messages) == BATCH[0]["body"]["messages"]
    assert whole.text == "be kind\n\nthe one\n\nwhat is that\n\ntwo"
    assert whole.form is not None
    assert (whole.form.tools, whole.form.tool_choice, whole.form.response_format) == ((TOOL,), "none", {"type": "json_object"})
    assert whole.ids is None, "how many tokens a template makes of it is not known"
    raw = make_prompts(WITH_BOS, recorded(requests=3), 3, salt="", base=tmp_path)
    assert {p.text for p in raw} == set(chat)
    assert all(p.ids is not None and not p.messages and p.form is None for p in raw)


def test_tools_of_a_conversation_are_sent_with_its_system_turn_and_list_contents(tmp_path: Path) -> None:
    talk = [
        {"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "the one"}, {"type": "image_url"}]},
        {"role": "assistant", "content": "what", "tool_calls": [{"id": "1"}]},
    ]  # fmt: skip
    lines(tmp_path, {"messages": talk, "tools": [TOOL]})
    (prompt,) = make_prompts(None, recorded(api="chat"), 1, salt="", base=tmp_path)
    assert (prompt.system, prompt.text) == ("be kind", "the one")
    assert prompt.form is not None
    assert prompt.form.tools == (TOOL,)
    assert read_records("jsonl:data.jsonl", tmp_path).left_out == {"parts that are not text": 1, "tool calls": 1}


SAID = [{"type": "input_text", "text": "what is"}, {"type": "input_image", "image_url": "data:image/png;base64,AA"}]
SPOKEN = [{"type": "text", "text": "hear"}, {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]


def test_a_batch_for_the_responses_route_is_read_in_the_notation_of_the_chat_route(tmp_path: Path) -> None:
    line = {"custom_id": "a", "url": "/v1/responses", "body": {"input": [{"role": "user", "content": SAID}], "max_output_tokens": 4}}
    (tmp_path / "b.jsonl").write_text(json.dumps(line) + "\n")
    ((turn,),) = read_records("jsonl:b.jsonl", tmp_path)
    parts = [{"type": "text", "text": "what is"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    assert json.loads(turn.messages) == [{"role": "user", "content": parts}]
    assert (turn.text, turn.answer_tokens) == ("what is", 4)


@pytest.mark.parametrize("api", ["responses", "messages"])
def test_parts_that_a_route_is_not_sent_are_refused_before_the_run(tmp_path: Path, api: Any) -> None:
    line = {"custom_id": "a", "body": {"messages": [{"role": "user", "content": SPOKEN}], "max_tokens": 4}}
    (tmp_path / "b.jsonl").write_text(json.dumps(line) + "\n")
    load = ClosedLoop(requests=1, prompts="jsonl:b.jsonl", input_tokens="data", output_tokens="data", api=api)
    with pytest.raises(UserError, match="a part of a message is of kind 'input_audio'") as caught:
        check(load, tmp_path)
    assert (caught.value.key, "api: chat" in (caught.value.advice or "")) == ("api", True)
    check(replace(load, api="chat"), tmp_path)
