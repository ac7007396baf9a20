"""The race of a tuning: many candidates in short cells, then the best ones again and again, each time with half of them left out.

Every measurement is a restart. First candidates are screened with cells of half the length until a good half of the time for searching is
spent; then the leaders, which may be combinations that were not measured yet, run cells of full length, the better half goes on, and the
last one left is the leader (successive halving; Jamieson and Talwalkar 2016). What is next depends on the measurements alone. Knows neither
engines nor clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from enginebench.runner.tuning.estimates import estimates
from enginebench.runner.tuning.proposals import propose, sampled
from enginebench.runner.tuning.space import Candidate, Space

LENGTHS = (0.5, 1.0)
"""Length of the cells of the screening and of the race, as a share of the scenario's."""
SCREENING = 0.6
"""Share of the time for searching in which candidates are screened; more leaves the leaders too few restarts to be told apart."""
_LEADERS = 4
FRESH_RESTARTS = 4
"""Restarts of the default and of the leader with the scenario's own loads that time is kept for."""
_LEAST_SEARCH = 0.5
"""Of the budget, whatever the fresh restarts would take."""


@dataclass(frozen=True)
class Measured:
    """One restart of a candidate in a race."""

    candidate: Candidate
    stage: int
    """0: in the screening. 1: in the race."""
    repeat: int
    """How many restarts of the candidate there were before in this stage."""
    score: float | None
    """Higher is better: a logarithm, so differences are ratios. None: it failed."""
    start_s: float
    cells_s: float

    @property
    def length(self) -> float:
        """Of its cells, as a share of the scenario's."""
        return LENGTHS[self.stage]

    @property
    def cost_s(self) -> float:
        return self.start_s + self.cells_s


@dataclass(frozen=True)
class Race:
    """The race for one deployment."""

    space: Space
    budget_s: float
    """Engine time: of the race and of the fresh restarts after it."""
    seed: int = 0

    def next(self, history: Sequence[Measured]) -> tuple[Candidate, int, int] | None:
        """(the candidate to measure next, its stage, its repeat there); None: the race is over."""
        spent, limit = sum(each.cost_s for each in history), self.search_s(history)
        screened = [each for each in history if each.stage == 0]
        if len(screened) == len(history) and (not history or spent < SCREENING * limit):
            found = propose(self.space, screened, self.seed)
            return None if found is None else (found, 0, sum(each.candidate == found for each in screened))
        if spent >= limit:
            return None
        runners, repeat = self._ranked(screened, sampled(self.space, screened, self.seed))[:_LEADERS], 0
        while len(runners) > 1:
            done = {each.candidate for each in history if each.stage == 1 and each.repeat == repeat}
            if (left := next((each for each in runners if each not in done), None)) is not None:
                return left, 1, repeat
            ranked = self._ranked([each for each in history if each.stage == 0 or each.repeat <= repeat])
            runners = [each for each in ranked if each in runners][: max(1, len(runners) // 2)]
            repeat += 1
        return None

    def leader(self, history: Sequence[Measured]) -> Candidate | None:
        """The best candidate that is not the default; None: none other than it worked."""
        return next((each for each in self._ranked(history) if any(each)), None)

    def _ranked(self, history: Sequence[Measured], others: Sequence[Candidate] = ()) -> list[Candidate]:
        """Those that worked, and others, the best first."""
        known = estimates(history, others)
        return sorted(known, key=lambda candidate: -known[candidate].mean)

    def search_s(self, history: Sequence[Measured]) -> float:
        """What of the budget the race may take: all but the fresh restarts, as long as these leave half of it."""
        if not history:
            return self.budget_s
        return max(_LEAST_SEARCH * self.budget_s, self.budget_s - 2 * FRESH_RESTARTS * full_cost(history))


def full_cost(history: Sequence[Measured]) -> float:
    """A restart with the scenario's own loads, from the shorter ones."""
    starts = fmean(each.start_s for each in history)
    return starts + fmean(each.cells_s / each.length for each in history)
