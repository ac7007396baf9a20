"""Every format of traces from a small file of its own: due times, lengths, shared blocks, and what each request waits for."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from enginebench.domain import Load, TraceReplay
from enginebench.errors import UserError
from enginebench.workload import Prompt, check, make_prompts
from enginebench.workload.datasets import read_records
from enginebench.workload.trace_formats import FORMATS
from enginebench.workload.traces import Trace, read_trace


def jsonl(*rows: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


def span(start_ms: int, end_ms: int, tokens: tuple[int, int], session: str = "s", **more: object) -> dict[str, Any]:
    values = {"gen_ai.usage.input_tokens": tokens[0], "gen_ai.usage.output_tokens": tokens[1], "gen_ai.conversation.id": session, **more}
    attributes = [{"key": k, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}} for k, v in values.items()]
    base = 1_760_000_000_000
    times = {"startTimeUnixNano": str((base + start_ms) * 1_000_000), "endTimeUnixNano": str((base + end_ms) * 1_000_000)}
    return {"traceId": "t", "spanId": "x", "name": "chat", **times, "attributes": attributes}


def otlp(*spans: dict[str, Any]) -> str:
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}, indent=1)


def ended(
    received_ms: int, took_ms: int, tokens: tuple[int, int], hashes: list[int], session: str = "", parent: str = ""
) -> dict[str, Any]:
    context = {"agent_context": {"session_id": session, **({"parent_session_id": parent} if parent else {})}} if session else {}
    replay = {"trace_block_size": 64, "input_length": tokens[0], "input_sequence_hashes": hashes}
    request = {"request_id": str(received_ms), "request_received_ms": received_ms, "total_time_ms": took_ms, "output_tokens": tokens[1]}
    head = {"schema": "dynamo.request.trace.v1", "event_type": "request_end", "event_time_unix_ms": received_ms + took_ms}
    return {**head, **context, "request": {**request, "replay": replay}}


def call(t: float, tokens: tuple[int, int], hashes: list[int], took: float = 1.0, **more: object) -> dict[str, Any]:
    return {"t": t, "type": "s", "model": "m", "in": tokens[0], "out": tokens[1], "hash_ids": hashes, "api_time": took, **more}


def node(name: str, session: str, tokens: tuple[int, int], hashes: list[int], **more: object) -> dict[str, Any]:
    lengths = {"input_length": tokens[0], "output_length": tokens[1], "hash_ids": hashes, "block_size": 4}
    return {"request_id": name, "session_id": session, **lengths, **more}


WEKA = {
    "id": "a", "models": ["m"], "block_size": 64, "hash_id_scope": "local",
    "requests": [
        call(0.0, (130, 10), [1, 2, 3], took=2.0),
        {"t": 3.0, "type": "subagent", "agent_id": "one", "subagent_type": "Explore", "status": "completed", "models": ["m"], "requests": [
            call(0.5, (64, 5), [9], took=1.0), call(2.0, (128, 6), [9, 10], took=1.0, think_time=0.5),
        ]},
        {"t": 3.0, "type": "subagent", "agent_id": "two", "subagent_type": "Explore", "status": "async_launched", "models": ["m"],
         "requests": [call(0.0, (64, 7), [11])]},
        call(8.0, (192, 20), [1, 2, 3], took=1.0, think_time=6.0),
        call(10.0, (256, 30), [1, 2, 3, 4], took=1.0, think_time=1.0),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A file, and what is known of each of its requests in order: due s or None, wait (rows, s) or None, lengths, first blocks."""

    name: str
    text: str
    due: Sequence[float | None]
    waits: Sequence[tuple[tuple[int, ...], float] | None]
    lengths: Sequence[tuple[int, int]]
    shared: dict[tuple[int, int], int]
    """Two requests -> leading tokens that their prompts have in common; others have none."""


