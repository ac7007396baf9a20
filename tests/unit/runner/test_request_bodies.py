"""What an engine behind HTTP is sent: bodies with everything that a load asks for, and what each request waits for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from enginebench.adapter import PROTOCOLS
from enginebench.domain import ClosedLoop, Deployment, Load, TraceReplay
from enginebench.loadgen import WireRequest
from enginebench.runner.http_engine import HttpEngine, _with_form
from enginebench.runner.prompts import PromptSource
from enginebench.workload import form_of


class Plain:
    """An adapter of an engine that takes text."""

    def dialect(self, deployment: object, load: Load) -> Any:
        return PROTOCOLS["openai"][load.api]

    def request_fields(self, deployment: object, load: Load) -> dict[str, Any]:
        return {"ignore_eos": True}

    def traits(self, deployment: object) -> Any:
        return type("Traits", (), {"takes_ids": False})


def requests_of(load: Load, base: Path, count: int) -> list[WireRequest]:
    engine = object.__new__(HttpEngine)
    source = PromptSource(base=base)
    launch = type("Launch", (), {"deployment": Deployment("fake", "m", "none", "m")})
    for name, value in {"adapter": Plain(), "launch": launch, "prompts": source, "served_name": "m", "prefix": "", "query": ""}.items():
        object.__setattr__(engine, name, value)
    engine.spelling = HttpEngine.__dataclass_fields__["spelling"].default_factory()
    return list(engine._requests(source.make(load, count, salt="x"), load))


def test_a_chat_request_with_everything(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    load = ClosedLoop(
        api="chat", requests=2, input_tokens=100, system_tokens=30, tools="2", tool_choice="none", response_format="schema.json", images=1,
        image_size="32x16", prefix_cache="allowed", cancel_share=1.0, cancel_s=0.5,
    )  # fmt: skip
    first, second = requests_of(load, tmp_path, 2)
    body = json.loads(first.body if isinstance(first.body, bytes) else b"")
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text"]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["search_0", "search_1"]
    assert (body["tool_choice"], body["response_format"]["json_schema"]["schema"]) == ("none", {"type": "object"})
    assert "ignore_eos" not in body, "an answer with a form ends when it is complete"
    assert first.abort_ns == second.abort_ns == 500_000_000
    assert first.body != second.body
    assert first.asked_input_tokens == 100


def test_a_later_turn_keeps_the_images_of_the_first(tmp_path: Path) -> None:
    load = ClosedLoop(api="chat", requests=2, turns=2, images=1, image_size="8x8", prefix_cache="allowed")
    (_, later) = requests_of(load, tmp_path, 2)
    assert isinstance(later.body, tuple)
    messages = json.loads(b"".join(piece if isinstance(piece, bytes) else b"the answer" for piece in later.body))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0]["content"][0]["type"] == "image_url"
    assert messages[1]["content"] == "the answer"


def test_recorded_sessions_say_what_they_wait_for(tmp_path: Path) -> None:
    rows = [
        {"request_id": "a", "timestamp": 0, "input_length": 9, "output_length": 2},
        {"request_id": "b", "wait_for": ["a"], "delay": 250, "input_length": 9, "output_length": 2},
    ]
    (tmp_path / "t").write_text("\n".join(map(json.dumps, rows)))
    first, second = requests_of(TraceReplay(trace="t", requests=0), tmp_path, 2)
    assert (first.due_ns, first.after, first.conversation, first.turn) == (0, (), 0, 0)
    assert (second.due_ns, second.after, second.think_ns, second.conversation, second.turn) == (None, (0,), 250_000_000, 0, 1)
    assert isinstance(second.body, bytes), "it does not wait for the text of the answer"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_tools_alone_leave_the_length_forced(api: str) -> None:
    load = ClosedLoop(api=api, tools="1")
    assert _with_form({"ignore_eos": True}, PROTOCOLS["openai"][api], form_of(load, Path()))["ignore_eos"] is True
