"""A search for the heaviest load that meets the SLO, as plain data: one load, and how its level may vary.

Knows no cell and no engine, and does not decide which level comes next; `enginebench.scenario.bisection` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

from enginebench.domain import Load
from enginebench.scenario.bisection import Search, most_probes
from enginebench.scenario.defaults import default_requests, default_warmup

Follower: TypeAlias = Literal["requests", "warmup_requests"]
FOLLOWS: tuple[Follower, ...] = ("requests", "warmup_requests")
"""What goes with the level of a load where the scenario does not say it."""


@dataclass(frozen=True)
class LoadSearch:
    """The highest level of a load, between `start` and `stop`, that meets the SLO, to within a factor of 1 + precision.

    base: the load at `start`. follows: the fields that go with the level, because the scenario does not say them. least: of
    requests, where their number follows.
    """

    base: Load
    over: Literal["rate", "concurrency"]
    start: float
    stop: float
    precision: float
    follows: tuple[Follower, ...] = ()
    least: int = 0

    @cached_property
    def most(self) -> int:
        """The number of cells that it takes at most."""
        return most_probes(self.begin())

    def begin(self) -> Search:
        """The search before its first answer."""
        return Search(self.start, self.stop, self.precision, whole=self.over == "concurrency")

    def load(self, level: float) -> Load:
        """The load at a level."""
        load = replace(self.base, concurrency=int(level)) if self.over == "concurrency" else replace(self.base, rate=float(level))
        if "requests" in self.follows:
            load = replace(load, requests=default_requests(load, self.least))
        return replace(load, warmup_requests=default_warmup(load)) if "warmup_requests" in self.follows else load

    @property
    def heaviest(self) -> Load:
        """The load at `stop`: what a server must be able to take."""
        return self.load(self.stop)
