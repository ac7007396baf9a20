"""What a tuning tries next: the default, then each value of each option on top of the best so far, then what Optuna's TPE samples.

The pass over the options finds what matters while trials are few, which is all that a small budget has; the sampler (tree-structured Parzen
estimator; Bergstra et al. 2011) then tries combinations. A proposal depends on the trials before it and on a seed, and on nothing else, so
an interrupted tuning goes on as if it had not been.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginebench.errors import UserError
from enginebench.runner.tuning.space import Candidate, Space

if TYPE_CHECKING:
    import optuna

_TRIES = 60
"""Samples of TPE that may be candidates tried before, or refused; then one is drawn at random."""


@dataclass(frozen=True)
class Tried:
    """A candidate and what came of it."""

    candidate: Candidate
    score: float | None
    """Higher is better; None: it failed."""


def need_optuna() -> None:
    """UserError where the optional package is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("bench tune needs Optuna", advice="pip install 'enginebench[tune]'") from None


def propose(space: Space, tried: Sequence[Tried], seed: int) -> Candidate | None:
    """The next candidate; None: all have been tried."""
    seen = {each.candidate for each in tried}
    if space.default not in seen:
        return space.default
    if (change := _next_change(space, tried)) is not None:
        return change
    if len(seen) >= space.size:
        return None
    return _sampled(space, tried, seen, seed) or _drawn(space, seen, seed + len(tried))


def _next_change(space: Space, tried: Sequence[Tried]) -> Candidate | None:
    """The first value of an option that was in no trial yet, with everything else as in the best trial."""
    known = [each for each in tried if each.score is not None]
    if not known:
        return None
    best = max(known, key=lambda each: each.score or 0.0).candidate
    seen = {each.candidate for each in tried}
    for place, size in enumerate(space.sizes):
        used = {each.candidate[place] for each in tried}
        for value in range(size):
            for start in (best, space.default):  # what the best has may exclude the value
                candidate = (*start[:place], value, *start[place + 1 :])
                if value not in used and candidate not in seen and not space.refusal(candidate):
                    return candidate
    return None


def _sampled(space: Space, tried: Sequence[Tried], seen: set[Candidate], seed: int) -> Candidate | None:
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
    for _ in range(_TRIES):
        trial = study.ask(spread)
        candidate = tuple(int(trial.params[name]) for name in names)
        if candidate not in seen and not space.refusal(candidate):
            return candidate
    return None


def _drawn(space: Space, seen: set[Candidate], seed: int) -> Candidate | None:
    """Any candidate that can run; of a small space certainly one, if there is one."""
    rng = random.Random(seed)  # noqa: S311  # no secret
    for _ in range(20 * _TRIES):
        candidate = tuple(rng.randrange(size) for size in space.sizes)
        if candidate not in seen and not space.refusal(candidate):
            return candidate
    if space.count() is None:
        return None
    return next((each for each in space.all() if each not in seen and not space.refusal(each)), None)