CASES = [
    Case(
        "mooncake",
        jsonl(
            {"timestamp": 0, "input_length": 1000, "output_length": 52, "hash_ids": [46, 47]},
            {"timestamp": 1500, "input_length": 600, "output_length": 26, "hash_ids": [46, 2353]},
        ),
        [0, 1.5], [None, None], [(1000, 52), (600, 26)], {(0, 1): 512},
    ),
    Case(  # AIPerf: a turn has its new tokens only, and a delay in ms after the answer to the one before
        "mooncake",
        jsonl(
            {"session_id": "a", "timestamp": 0, "input_length": 100, "output_length": 40},
            {"session_id": "b", "timestamp": 500, "input_length": 30, "output_length": 5},
            {"session_id": "a", "delay": 2000, "input_length": 20, "output_length": 10},
        ),
        [0, None, 0.5], [None, ((0,), 2.0), None], [(100, 40), (160, 10), (30, 5)], {(0, 1): 100},
    ),
    Case(  # Dynamo's agentic Mooncake: a graph of requests
        "mooncake",
        jsonl(
            node("r1", "root", (8, 1), [1, 2], timestamp=0.0),
            node("r2", "left", (8, 2), [1, 3], wait_for=["r1"], delay=1.0),
            node("r3", "right", (4, 3), [7], wait_for=["r1"], delay=3.0),
            node("r4", "root", (12, 4), [1, 2, 4], wait_for=["r2", "r3"]),
        ),
        [0, None, None, None], [None, ((0,), 0.001), ((0,), 0.003), ((1, 2), 0.0)], [(8, 1), (8, 2), (4, 3), (12, 4)],
        {(0, 1): 4, (0, 3): 8, (1, 3): 4},
    ),
    Case(  # the first rows of conversation_trace.jsonl (Apache-2.0), and one of each later step of time; its times are steps of 3 s
        "mooncake",
        jsonl(
            {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [*range(14)]},
            {"timestamp": 0, "input_length": 7322, "output_length": 490, "hash_ids": [0, *range(14, 28)]},
            {"timestamp": 3000, "input_length": 915, "output_length": 355, "hash_ids": [0, 462]},
            {"timestamp": 5999, "input_length": 1053, "output_length": 26, "hash_ids": [0, 773, 774]},
        ),
        [0, 0, 3.0, 5.999], [None] * 4, [(6758, 500), (7322, 490), (915, 355), (1053, 26)],
        dict.fromkeys(((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)), 512),
    ),
    Case(  # Dynamo: delay_ms, and the time that tools took
        "mooncake",
        jsonl(
            {"session_id": "a", "timestamp": 1000, "input_length": 512, "output_length": 8, "hash_ids": [1]},
            {"session_id": "a", "delay_ms": 50, "input_length": 1024, "output_length": 4, "hash_ids": [1, 2]},
            {"request_id": "x", "timestamp": 1000, "input_length": 512, "output_length": 2, "hash_ids": [7]},
            {"request_id": "y", "wait_for": ["x"], "delay": 100, "tool_wait_ms": 400, "input_length": 512, "output_length": 2,
             "hash_ids": [8]},
        ),
        [0, None, 0, None], [None, ((0,), 0.05), None, ((2,), 0.5)], [(512, 8), (1024, 4), (512, 2), (512, 2)], {(0, 1): 512},
    ),
    Case(
        "bailian",
        jsonl(
            {"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 40, "output_length": 132, "type": "text", "turn": 1,
             "hash_ids": [1089, 1090, 1091]},
            {"chat_id": 7, "parent_chat_id": -1, "timestamp": 62.0, "input_length": 10, "output_length": 3, "type": "text", "turn": 1,
             "hash_ids": [5]},
            {"chat_id": 160, "parent_chat_id": 159, "timestamp": 75.614, "input_length": 50, "output_length": 9, "type": "text", "turn": 2,
             "hash_ids": [1089, 1090, 6326, 13148]},
            {"chat_id": 161, "parent_chat_id": 99, "timestamp": 76.114, "input_length": 16, "output_length": 1, "type": "text", "turn": 2,
             "hash_ids": [1]},
        ),
        [0, 14.5, 0.886, 15.0], [None, ((0,), 0.0), None, None], [(40, 132), (50, 9), (10, 3), (16, 1)], {(0, 1): 32},
    ),
    Case(
        "azure", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
        [0, 4.314579], [None, None], [(374, 44), (396, 109)], {},
    ),
    Case(
        "azure",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.017335+00:00,2399,6\n",
        [0, 0.007405], [None, None], [(2162, 5), (2399, 6)], {},
    ),
    Case(  # turns of a conversation follow each other; the log of the API does not
        "burstgpt",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "10.0,one,4,GPT-4,906,446,1352,Conversation log\n12.0,two,2,ChatGPT,36,29,65,Conversation log\n"
        "44.0,one,3,GPT-4,80,20,100,Conversation log\n50.0,one,3,GPT-4,7,8,15,API log\n",
        [0, None, 2.0, 40.0], [None, ((0,), 30.0), None, None], [(906, 446), (80, 20), (36, 29), (7, 8)], {},
    ),
    Case(  # a subagent with times of its own, one that is only launched, a join, and a recorded pause
        "weka", json.dumps(WEKA, indent=1),
        [0, None, None, None, None, None],
        [None, ((0,), 1.0), ((0,), 1.5), ((2,), 0.5), ((0, 3), 2.0), ((4,), 1.0)],
        [(130, 10), (64, 7), (64, 5), (128, 6), (192, 20), (256, 30)],
        {(0, 4): 130, (0, 5): 130, (2, 3): 64, (4, 5): 192},
    ),
    Case(  # two sessions of one line each: block 1 of one is not block 1 of the other
        "weka",
        jsonl(*({"id": name, "block_size": 64, "hash_id_scope": "local", "requests": [call(0.0, (64, 3), [1])]} for name in "ab")),
        [0, 0], [None, None], [(64, 3), (64, 3)], {},
    ),
    Case(
        "dynamo",
        jsonl(
            ended(1_000, 500, (128, 16), [11, 12], "lead"),
            {"schema": "dynamo.request.trace.v1", "event_type": "tool", "event_time_unix_ms": 1_600, "tool": {}},
            ended(2_000, 400, (64, 8), [21], "helper", "lead"),
            ended(3_400, 100, (192, 4), [11, 12, 13], "lead"),
            ended(1_200, 50, (70, 5), [11, 31]),
        ),
        [0, None, None, 0.2], [None, ((0,), 0.5), ((1,), 1.0), None], [(128, 16), (64, 8), (192, 4), (70, 5)],
        {(0, 2): 128, (0, 3): 64, (2, 3): 64},
    ),
    Case(  # the record of Dynamo's own documentation, as a sink wraps it: hashes are unsigned numbers of 64 bits
        "dynamo-sink",
        jsonl(
            *({"timestamp": 1_777_312_801 + i, "event": {
                "schema": "dynamo.request.trace.v1", "event_type": "request_end", "event_time_unix_ms": 1_777_312_801_000 + 1000 * i,
                "request": {
                    "request_id": f"r{i}", "request_received_ms": 1_777_312_800_000 + 1000 * i, "output_tokens": 16,
                    "replay": {"trace_block_size": 64, "input_length": 128,
                               "input_sequence_hashes": [14_879_255_164_371_896_291, 274_632_075_616_497_421 + i]},
                }}} for i in range(2)),
        ),
        [0, 1.0], [None, None], [(128, 16), (128, 16)], {(0, 1): 64},
    ),
    Case(  # turns, two branches side by side, and their join; a prompt that is long enough repeats what was said before
        "otel",
        otlp(
            span(0, 1000, (100, 50)), span(3000, 4000, (200, 20)), span(3500, 6000, (90, 30)), span(8000, 8500, (400, 5)),
            span(500, 600, (33, 3), session="other"), span(700, 800, (1, 1), "s", **{"gen_ai.operation.name": "invoke_agent"}),
            {"name": "tool", "startTimeUnixNano": "1", "endTimeUnixNano": "2", "attributes": []},
        ),
        [0, None, None, None, 0.5], [None, ((0,), 2.0), ((0,), 2.5), ((1, 2), 2.0), None],
        [(100, 50), (200, 20), (90, 30), (400, 5), (33, 3)], {(0, 1): 100, (2, 3): 90},
    ),
    Case(
        "otel-spans",
        jsonl(
            *({"name": "chat", "context": {"trace_id": "0x1", "span_id": "0x2"}, "parent_id": None,
               "start_time": f"2026-01-01T00:00:0{s}.000000Z", "end_time": f"2026-01-01T00:00:0{s + 1}.500000Z",
               "attributes": {"gen_ai.usage.prompt_tokens": 10 + s, "gen_ai.usage.completion_tokens": 4}} for s in (0, 4)),
        ),
        [0, None], [None, ((0,), 2.5)], [(10, 4), (14, 4)], {},
    ),
    Case(
        "splitwise", "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
        "0,2,0,0.5,1,155,694\n1,2,0,2.25,1,219,62\n",
        [0, 1.75], [None, None], [(155, 694), (219, 62)], {},
    ),
    Case(
        "vidur",
        "arrived_at,num_prefill_tokens,num_decode_tokens,session_id,block_hash_ids\n0.0,32,8,7,11|22\n1.5,16,4,8,33\n3.0,48,2,7,11|22|44\n",
        [0, 3.0, 1.5], [None, ((0,), 0.0), None], [(32, 8), (48, 2), (16, 4)], {(0, 1): 32},
    ),
    Case(  # traces/test_trace.csv of the simulator (MIT), whole
        "splitwise", "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
        "0,2,0,1,1,4096,32\n1,2,0,3,1,2048,8\n2,2,0,4,1,2048,16\n",
        [0, 2.0, 3.0], [None] * 3, [(4096, 32), (2048, 8), (2048, 16)], {},
    ),
    Case(  # the first rows of splitwise_conv.csv (MIT), which are those of Azure's conversation trace of 2023
        "vidur", "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n4.541877,879,55\n4.710427,91,16\n",
        [0, 4.314579, 4.541877, 4.710427], [None] * 4, [(374, 44), (396, 109), (879, 55), (91, 16)], {},
    ),
    Case(  # as the tester records them: calls of type n or s, with the tokens of tools and system beside them
        "weka",
        json.dumps({
            "id": "trace_0079", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 10837, "system_tokens": 2337,
            "requests": [
                {"t": 0.0, "type": "n", "model": "m", "in": 150, "out": 123, "hash_ids": [1, 2, 3], "input_types": ["text"],
                 "output_types": ["text"], "stop": "tool_use", "api_time": 4.5, "think_time": 0.0},
                {"t": 6.0, "type": "s", "model": "m", "in": 200, "out": 9, "hash_ids": [1, 2, 4, 5], "ttft": 0.5, "api_time": 2.0,
                 "think_time": 1.5},
            ],
        }),
        [0, None], [None, ((0,), 1.5)], [(150, 123), (200, 9)], {(0, 1): 128},
    ),
]  # fmt: skip


