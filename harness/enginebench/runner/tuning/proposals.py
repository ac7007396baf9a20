"""What the screening of a tuning measures next: the default, each value of each option on top of the best so far, then the most promising
candidate of those that Optuna's TPE samples and of those measured already.

The pass over the options finds what matters while trials are few, which is all that a small budget has; the sampler (tree-structured Parzen
estimator; Bergstra et al. 2011) then finds combinations. A candidate promises what it is expected to reach and, in addition, by how much
that may be wrong (an upper confidence bound), so what is uncertain is measured, or measured again. A proposal depends on the trials before
it and on a seed, and on nothing else, so an interrupted tuning goes on as if it had not been.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from enginebench.errors import UserError
from enginebench.runner.tuning.estimates import Seen, estimates
from enginebench.runner.tuning.space import Candidate, Space

if TYPE_CHECKING:
    import optuna

_SAMPLES, _DRAWN = 6, 48
"""Of TPE, and at random, for one proposal."""


def need_optuna() -> None:
    """UserError where the optional package is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("bench tune needs Optuna", advice="pip install 'enginebench[tune]'") from None


def propose(space: Space, tried: Sequence[Seen], seed: int) -> Candidate | None:
    """The next candidate, which may have been tried before; None: none works."""
    if all(each.candidate != space.default for each in tried):
        return space.default
    if (change := _next_change(space, tried)) is not None:
        return change
    expected = estimates(tried, sampled(space, tried, seed))
    return max(expected, key=lambda each: expected[each].mean + expected[each].deviation, default=None)


def _next_change(space: Space, tried: Sequence[Seen]) -> Candidate | None:
    """The first value of an option that was in no trial yet, with everything else as in the best trial."""
    expected = estimates(tried)
    best = max(expected, key=lambda each: expected[each].mean, default=space.default)
    seen = {each.candidate for each in tried}
    for place, size in enumerate(space.sizes):
        used = {each.candidate[place] for each in tried}
        for value in range(size):
            for start in (best, space.default):  # what the best has may exclude the value
                candidate = (*start[:place], value, *start[place + 1 :])
                if value not in used and candidate not in seen and not space.refusal(candidate):
                    return candidate
    return None


def sampled(space: Space, tried: Sequence[Seen], seed: int) -> list[Candidate]:
    """Candidates that can run, as TPE samples them after these trials, and others at random: a model of few trials is narrow."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spread: dict[str, optuna.distributions.BaseDistribution] = {
        each.name: optuna.distributions.CategoricalDistribution(tuple(range(size)))
        for each, size in zip(space.tunables, space.sizes, strict=True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed + len(tried), multivariate=True, n_startup_trials=1)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    names = [each.name for each in space.tunables]
    study.add_trials(
        optuna.trial.create_trial(params=dict(zip(names, each.candidate, strict=True)), distributions=spread, value=each.score)
        for each in tried
        if each.score is not None
    )
    asked = [study.ask(spread).params for _ in range(_SAMPLES)]
    rng = random.Random(seed + len(tried))  # noqa: S311  # no secret
    drawn = [tuple(rng.randrange(size) for size in space.sizes) for _ in range(_DRAWN)]
    found = dict.fromkeys([*(tuple(int(each[name]) for name in names) for each in asked), *drawn])
    return [each for each in found if not space.refusal(each)]
