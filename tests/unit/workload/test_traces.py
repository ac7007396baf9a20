"""Traces: three formats, replayed as they were recorded; blocks that are the same are the same text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import pytest
from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.checkpoints.vocabulary import Vocabulary, is_plain
from enginebench.domain import Load, TraceReplay
from enginebench.errors import UserError
from enginebench.workload import Prompt, check, largest_request, make_prompts, natural_count
from enginebench.workload.traces import read_trace
from hypothesis import given, settings
from hypothesis import strategies as st

PLAIN = tuple(i for i, token in enumerate(word_tokenizer().tokens) if token not in word_tokenizer().control and is_plain(token))
WITH_BOS = Vocabulary(PLAIN, (1021,), word_tokenizer().tokenizer())

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:05.9799600,110,27
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 23:59:59.500000+00:00,2162,5
2024-05-11 00:00:00+00:00,2399,6
"""
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log

118.5,GPT-4,417,276,693,API log
"""
BURST_3 = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
7,a,1.5,ChatGPT,12,3,15,Conversation log
"""
MOONCAKE = [
    {"timestamp": 500, "input_length": 1300, "output_length": 50, "hash_ids": [7, 8, 9]},
    {"timestamp": 500, "input_length": 600, "output_length": 20, "hash_ids": [7, 12]},
    {"timestamp": 2500, "input_length": 1100, "output_length": 5, "hash_ids": [7, 8]},
    {"timestamp": 2500, "input_length": 700, "output_length": 5},
]


def written(folder: Path, text: str) -> Path:
    file = folder / "trace"
    file.write_text(text)
    return file


def mooncake(folder: Path, rows: object = MOONCAKE) -> Path:
    assert isinstance(rows, list)
    return written(folder, "\n".join(map(json.dumps, rows)) + "\n\n")


def replay(**fields: object) -> Load:
    return TraceReplay(trace="trace", requests=0, prefix_cache="allowed", **fields)


@pytest.mark.parametrize(
    ("text", "due", "lengths"),
    [
        (AZURE, [0, 0.052, 2.0], [(4808, 10), (3180, 8), (110, 27)]),
        (AZURE_2024, [0, 0.5], [(2162, 5), (2399, 6)]),
        (BURST, [0, 113.5], [(472, 18), (417, 276)]),
        ("\ufeff" + BURST.replace("\n", "\r\n"), [0, 113.5], [(472, 18), (417, 276)]),
        (BURST_3, [0], [(12, 3)]),
    ],
)
def test_tables_are_known_by_their_columns(tmp_path: Path, text: str, due: list[float], lengths: list[tuple[int, int]]) -> None:
    trace = read_trace(str(written(tmp_path, text)), Path())
    assert trace.due_s.tolist() == pytest.approx(due)
    assert list(zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True)) == lengths
    assert not trace.shares


def test_a_mooncake_trace_says_which_blocks_prompts_share(tmp_path: Path) -> None:
    trace = read_trace(str(mooncake(tmp_path)), Path())
    assert trace.due_s.tolist() == [0, 0, 2, 2]
    assert trace.blocks == ((0, 1, 2), (0, 3), (0, 1), ())
    assert trace.shares
    assert trace.largest == 1350


def common(left: Prompt, right: Prompt) -> int:
    pairs = zip(left.ids or (), right.ids or (), strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(left.tokens, right.tokens))


@pytest.mark.parametrize("kind", ["random", "text"])
def test_prompts_share_the_blocks_that_the_trace_says_and_no_token_more(tmp_path: Path, kind: Literal["random", "text"]) -> None:
    mooncake(tmp_path)
    prompts = make_prompts(WITH_BOS, replay(prompts=kind), 4, salt="", base=tmp_path)
    assert [(p.tokens, p.output_tokens, p.due_s) for p in prompts] == [(1300, 50, 0), (600, 20, 0), (1100, 5, 2), (700, 5, 2)]
    for prompt in prompts:
        assert WITH_BOS.tokenizer is not None
        assert prompt.ids == (1021, *WITH_BOS.tokenizer.encode(prompt.text, add_special_tokens=False).ids)
        assert len(prompt.ids) == prompt.tokens
    assert [common(prompts[0], other) for other in prompts[1:]] == [512, 1024, 1]
    assert common(prompts[1], prompts[2]) == 512


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=3, unique=True), min_size=2, max_size=5))
def test_equal_blocks_are_equal_wherever_they_stand(tmp_path_factory: pytest.TempPathFactory, blocks: list[list[int]]) -> None:
    rows = [{"timestamp": 0, "input_length": 512 * len(ids) + 9, "output_length": 1, "hash_ids": ids} for ids in blocks]
    folder = tmp_path_factory.mktemp("trace")
    mooncake(folder, rows)
    prompts = make_prompts(WITH_BOS, replay(), len(rows), salt="", base=folder)
    seen: dict[int, tuple[int, ...]] = {}
    for ids, prompt in zip(blocks, prompts, strict=True):
        for place, block in enumerate(ids):
            tokens = (prompt.ids or ())[max(512 * place, 1) : 512 * (place + 1)]
            at_hand = seen.setdefault(block, tokens)
            size = min(len(at_hand), len(tokens))  # the first block of a prompt gives one token to the BOS
            assert at_hand[:size] == tokens[:size]
    assert len({tokens[:511] for tokens in seen.values()}) == len(seen)


