"""A search for the heaviest load that meets the SLO, as plain data: one load, and the range of its level.

Knows no cell and no engine. `enginebench.scenario.bisection` decides which level comes next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

from enginebench.domain import Load
from enginebench.scenario.bisection import Search, most_probes
from enginebench.scenario.defaults import default_requests

Follower: TypeAlias = Literal["requests", "warmup_requests"]
FOLLOWS: tuple[Follower, ...] = ("requests", "warmup_requests")
"""Fields that depend on the level of a load where the scenario does not set them."""


@dataclass(frozen=True)
class LoadSearch:
    """The highest level of a load, between `start` and `stop`, that meets the SLO, to within a factor of 1 + precision."""

    base: Load
    """The load at `start`."""
    over: Literal["rate", "concurrency"]
    start: float
    stop: float
    precision: float
    follows: tuple[Follower, ...] = ()
    """The fields that depend on the level, because the scenario does not set them."""
    least: int = 0
    """Fewest requests, where their number depends on the level."""

    @cached_property
    def most(self) -> int:
        """The largest number of cells that the search can take."""
        return most_probes(self.begin())

    def begin(self) -> Search:
        """The search before its first result."""
        return Search(self.start, self.stop, self.precision, whole=self.over == "concurrency")

    def load(self, level: float) -> Load:
        """The load at a level."""
        load = self.base.at_level(level)
        if "requests" in self.follows:
            load = replace(load, requests=default_requests(load, self.least))
        return replace(load, warmup_requests=load.usual_warmup) if "warmup_requests" in self.follows else load

    @property
    def heaviest(self) -> Load:
        """The load at `stop`, which the server must be able to serve."""
        return self.load(self.stop)