def replay(**fields: Any) -> Load:
    return TraceReplay(**{"trace": "trace", "requests": 0, "prefix_cache": "allowed"} | fields)


def written(folder: Path, text: str, name: str = "trace") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def common(left: Prompt, right: Prompt) -> int:
    assert left.text is not None and right.text is not None  # noqa: PT018
    pairs = list(zip(left.text.split(), right.text.split(), strict=False))
    return next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_format_is_known_by_its_content_and_replayed_as_recorded(tmp_path: Path, case: Case) -> None:
    file = written(tmp_path, case.text)
    trace = read_trace(file, Path())
    assert trace.format.name == case.name
    prompts = make_prompts(None, replay(), len(trace), salt="", scale=scale_of_words(), base=tmp_path)
    assert [(p.tokens, p.output_tokens) for p in prompts] == case.lengths
    assert [p.due_s for p in prompts] == [None if due is None else pytest.approx(due, abs=1e-6) for due in case.due]
    waits = [None if p.waiting is None else (p.waiting.rows, pytest.approx(p.waiting.delay_s)) for p in prompts]
    assert waits == case.waits
    found = {(a, b): common(prompts[a], prompts[b]) for b in range(len(prompts)) for a in range(b)}
    assert {pair: tokens for pair, tokens in found.items() if tokens > 1} == case.shared
    stated = read_trace(f"{case.name}:{file}", Path())
    assert (len(stated), stated.format) == (len(trace), trace.format)