def test_time_is_scaled_and_bounds_the_number_of_requests(tmp_path: Path) -> None:
    written(tmp_path, AZURE)
    half = replay(time_scale=0.5)
    assert [p.due_s for p in make_prompts(None, half, 3, salt="", base=tmp_path)] == pytest.approx([0, 0.026, 1.0])
    assert natural_count(half, tmp_path) == 3
    assert natural_count(replay(time_scale=0.5, duration_s=1.0), tmp_path) == 2
    assert natural_count(replay(duration_s=0.01), tmp_path) == 1
    assert natural_count(TraceReplay(trace="trace", requests=2), tmp_path) == 2
    assert largest_request(half, tmp_path) == 4818


def test_a_trace_gives_no_more_requests_than_it_has(tmp_path: Path) -> None:
    mooncake(tmp_path)
    with pytest.raises(UserError, match="trace has 4 requests, and 5 are wanted") as caught:
        check(TraceReplay(trace="trace", prefix_cache="allowed", requests=5), tmp_path)
    assert caught.value.advice
    check(TraceReplay(trace="trace", prefix_cache="allowed", requests=5, duration_s=60.0), tmp_path)  # then it is the most that may be sent


def test_only_the_part_that_is_replayed_counts(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 1000 * second, "input_length": tokens, "output_length": 5, "hash_ids": ids}
        for second, (tokens, ids) in enumerate([(600, [1, 2]), (700, [3, 4]), (9000, []), (512, [1])])
    ]
    mooncake(tmp_path, rows)
    parts = [{"requests": 2}, {"requests": 0, "duration_s": 2.0}, {"requests": 0, "duration_s": 4.0, "time_scale": 2.0}]
    for part in parts:
        assert largest_request(TraceReplay(trace="trace", **part), tmp_path) == 705
        check(TraceReplay(trace="trace", **part), tmp_path)
    assert largest_request(replay(), tmp_path) == 9005
    with pytest.raises(UserError, match="share blocks"):
        check(TraceReplay(trace="trace", requests=4), tmp_path)


def test_rows_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    trace = read_trace(str(mooncake(tmp_path, [{"timestamp": t, "input_length": t, "output_length": 1} for t in (300, 100, 200)])), Path())
    assert trace.due_s.tolist() == pytest.approx([0, 0.1, 0.2])
    assert trace.input_tokens.tolist() == [100, 200, 300]


def test_a_trace_is_read_again_when_its_file_has_changed(tmp_path: Path) -> None:
    file = written(tmp_path, AZURE)
    assert len(read_trace(str(file), Path())) == 3
    assert read_trace(str(file), Path()) is read_trace(str(file), Path())
    file.write_text(BURST)
    os.utime(file, ns=(1, 1))
    assert len(read_trace(str(file), Path())) == 2


def test_shared_blocks_need_a_prefix_cache_that_is_allowed(tmp_path: Path) -> None:
    mooncake(tmp_path)
    check(replay(), tmp_path)
    with pytest.raises(UserError, match="share blocks"):
        check(TraceReplay(trace="trace"), tmp_path)
    written(tmp_path, AZURE)
    check(TraceReplay(trace="trace", requests=0), tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "unknown trace format"),
        ("a,b,c\n1,2,3\n", 1, "unknown trace format"),
        ("TIMESTAMP,ContextTokens\n", 1, "unknown trace format"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", None, "no request with both"),
        (AZURE + "yesterday,1,2\n", 5, "Invalid isoformat"),
        (AZURE + "2023-11-16 18:17:03,1\n", 5, "too few columns"),
        (AZURE + '"' + "x" * 200_000, 5, "invalid CSV: field larger"),
        ("\n" + BURST + "1,x,-4,2\n", 7, "invalid number of tokens -4"),
        (BURST + "1,x,-4,2\n", 6, "invalid number of tokens -4"),
        (BURST + "1,x,4.5,2\n", 6, "invalid number of tokens 4.5"),
        (BURST + "nan,x,4,2\n", 6, "invalid time nan"),
        ('{"timestamp": 1, "input_length": 4, "output_length": 1}\n{"timestamp"', 2, "invalid row of a trace"),
        ('{"timestamp": 1, "input_length": 4}', 1, "has no 'output_length'"),
        ('{"timestamp": 1, "input_length": 4, "output_length": null}', 1, "invalid row of a trace"),
        ('{"timestamp": 1, "input_length": 4, "output_length": 1, "hash_ids": "x"}', 1, "not a list of numbers"),
        ('{"timestamp": 1, "input_length": 64, "output_length": 1, "hash_ids": [1, 2, 3, 4]}', 1, "cannot be blocks of 512"),
    ],
)
def test_a_bad_trace_says_where_and_what_it_should_be(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        check(replay(), tmp_path)
    assert caught.value.file == file
    assert caught.value.line in (line, 1 if line is None else line)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("times", "note", "last_s"),
    [
        ([100 * i for i in range(20)], "read as milliseconds: 10.5 requests/s on average", 1.9),
        ([0.1 * i for i in range(20)], "read as seconds, as milliseconds would not be plausible: 10.5 requests/s on average", 1.9),
        ([1e8 * i for i in range(20)], "read as microseconds, as milliseconds would not be plausible", 1900),
        ([0] * 20, "read as milliseconds: all requests at once", 0),
        ([0, 0.1, 0.2], "read as milliseconds", 0.0002),  # too few to tell
    ],
)
def test_the_unit_of_times_is_said_and_detected(tmp_path: Path, times: list[float], note: str, last_s: float) -> None:
    file = mooncake(tmp_path, [{"timestamp": t, "input_length": 5, "output_length": 1} for t in times])
    trace = read_trace(str(file), Path())
    assert note in trace.note
    assert trace.due_s[-1] == pytest.approx(last_s)
