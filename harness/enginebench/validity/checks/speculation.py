"""Does speculative decoding say something about the engine: are the prompts such that acceptance means anything, and was it as asked?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from enginebench.domain.formatting import percent
from enginebench.metrics.speculation import Drafted, drafted
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.context import Context, Requirement

if TYPE_CHECKING:
    from enginebench.domain import Speculation

FORCED_OFF = Threshold(0.05, "share")
FEWEST_STEPS = Threshold(100, "steps")


def _asked(cell: Context) -> Speculation | None:
    return cell.record.deployment.speculation


def _drafted(cell: Context) -> Drafted | None:
    return drafted(cell.record, cell.samples)


COUNTED = Requirement(
    "count of proposed tokens",
    lambda cell: _asked(cell) is None or "draft_tokens" in cell.record.counters.totals or _drafted(cell) is not None,
)


def _forced_length(cell: Context) -> float | None:
    asked = _asked(cell)
    return asked.forced_length if asked is not None else None


STEPS = Requirement(
    f"count of at least {FEWEST_STEPS:g} steps with proposed tokens",
    lambda cell: _forced_length(cell) is None or ((its := _drafted(cell)) is not None and (its.steps or 0) >= FEWEST_STEPS),
)


@check(
    meaning="the acceptance, and with it the speed, is not that of real text",
    when={"suspect": "the deployment speculates, nothing forces its acceptance, and its prompts or its weights are random"},
    advice="write `prompts: text` or a data set, or force an `acceptance` under `speculation`",
)
def random_acceptance(cell: Context) -> Iterator[Finding]:
    """After random tokens a model continues unlike after text: it repeats itself, so that n-gram lookup and small drafters hit too often,
    or it rambles, so that they miss. Random weights agree with nothing but themselves.
    """
    found, kind = _drafted(cell), "random weights" if cell.record.traits.random_weights else "random prompts"
    if _forced_length(cell) is not None or (_asked(cell) is None and found is None):
        return
    if cell.load.prompts == "random" or cell.record.traits.random_weights:
        rate = f", and {percent(found.rate)} of the proposed tokens were accepted" if found is not None else ""
        yield Finding("suspect", f"speculation on {kind}{rate}")


@check(
    meaning="the deployment is said to speculate, and did not",
    when={"suspect": "the deployment asks for `speculation`, the engine counts proposed tokens, and counted none"},
    advice="ngram needs text that repeats itself; else see the engine's log in the run's logs/",
    needs=(COUNTED,),
)
def never_speculated(cell: Context) -> Iterator[Finding]:
    """The figures are then those of plain decoding, with the cost of looking for proposals."""
    asked = _asked(cell)
    if asked is not None and _drafted(cell) is None:
        yield Finding(
            "suspect",
            f"speculation by {cell.record.deployment.speculation and cell.record.deployment.speculation.method}: 0 proposed tokens",
        )


@check(
    meaning="the acceptance is not the forced one, so engines are not compared at equal luck",
    when={"suspect": "over at least {FEWEST_STEPS} the acceptance length is off the forced one by over {FORCED_OFF}"},
    advice="see whether this version of the engine forces it, or leave `acceptance` out",
    needs=(STEPS,),
)
def acceptance_off(cell: Context) -> Iterator[Finding]:
    """The forced length is 1 + a + a^2 + ... + a^tokens for an `acceptance` of a."""
    found, forced = _drafted(cell), _forced_length(cell)
    length = found.length if found is not None else None
    if length is not None and forced is not None and abs(length / forced - 1) > FORCED_OFF:
        detail = f"steps yielded {length:.3g} tokens, {forced:.3g} were forced (limit {FORCED_OFF})"
        yield Finding("suspect", detail, excess=abs(length / forced - 1))