def scale_of_words() -> Any:
    from enginebench.workload import TextScale

    return TextScale(1.0, 0.0)


def test_there_are_at_least_ten_formats_and_each_is_tried_here() -> None:
    assert {case.name for case in CASES} == set(FORMATS)
    sharegpt, openai_batch = 1, 1  # data sets, tested in test_datasets.py
    assert len(FORMATS) + sharegpt + openai_batch >= 10
    assert all(each.source.startswith("https://") for each in FORMATS.values())


def test_a_list_of_objects_is_read_as_lines_are(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in CASES[0].text.splitlines()]
    assert read_trace(written(tmp_path, json.dumps(rows, indent=2)), Path()).input_tokens.tolist() == [1000, 600]


@pytest.mark.parametrize(("unit", "last_s"), [("s", 900.0), ("ms", 0.9), ("us", 0.0009), ("ns", 9e-7)])
def test_a_stated_unit_counts(tmp_path: Path, unit: Any, last_s: float) -> None:
    """90 s apart or 0.09 ms apart: without a statement either is what the format says."""
    rows = [{"timestamp": 90 * i, "input_length": 5, "output_length": 1} for i in range(11)]
    trace = read_trace(written(tmp_path, jsonl(*rows)), Path(), unit)
    assert trace.due_s[-1] == pytest.approx(last_s)
    assert "as stated" in trace.note
    prompts = make_prompts(None, replay(time_unit=unit, time_scale=0.5), 11, salt="", base=tmp_path)
    assert prompts[-1].due_s == pytest.approx(last_s / 2)


