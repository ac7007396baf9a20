"""What an attached server refuses is spelled as it wants, once, and never after it has answered."""

from __future__ import annotations

import pytest
from enginebench.adapter import Reply
from enginebench.domain import Sample
from enginebench.runner.spelling import Spelling, spelling_of, with_either_path

CHAT = "/v1/chat/completions"


def refused(status: int, message: str = "") -> list[Sample]:
    return [Sample(0, 1, 1, outcome="http_status", status_code=status, error=f"HTTP {status}: {message}")]


@pytest.mark.parametrize(
    ("path", "first", "second"),
    [
        ("", CHAT, "/chat/completions"),
        ("/api/v3", "/api/v3" + CHAT, "/api/v3/chat/completions"),
        ("/a/chat/completions", "/a/chat/completions", None),
        ("/a/v1/chat/completions/", "/a/v1/chat/completions", None),
        ("/v1/completions", CHAT, None),
    ],
)
def test_a_route_is_tried_with_and_without_v1_unless_it_is_given(path: str, first: str, second: str | None) -> None:
    spelling, prefix = spelling_of(path, print)
    assert prefix + spelling.path(CHAT) == first
    assert spelling.adapt(refused(404)) == (second is not None)
    if second is not None:
        assert prefix + spelling.path(CHAT) == second
        last = refused(404)
        assert not spelling.adapt(last)
        assert "with and without /v1" in str(last[0].error)


def test_fields_are_renamed_or_left_out_as_the_server_says() -> None:
    said: list[str] = []
    spelling, body = Spelling(say=said.append), {"max_tokens": 8, "temperature": 0.0, "model": "m"}
    assert spelling.adapt(refused(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
    assert spelling.adapt(refused(400, "Unsupported value: 'temperature' does not support 0.0, only the default (1) value is supported."))
    assert spelling.body(body) == {"max_completion_tokens": 8, "model": "m"}
    assert spelling.left_out == {"temperature": 0.0}
    assert len(said) == 2
    assert not spelling.adapt(refused(400, "Unsupported value: 'temperature'"))


@pytest.mark.parametrize("samples", [refused(401), refused(500), refused(400, "prompt too long"), [Sample(0, 1, 1, outcome="connect")], []])
def test_other_failures_change_nothing(samples: list[Sample]) -> None:
    assert not Spelling().adapt(samples)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("Unrecognized request argument supplied: max_tokens", "max_completion_tokens"),
        (
            '{"detail":[{"type":"extra_forbidden","loc":["body","max_tokens"],"msg":"Extra inputs are not permitted"}]}',
            "max_completion_tokens",
        ),
        ("max_tokens is too large: invalid value 4096", "max_tokens"),
    ],
)
def test_max_tokens_has_another_name_only_where_the_field_is_refused(message: str, field: str) -> None:
    spelling = Spelling()
    spelling.adapt(refused(400, message))
    assert spelling.body({"max_tokens": 8}) == {field: 8}


def test_a_server_that_has_answered_is_not_asked_again() -> None:
    spelling = Spelling()
    assert not spelling.adapt([Sample(0, 1, 1)])
    assert not spelling.adapt(refused(404))


def test_a_get_finds_the_models_without_v1() -> None:
    there = with_either_path(lambda path: Reply(200 if path == "/models" else 404))
    assert [there(path).status for path in ("/v1/models", "/health")] == [200, 404]
