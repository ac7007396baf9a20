"""A search for the heaviest load that meets the SLO, as plain data: one load, and how its level may vary.

Knows no cell and no engine, and does not decide which level comes next; `enginebench.search` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from enginebench.nouns import Load
from enginebench.scenario.defaults import default_requests, default_warmup
from enginebench.search import Search, most_probes


@dataclass(frozen=True)
class LoadSearch:
    """The highest level of a load, between `start` and `stop`, that meets the SLO, to within a factor of 1 + precision.

    base: the load at `start`. level_requests, level_warmup: whether the number of requests follows the level because the
    scenario does not say it.
    """

    base: Load
    over: Literal["rate", "concurrency"]
    start: float
    stop: float
    precision: float
    level_requests: bool
    level_warmup: bool

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
        if self.level_requests:
            load = replace(load, requests=default_requests(load))
        return replace(load, warmup_requests=default_warmup(load)) if self.level_warmup else load

    @property
    def heaviest(self) -> Load:
        """The load at `stop`: what a server must be able to take."""
        return self.load(self.stop)