def test_a_mooncake_trace_in_seconds_is_not_replayed_as_milliseconds(tmp_path: Path) -> None:
    rows = [{"timestamp": 0.25 * i, "input_length": 5, "output_length": 1} for i in range(20)]
    trace = read_trace(written(tmp_path, jsonl(*rows)), Path())
    assert trace.due_s[-1] == pytest.approx(4.75)
    assert "read as seconds, as milliseconds would not be plausible: 4.21 requests/s" in trace.note


def test_pauses_have_the_unit_of_the_times_and_are_scaled_with_them(tmp_path: Path) -> None:
    written(tmp_path, CASES[1].text)
    (_, turn, _) = make_prompts(None, replay(time_scale=0.5), 3, salt="", base=tmp_path)
    assert turn.waiting is not None
    assert turn.waiting.delay_s == pytest.approx(1.0)


def test_what_waited_for_a_failed_request_waits_for_what_that_one_waited_for(tmp_path: Path) -> None:
    rows = [
        {"chat_id": i, "parent_chat_id": i - 1 if i else -1, "timestamp": 10.0 * i, "input_length": 16, "output_length": int(i != 1)}
        for i in range(3)
    ]
    trace = read_trace(written(tmp_path, jsonl(*rows)), Path())
    assert trace.omitted == 1
    assert trace.waits[1].rows == (0,)
    assert trace.own_s.tolist() == [0, 20]
    assert any("1 requests without input or output" in note for note in trace.notes)


def test_sessions_stay_together_in_order_of_their_start(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, next(case for case in CASES if case.name == "bailian").text), Path())
    assert trace.sessions.tolist() == [0, 0, 1, 2]
    assert trace.due_s.tolist() == pytest.approx([0, 0, 0.886, 15.0])
    assert len(trace.first(1).waits) == 0


