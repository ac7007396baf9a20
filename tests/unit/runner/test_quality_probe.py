"""Servers whose log-probabilities are not those of the tokens they were given are named, and an honest one is not."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import pytest
from enginebench.dialects.scoring import Question, Scores, echoed
from enginebench.runner.quality.probe import check_scores
from enginebench.runtime.posting import NotAnswered

TEXT = tuple(5 + zlib.crc32(b"%d" % i) % 40 for i in range(64))
WORDS = 60


def natural(before: Sequence[int]) -> list[float]:
    """A model: logarithms of probabilities that add up to 1 and depend on the last two tokens."""
    logits = [zlib.crc32(repr((tuple(before[-2:]), token)).encode()) % 1000 / 120 for token in range(WORDS)]
    total = math.log(sum(map(math.exp, logits)))
    return [each - total for each in logits]


Server = Callable[[Question], Scores]


def server(shift: int = 0, scale: float = 1.0, constant: float | None = None, tops: bool = True) -> Server:
    """shift: 1 returns the values of the next token, -1 those of the one before. scale: of the logarithms."""

    def ask(question: Question) -> Scores:
        own, top = [], []
        for place in range(question.first, len(question.ids)):
            at = min(max(1, place + shift), len(question.ids) - 1)
            found = natural(question.ids[:at])
            own.append(constant if constant is not None else scale * found[question.ids[at]])
            best = sorted(range(WORDS), key=lambda token: -found[token])[: question.top]
            top.append({token: scale * found[token] for token in best})
        return Scores(tuple(own), tuple(top) if tops and question.top else ())

    return ask


@pytest.mark.parametrize("tops", [True, False])
def test_an_honest_server_is_believed(tops: bool) -> None:
    check_scores(server(tops=tops), "m", TEXT)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (server(shift=1), "depends on one that comes 1 place later"),
        (server(shift=2), "place"),
        (server(shift=-1), "does not depend on the token"),
        (server(constant=-2.0), "does not depend on the token"),
        (server(constant=0.0), "does not depend on the token"),
        (server(scale=1 / math.log(10)), "these are no natural logarithms"),
    ],
)
def test_a_wrong_one_is_named(wrong: Server, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_scores(wrong, "m", TEXT)


def test_a_server_that_does_not_return_the_most_probable_tokens_is_asked_without_them() -> None:
    def without(question: Question) -> Scores:
        if question.top:
            raise NotAnswered("logprobs must be at most 0")
        return server()(question)

    def refusing(_: Question) -> Scores:
        raise NotAnswered("no")

    check_scores(without, "m", TEXT)
    with pytest.raises(NotAnswered):
        check_scores(refusing, "m", TEXT)


def test_values_that_vary_with_the_arithmetic_are_no_fault() -> None:
    """A batch of another size, or a cached prefix, changes values of 16 bits a little."""
    calls = []

    def noisy(question: Question) -> Scores:
        calls.append(question)
        found = server()(question)
        return Scores(tuple(value + 0.05 * (-1) ** len(calls) for value in found.logprobs), found.top)

    check_scores(noisy, "m", TEXT)


def test_values_that_are_no_numbers_are_left_to_the_count() -> None:
    check_scores(server(constant=math.nan), "m", TEXT)


def test_a_text_of_one_token_over_and_over_is_asked_with_another() -> None:
    check_scores(server(), "m", (7,) * 30)


def reply(logprobs: list[float | None], tops: object = None) -> dict[str, object]:
    return {"choices": [{"logprobs": {"token_logprobs": logprobs, "top_logprobs": tops}}]}


def test_an_echo_that_scores_the_first_token_is_shifted() -> None:
    asked = Question("m", (5, 6, 7, 8), first=2, top=0)
    read = echoed().read
    assert read(asked, [reply([None, -1.0, -2.0, -4.0])]).logprobs == (-2.0, -4.0)
    with pytest.raises(ValueError, match="scores the first token"):
        read(asked, [reply([-1.0, -2.0, -4.0, -1.0])])
    tops: list[object] = [None, {" a": -0.1}, {" b": -0.3, " c": -0.5}, {" d": -0.2}]
    assert read(asked, [reply([None, -1.0, -2.0, -4.0], tops)]).listed == ((-0.3, -0.5), (-0.2,))


@pytest.mark.parametrize("answer", [{"choices": [{"prompt_logprobs": None}]}, {"choices": [{}]}])
def test_a_server_without_log_probabilities_of_the_prompt_is_named(answer: dict[str, object]) -> None:
    from enginebench.dialects.scoring import prompt_logprobs

    with pytest.raises(ValueError, match="no log-probabilities of the prompt"):
        prompt_logprobs().read(Question("m", (1, 2), 1), [answer])
