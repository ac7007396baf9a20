"""How many of the tokens that speculative decoding proposed were accepted: over all, for each step, and at each position of a step."""

from __future__ import annotations

from collections.abc import Callable

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.registry import Metric, Shown, metric, one
from enginebench.metrics.speculation import drafted

SHOWN_POSITIONS = 8
"""Positions with a figure of their own; few deployments propose more tokens per step."""
_MISSING = "the engine counts no proposed tokens, or did not speculate"


@metric("acceptance rate", header="accepted", scope="cell", unit="1", better="higher", missing=_MISSING, shown=(Shown(52, 13),))
def acceptance_rate(c: Context) -> Floats:
    """Acceptance rate: proposed tokens that the model accepted / proposed tokens, over the load.

    It falls with `tokens` for one and the same drafter, since a token can be accepted only if all before it were; compare
    `acceptance_length`, or the rate at one position.
    """
    found = drafted(c.record, c.samples)
    return one(found.rate if found is not None else None)


@metric("acceptance length", header="tokens/step", scope="cell", unit="tok", better="higher", missing=_MISSING, shown=(Shown(51, 12),))
def acceptance_length(c: Context) -> Floats:
    """Acceptance length: 1 + accepted tokens / steps with a proposal, over the load: what such a step yields, with the model's own token.

    This is the mean acceptance length of vLLM and SGLang. At most 1 + `tokens`. Steps without a proposal (n-gram speculation finds nothing)
    yield one token and do not count.
    """
    found = drafted(c.record, c.samples)
    return one(found.length if found is not None else None)


def _at(position: int) -> Metric:
    def acceptance(c: Context) -> Floats:
        found = drafted(c.record, c.samples)
        accepted = found.at.get(position) if found is not None else None
        return one(accepted / found.steps if found is not None and found.steps and accepted is not None else None)

    acceptance.__name__ = f"acceptance_at_{position}"
    acceptance.__doc__ = (
        f"Acceptance at position {position}: steps that accepted proposed token {position} / steps with a proposal, over the load.\n\n"
        "Such a step accepted all tokens before it, so these shares do not rise; their sum + 1 is `acceptance_length`."
    )
    declare: Callable[[Callable[[Context], Floats]], Metric] = metric(
        f"acceptance at {position}",
        scope="cell",
        unit="1",
        better="higher",
        missing="the engine does not count by position, or did not speculate",
    )
    return declare(acceptance)


BY_POSITION = tuple(_at(position) for position in range(1, SHOWN_POSITIONS + 1))
"""acceptance_at_1, acceptance_at_2, ..."""