def test_shared_contexts_need_a_prefix_cache_that_is_allowed(tmp_path: Path) -> None:
    written(tmp_path, CASES[1].text)
    with pytest.raises(UserError, match="share blocks"):
        check(TraceReplay(trace="trace", requests=0), tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("wek:x", "{}", None, "unknown trace format 'wek'"),
        ("azure:x", "a,b\n1,2\n", 1, "has the column TIMESTAMP"),
        ("x", jsonl({"chat_id": 1, "parent_chat_id": 1, "timestamp": 0, "input_length": 3, "output_length": 3}), None, "waits for itself"),
        ("x", jsonl({"block_size": 0, "requests": []}), 1, "block_size is 0"),
        ("x", jsonl({"block_size": 16, "requests": []}), None, "no request with both"),
        ("x", jsonl({"block_size": 16, "requests": [{"t": 0}]}), 1, "has no 'in'"),
        ("x", jsonl({"block_size": 16, "requests": ["?"]}), 1, "invalid row"),
        ("x", jsonl({"schema": "dynamo.request.trace.v2", "event_type": "request_end", "event_time_unix_ms": 1}), 1, "is not dynamo"),
        ("x", '{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": 3}]}]}]}', 1, "invalid row"),
        ("x", "[1, 2]", 1, "not a JSON object"),
        ("x", jsonl({"timestamp": 0, "input_length": True, "output_length": 1}), 1, "invalid number of tokens True"),
        ("x", jsonl({"timestamp": True, "input_length": 1, "output_length": 1}), 1, "invalid time True"),
        ("x", jsonl({"request_id": "b", "wait_for": "abc", "input_length": 1, "output_length": 1}), 1, "wait_for is not a list"),
        ("x", jsonl({"request_id": "b", "wait_for": ["b"], "input_length": 1, "output_length": 1}), None, "request b of the trace waits"),
        ("x", "arrived_at,num_prefill_tokens,num_decode_tokens,block_size,block_hash_ids\n0,32,8,0,1\n", 2, "have no tokens"),
        ("x", "TIMESTAMP,ContextTokens,ContextTokens,GeneratedTokens\n", 1, "two columns are called ContextTokens"),
        ("x", '{"input_length": 3,\n "output_length": 2,\n oops}', 3, "invalid row"),
    ],
)
def test_a_bad_file_is_refused_with_one_sentence(tmp_path: Path, name: str, text: str, line: int | None, message: str) -> None:
    written(tmp_path, text, "x")
    with pytest.raises(UserError, match=message) as caught:
        read_trace(name, tmp_path)
    assert caught.value.line == line
    assert caught.value.advice


def trace_of(folder: Path, *rows: dict[str, Any]) -> Trace:
    return read_trace(written(folder, jsonl(*rows)), Path())


