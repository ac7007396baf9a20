"""How a server of unknown tokenizer counts text: measured with few prompts, tried again, checked, and blamed on itself where it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from enginebench.domain import ClosedLoop, Sample
from enginebench.runner import priming
from enginebench.runner.prompts import PromptSource
from enginebench.workload import Prompt


def count(text: str, overhead: int = 0) -> int:
    """A tokenizer of pieces of up to four letters, with a template before each prompt."""
    return overhead + sum(-(-len(word) // 4) for word in text.split())


class Engine:
    """An engine as far as gauging uses one. reply: the outcome and the count of the n-th request."""

    def __init__(self, reply: Callable[[int, str], tuple[str, int | None]]) -> None:
        self.prompts, self.asked, self._reply = PromptSource(), 0, reply
        self.launch = SimpleNamespace(deployment=SimpleNamespace(max_context=4096))

    def run(self, prompts: Sequence[Prompt], load: ClosedLoop) -> Any:
        outcome, tokens = self._reply(self.asked, prompts[0].text or "")
        self.asked += 1
        return SimpleNamespace(samples=[Sample(0, 1, 1, outcome=outcome, input_tokens=tokens)])


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priming, "_GAUGE_PAUSES_S", (0.0, 0.0))


def gauged(engine: Engine, prompts: str = "text", tokens: int = 24) -> tuple[PromptSource, ClosedLoop]:
    load = ClosedLoop(concurrency=1, requests=40, input_tokens=tokens, output_tokens=1, prompts=prompts)
    priming.fit_text_scale(engine, load, salt="s")
    return engine.prompts, load


@pytest.mark.parametrize("prompts", ["text", "random"])
@pytest.mark.parametrize("overhead", [0, 1, 7])
@pytest.mark.parametrize("tokens", [24, 48, 500])
def test_prompts_have_the_length_that_is_asked_for_within_ten_percent(prompts: str, overhead: int, tokens: int) -> None:
    source, load = gauged(Engine(lambda _, text: ("ok", count(text, overhead))), prompts, tokens)
    lengths = [count(prompt.text or "", overhead) for prompt in source.make(load, 40, salt="t")]
    assert sum(lengths) / len(lengths) == pytest.approx(tokens, rel=0.1)
    assert next(iter(source.scales.values())).overhead == overhead
    assert set(source.doubts.values()) == {None}


def test_a_refusal_is_tried_again() -> None:
    engine = Engine(lambda number, text: ("http_status", None) if number % 3 < 2 else ("ok", count(text)))
    source, _ = gauged(engine)
    assert set(source.doubts.values()) == {None}
    assert engine.asked == 3 * 6


@pytest.mark.parametrize(
    ("reply", "doubt"),
    [
        (lambda _number, _text: ("http_status", None), "requests that measure it failed (http_status: None)"),
        (lambda _number, _text: ("ok", 5), "the server counts 5 tokens for "),
        (lambda number, text: ("ok", count(text) * (1 + number % 6 // 5)), "tokens where "),
    ],
    ids=["always refused", "the same count for every prompt", "a count that nothing predicts"],
)
def test_what_cannot_be_measured_is_said_and_not_used(reply: Callable[[int, str], tuple[str, int | None]], doubt: str) -> None:
    source, _ = gauged(Engine(reply))
    assert doubt in str(next(iter(source.doubts.values())))
    assert next(iter(source.scales.values())).overhead == 0


def test_a_server_without_counts_is_left_alone() -> None:
    source, _ = gauged(Engine(lambda _number, _text: ("ok", None)))
    assert set(source.doubts.values()) == {None}
