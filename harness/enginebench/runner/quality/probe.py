"""Are the log-probabilities that an engine returns those of the tokens it was given? Two short questions that differ in their last one.

The probability of a token depends on that token and on those before it, and on nothing after it. So another last token changes the last
value and no other. That holds for every model and engine, and shows a server that returns values of the neighbouring tokens, constants, or
something that it computed before. Probabilities of different tokens in one place add up to 1 at most, which logarithms to base 10 do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from enginebench.dialects.scoring import Question, Scores
from enginebench.domain.formatting import counted
from enginebench.runtime.posting import NotAnswered

TOKENS = 24
"""Of a question, at most."""
TOP = 5
_SLACK, _SHARE = 0.2, 0.05
"""By how much a value may change from one request to the next, in nats and as a share: engines compute in 16 bits, and cache prefixes."""
_ABOVE = 0.02
"""By how much probabilities may add up to more than 1, for the same reason."""
_OFTEN = 0.1
"""In more than this share of the places."""


def check_scores(ask: Callable[[Question], Scores], model: str | None, ids: Sequence[int]) -> None:
    """ValueError with the reason if the values cannot be believed. ids: of a window of the text."""
    length = min(TOKENS, len(ids))
    question = Question(model, tuple(ids[:length]), max(1, length // 2), TOP)
    first, others = _asked(ask, question), list(_others(ids, question.ids[-1]))
    check_sums(first)
    if not all(map(math.isfinite, first.logprobs)):
        return  # such values are counted where the text is scored
    same = True
    for token in others:
        second = _asked(ask, replace(question, ids=(*question.ids[:-1], token), top=0))
        if not all(map(math.isfinite, second.logprobs)):
            return
        moved = [i for i, (a, b) in enumerate(zip(first.logprobs[:-1], second.logprobs[:-1], strict=True)) if not _near(a, b)]
        if moved:
            before = len(first.logprobs) - 1 - moved[0]
            raise ValueError(f"the value of a token depends on one that comes {counted(before, 'place')} later: it is not that token's")
        same = same and first.logprobs[-1] == second.logprobs[-1]
    if same and others:
        raise ValueError("the value of a token does not depend on the token: these are not its log-probabilities")


def check_sums(scores: Scores) -> None:
    """ValueError if probabilities of different tokens in one place add up to more than 1 too often."""
    sums = [math.fsum(math.exp(min(value, 1.0)) for value in its if math.isfinite(value)) for its in scores.listed]
    if sum(each > 1 + _ABOVE for each in sums) > _OFTEN * len(sums):
        worst = f"{max(sums):.3g}"
        raise ValueError(f"the most probable tokens of a place have probabilities that add up to {worst}: these are no natural logarithms")


def _asked(ask: Callable[[Question], Scores], question: Question) -> Scores:
    """Without the most probable tokens where the engine does not return them."""
    try:
        return ask(question)
    except (NotAnswered, ValueError):
        if not question.top:
            raise
        return ask(replace(question, top=0))


def _others(ids: Sequence[int], last: int) -> Iterator[int]:
    """Two other tokens of the text: with one, equal values may be chance."""
    found = list(dict.fromkeys(token for token in reversed(ids) if token != last))
    yield from found[:2] or [last + 1 if last == 0 else last - 1]


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= _SLACK + _SHARE * max(abs(a), abs(b))