def test_blocks_of_two_sizes_cannot_be_told_apart(tmp_path: Path) -> None:
    rows = [{"timestamp": 0, "input_length": 16, "output_length": 1, "hash_ids": [1], "block_size": size} for size in (16, 8)]
    rows[1] |= {"input_length": 8}
    with pytest.raises(UserError, match="blocks of 8 and 16 tokens in one trace"):
        trace_of(tmp_path, *rows)


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_are_read_as_traces_and_as_data_sets(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    (tmp_path / "t").write_bytes(pack(("\ufeff" + CASES[0].text).encode()))
    assert read_trace("t", tmp_path).due_s.tolist() == [0, 1.5]
    (tmp_path / "d").write_bytes(pack(b'{"prompt": "one two"}\n{"prompt": "three"}\n'))
    assert [record[0].text for record in read_records("jsonl:d", tmp_path)] == ["one two", "three"]


@pytest.mark.parametrize("read", [lambda base: read_trace("x", base), lambda base: read_records("jsonl:x", base)])
@pytest.mark.parametrize(
    ("content", "message", "advice"),
    [
        (b"\x28\xb5\x2f\xfd\x00\x00", "packed with zstd", "zstd -d"),
        (b"PAR1\x15\x04", "Parquet", "read_parquet"),
        (b"PK\x03\x04....", "a zip archive", "unpack it"),
        ('{"timestamp": 1}'.encode("utf-16"), "UTF-16", "save it as UTF-8"),
        (gzip.compress(CASES[0].text.encode())[:40], "cannot be read", "fetch it again"),
        (bz2.compress(CASES[0].text.encode())[:40], "cannot be read", "fetch it again"),
        (b"BZh9 not packed at all", "cannot be read", "fetch it again"),
        (lzma.compress(CASES[0].text.encode())[:40], "cannot be read", "fetch it again"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, read: Callable[[Path], Any], content: bytes, message: str, advice: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path)
    assert caught.value.file == tmp_path / "x"
    assert advice in (caught.value.advice or "")


def test_an_id_that_others_wait_for_must_be_the_only_one(tmp_path: Path) -> None:
    turn = {"parent_chat_id": -1, "timestamp": 1.0, "input_length": 16, "output_length": 1}
    twice = [{**turn, "chat_id": 0}, {**turn, "chat_id": 0}]
    assert len(trace_of(tmp_path, *twice)) == 2, "nothing waits for them"
    with pytest.raises(UserError, match="a request waits for 0, and 2 requests of the trace are called so"):
        trace_of(tmp_path, *twice, {**turn, "chat_id": 1, "parent_chat_id": 0})


def test_a_long_chain_of_failed_requests_is_passed_over(tmp_path: Path) -> None:
    rows = [
        {"chat_id": i, "parent_chat_id": i - 1, "timestamp": float(i), "input_length": 16, "output_length": int(i in (0, 4999))}
        for i in range(5000)
    ]
    trace = trace_of(tmp_path, *rows)
    assert (trace.omitted, trace.waits[1].rows) == (4998, (0,))


@pytest.mark.parametrize("row", ['{"timestamp": NaN', '{"timestamp": Infinity', '{"timestamp": "noon"', '{"timestamp": null', '{"x": 1'])
def test_a_time_that_is_no_number_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    good = jsonl({"timestamp": -5, "input_length": 4, "output_length": 1})
    file = written(tmp_path, good + row + ', "input_length": 4, "output_length": 1}\n')
    with pytest.raises(UserError, match="row of a trace") as caught:
        read_trace(file, Path())
    assert caught.value.line == 2
    assert read_trace(written(tmp_path, good, "early"), Path()).due_s.tolist() == [0], "before the origin is as good a time as any"


def test_dates_have_no_unit_that_could_be_stated(tmp_path: Path) -> None:
    azure = next(case for case in CASES if case.name == "azure")
    with pytest.raises(UserError, match="are dates or have a unit of their own") as caught:
        read_trace(written(tmp_path, azure.text), Path(), "ms")
    assert (caught.value.key, caught.value.advice) == ("time_unit", "leave `time_unit` out")


BURST = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens,session_id\n"


@pytest.mark.parametrize(
    ("text", "delay_s"),
    [
        (BURST + "9,a,1,x,30,4,7,Conversation log\n2,a,3,x,3,4,7,Conversation log\n", 4.0),
        (VIDUR + "9,30,4,7\n2,3,4,7\n", None),
        (jsonl(*({"chat_id": i, "parent_chat_id": -1 if i == 0 else 0, "timestamp": 2.0 + 7 * i, "input_length": 3 + 27 * i,
                  "output_length": 4} for i in (1, 0))), None),
    ],
    ids=["burstgpt", "vidur", "bailian"],
)  # fmt: skip
def test_turns_follow_by_their_times_and_not_by_their_rows(tmp_path: Path, text: str, delay_s: float | None) -> None:
    trace = read_trace(written(tmp_path, text), Path())
    assert trace.input_tokens.tolist() == [3, 30]
    assert (trace.own_s.tolist(), trace.waits[1].rows, trace.waits[1].delay_s) == ([0, 7], (0,), delay_s)
