"""Named workloads, classes of requests, and a workload in figures, against answers that were computed by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from enginebench.domain import Load, kind_of
from enginebench.errors import UserError
from enginebench.workload import check, make_prompts
from enginebench.workload.catalogue import catalogue, named
from enginebench.workload.describe import describe_file, describe_load
from enginebench.workload.lengths import Lengths, classes_of
from enginebench.workload.outline_reuse import theoretical_reuse
from enginebench.workload.outlines import outlines

MIX = "chat: uniform(20,60)+10*7, long: 800+5*2, agent: 400/300+lognormal(20,0.5,1..99)"
VERSIONS = {
    "chat@1": "d33e078b3078", "code-completion@1": "8c98c51609f6", "rag-8k-512@1": "20203462029c", "summarise-32k@1": "96cbab47169c",
    "agentic-coding@1": "85bc5dcda566", "mixed-service@1": "0ed9bd16396d", "mlperf-llama2-70b@1": "6fa26a2b3a6e",
    "mlperf-mixtral-8x7b@1": "536416028c84", "mlperf-deepseek-r1@1": "32f7a48bc050",
}  # fmt: skip


def load_of(**fields: Any) -> Load:
    return kind_of(fields)(**fields)


def mixed(**fields: Any) -> Load:
    return load_of(**{"lengths": MIX, "requests": 4000, "prefix_cache": "allowed"} | fields)


# -- classes -------------------------------------------------------------------------------------------------------------


def test_classes_have_their_shares_and_lengths() -> None:
    load = mixed()
    labels = classes_of(load, range(4000))
    counts = Counter(labels)
    assert {name: count / 4000 for name, count in counts.items()} == {
        "chat": pytest.approx(0.7, abs=0.03), "long": pytest.approx(0.2, abs=0.03), "agent": pytest.approx(0.1, abs=0.03),
    }  # fmt: skip
    for label, (entered, made) in zip(labels, Lengths.of(load).draw(0, 4000), strict=True):
        assert entered is not None
        assert made is not None
        assert {"chat": 20 <= entered <= 60 and made == 10, "long": (entered, made) == (800, 5), "agent": entered == 400 and made < 100}[
            label
        ]


def test_the_class_of_a_request_depends_on_its_index_alone() -> None:
    assert classes_of(mixed(), [7, 2, 7]) == [classes_of(mixed(), range(100))[i] for i in (7, 2, 7)]
    assert classes_of(mixed(seed=1), range(50)) != classes_of(mixed(), range(50))
    assert classes_of(load_of(lengths="128+64*3, 2048+256"), range(9)) == []
    assert classes_of(load_of(), range(9)) == []


def test_lengths_without_names_are_drawn_as_ever() -> None:
    """A stored load sends the same requests: these were drawn before classes existed."""
    drawn = Lengths.of(load_of(lengths="128+64*3, 2048+256")).draw(7, 8)
    assert drawn == [(128, 64) if short else (2048, 256) for short in (0, 1, 0, 1, 1, 1, 1, 1)]


def test_requests_of_a_class_share_their_prefix_and_no_others() -> None:
    prompts = make_prompts(None, mixed(requests=60), 60, salt="")
    labels = classes_of(mixed(), range(60))
    agents = [prompt.text.split() for prompt, label in zip(prompts, labels, strict=True) if label == "agent"]
    assert len(agents) > 2
    shared = next(i for i, words in enumerate(zip(*agents, strict=False)) if len(set(words)) > 1)
    assert shared == pytest.approx(300 * 3 / 4, abs=2), "three words for four tokens"
    firsts = [tuple(prompt.text.split()[:2]) for prompt, label in zip(prompts, labels, strict=True) if label != "agent"]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ("chat: 10", "invalid lengths"), ("chat: 10+5, 20+6", "either every pair has a name or none has"),
        ("chat: 10+x(1)", "invalid length"),
        ("chat: 10/10+5", "leave nothing of a prompt of 10"), ("chat: 10+5*0", "invalid lengths"), ("a b: 10+5", "invalid lengths"),
    ],
)  # fmt: skip
def test_what_is_no_mix_is_refused(lengths: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check(load_of(lengths=lengths), Path())
    assert caught.value.advice


def test_a_class_that_shares_text_needs_a_prefix_cache_that_is_allowed() -> None:
    check(mixed(), Path())
    with pytest.raises(UserError, match="share text"):
        check(mixed(prefix_cache="cold"), Path())


# -- the catalogue -------------------------------------------------------------------------------------------------------


def test_each_version_of_a_workload_keeps_its_meaning() -> None:
    """Another hash needs another version, because stored runs name the version."""
    assert {each.id: each.hash for each in catalogue().values()} == VERSIONS
    assert all(each.source and each.slo for each in catalogue().values())


def test_a_workload_is_named_with_or_without_its_version() -> None:
    assert named("chat@1") is named("chat")
    with pytest.raises(UserError, match="has chat@1, not chat@9"):
        named("chat@9")
    with pytest.raises(UserError, match="unknown workload 'chatt'") as caught:
        named("chatt")
    assert "chat" in str(caught.value.advice)


# -- figures -------------------------------------------------------------------------------------------------------------


def test_the_hit_rate_of_shared_prefixes() -> None:
    """10 requests of 100 tokens in 2 groups that share 60: 8 of them find 60."""
    load = load_of(prefix_groups=2, prefix_tokens=60, input_tokens=100, requests=10, prefix_cache="allowed")
    assert theoretical_reuse(outlines(load, 10, Path())).hit_rate == pytest.approx(8 * 60 / 1000)


def test_the_hit_rate_of_conversations() -> None:
    """3 turns of 50 + 10: prompts of 50, 110 and 170, of which 0, 60 and 120 were said before."""
    load = load_of(turns=3, input_tokens=50, output_tokens=10, requests=6, prefix_cache="allowed")
    found = theoretical_reuse(outlines(load, 6, Path()))
    assert (found.input_tokens, found.cached_tokens) == (2 * 330, 2 * 180)


def test_the_hit_rate_with_a_system_message() -> None:
    """4 requests of 100 tokens, of which 40 are a system message: 3 find it."""
    load = load_of(input_tokens=100, system_tokens=40, api="chat", requests=4, prefix_cache="allowed")
    found = theoretical_reuse(outlines(load, 4, Path()), load.system_tokens)
    assert (found.input_tokens, found.cached_tokens) == (400, 120)


def test_a_trace_in_figures(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 1000 * i, "input_length": 1024 + i, "output_length": 10 * i + 1, "hash_ids": [1, 10 + i]} for i in range(11)
    ]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = describe_file("t.jsonl", tmp_path)
    assert (found.requests, found.duration_s, found.rate, found.burstiness) == (11, 10.0, 1.0, 0.0)
    assert (found.input.least, found.input.most, found.input.quantiles[50], found.input.mean) == (1024, 1034, 1029, 1029)
    assert found.output is not None
    assert (found.output.quantiles[90], found.output.quantiles[99]) == (91, 101)
    assert found.hit_rate == pytest.approx(10 * 512 / sum(1024 + i for i in range(11)))
    assert found.sessions == 0
    assert "read as milliseconds" in found.notes[0]


def test_sessions_in_figures(tmp_path: Path) -> None:
    rows = [
        {"request_id": "a", "timestamp": 0, "input_length": 10, "output_length": 2},
        {"request_id": "b", "wait_for": ["a"], "delay": 500, "input_length": 10, "output_length": 2},
        {"request_id": "c", "wait_for": ["a"], "delay": 1500, "input_length": 10, "output_length": 2},
        {"request_id": "d", "wait_for": ["b", "c"], "delay": 1000, "input_length": 10, "output_length": 2},
        {"request_id": "e", "timestamp": 3000, "input_length": 10, "output_length": 2},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = describe_file("t.jsonl", tmp_path)
    assert (found.sessions, found.turns, found.branches, found.think_s) == (1, 4.0, 1, 1.0)


def test_a_data_set_in_figures(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "one two"},
                {"role": "assistant", "content": "a b c"},
            ]
        }
    ]
    rows += [{"messages": [{"role": "tool", "content": "result"}]}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("d.jsonl", "jsonl:d.jsonl"):
        found = describe_file(name, tmp_path)
        assert (found.what, found.requests, found.input.most) == ("a data set", 1, 4)
        assert found.output is not None
        assert found.output.most == 4
        assert found.lost == ("1 records without a prompt", "1 tool results")
    (tmp_path / "x").write_text("nothing of the kind")
    with pytest.raises(UserError, match="neither a trace nor a data set"):
        describe_file("x", tmp_path)


def test_a_named_workload_in_figures() -> None:
    load = load_of(api="chat", lengths=named("chat").load["lengths"], requests=1)
    found = describe_load(load, Path())
    assert found.output is not None
    assert found.input.quantiles[50] == pytest.approx(1020, rel=0.05)
    assert found.output.quantiles[50] == pytest.approx(129, rel=0.05)
    assert found.hit_rate == 0
