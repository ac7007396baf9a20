"""The candidates of a tuning: combinations of the options that an adapter declares, without those that it refuses or that do not fit.

A candidate has one number per option: 0 leaves it as the scenario has it, i takes the i-th value. Starts nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from enginebench.adapter import Adapter, Unsupported
from enginebench.domain import JSON, Deployment, Load, Parallelism
from enginebench.domain.tuning import Room, Tunable, with_settings
from enginebench.physics.deployment_limits import MachineLimits

Candidate: TypeAlias = tuple[int, ...]
COUNTED = 20_000
"""A larger space is not counted one by one."""


@dataclass(frozen=True)
class Space:
    """All candidates for one deployment of a scenario."""

    base: Deployment
    loads: tuple[Load, ...]
    adapter: Adapter
    tunables: tuple[Tunable, ...]
    """Without options that the scenario writes, and without values that are the default anyway."""
    bounds: MachineLimits | None = None
    _known: dict[Candidate, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def default(self) -> Candidate:
        return (0,) * len(self.tunables)

    @property
    def size(self) -> int:
        return math.prod(1 + len(each.values) for each in self.tunables)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(1 + len(each.values) for each in self.tunables)

    def settings(self, candidate: Candidate) -> dict[str, JSON]:
        """What it changes: name -> value."""
        return {each.name: each.values[i - 1] for each, i in zip(self.tunables, candidate, strict=True) if i}

    def deployment(self, candidate: Candidate) -> Deployment:
        return with_settings(self.base, self.settings(candidate), self.tunables) if any(candidate) else self.base

    def refusal(self, candidate: Candidate) -> str:
        """Why it cannot run: the adapter refuses it, or it does not fit the memory; '' if nothing is known against it."""
        if candidate not in self._known:
            self._known[candidate] = self._refusal(candidate)
        return self._known[candidate]

    def _refusal(self, candidate: Candidate) -> str:
        deployment = self.deployment(candidate)
        try:
            self.adapter.check(deployment.inside)
            self.adapter.check_loads(deployment.inside, self.loads)
        except Unsupported as reason:
            return str(reason)
        if self.bounds is None:
            return ""
        gpus = self.adapter.traits(deployment).gpus
        return next(iter(self.bounds.refusals(deployment, self.loads, gpus).values()), "")

    def all(self) -> Iterator[Candidate]:
        return itertools.product(*map(range, self.sizes))

    def count(self) -> tuple[int, int] | None:
        """How many candidates can run, and how many cannot; None: too many to be counted."""
        if self.size > COUNTED:
            return None
        able = sum(not self.refusal(each) for each in self.all())
        return able, self.size - able


def space_of(
    base: Deployment, loads: Sequence[Load], adapter: Adapter, room: Room, bounds: MachineLimits | None = None, *, lossy: bool = False
) -> Space:  # fmt: skip
    """lossy: also options that change the output. ValueError for a value that the adapter's own options do not take."""
    declared = adapter.tunables(base, room)
    kept = [each for each in declared if (each.exact or lossy) and not _written(each, base)]
    narrowed = [_narrowed(each, adapter) for each in kept]
    return Space(base, tuple(loads), adapter, tuple(each for each in narrowed if each.values), bounds)


def _written(tunable: Tunable, base: Deployment) -> bool:
    if tunable.is_degree:
        return bool(getattr(base.parallelism, tunable.name) != getattr(Parallelism(), tunable.name))
    return tunable.name in base.options


def _narrowed(tunable: Tunable, adapter: Adapter) -> Tunable:
    values = tuple(value for value in tunable.values if value != tunable.default)
    if not tunable.is_degree:
        for value in values:
            try:
                TypeAdapter(adapter.options).validate_python({tunable.name: value})
            except ValidationError as error:
                raise ValueError(f"{adapter.name} declares {tunable.name}: {value!r}, which its options refuse: {error}") from None
    return Tunable(tunable.name, values, tunable.default, tunable.cost, tunable.exact)
