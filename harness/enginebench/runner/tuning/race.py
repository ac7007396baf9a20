"""The race of a tuning: many candidates in short cells, then the best ones again and again, each time with half of them left out.

Every measurement is a restart. First candidates are screened with short cells (rung 0) until about half of the time for searching is spent;
then the leaders run longer cells (rung 1, 2, ...), the better half goes on, and the last one left is the leader (successive
halving; Jamieson and Talwalkar 2016). What is next depends on the measurements alone. Knows neither engines nor clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from enginebench.runner.tuning.estimates import estimates
from enginebench.runner.tuning.proposals import Tried, propose
from enginebench.runner.tuning.space import Candidate, Space

LENGTHS = (0.25, 0.5)
"""Length of the cells of rung 0 and of all later rungs, as a share of the scenario's."""
SCREENING = 0.45
"""Share of the time for searching in which candidates are screened; more leaves the leaders too few restarts to be told apart."""
_LEADERS = 1 / 3
_MOST_LEADERS = 8
FRESH_RESTARTS = 4
"""Restarts of the default and of the leader with the scenario's own loads that time is kept for."""
_LEAST_SEARCH = 0.5
"""Of the budget, whatever the fresh restarts would take."""


@dataclass(frozen=True)
class Measured:
    """One restart of a candidate in a race."""

    candidate: Candidate
    rung: int
    score: float | None
    """Higher is better: a logarithm, so differences are ratios. None: it failed."""
    start_s: float
    cells_s: float

    @property
    def length(self) -> float:
        """Of its cells, as a share of the scenario's."""
        return LENGTHS[min(self.rung, 1)]

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

    def next(self, history: Sequence[Measured]) -> tuple[Candidate, int] | None:
        """The candidate to measure next and its rung; None: the race is over."""
        spent, limit = sum(each.cost_s for each in history), self.search_s(history)
        screened = [each for each in history if each.rung == 0]
        if len(screened) == len(history) and (not history or spent < SCREENING * limit):
            found = propose(self.space, [Tried(each.candidate, each.score) for each in screened], self.seed)
            if found is not None:
                return found, 0
        if spent >= limit:
            return None
        runners = self._leaders(screened)
        rung = 1
        while len(runners) > 1:
            done = {each.candidate for each in history if each.rung == rung}
            if (left := next((each for each in runners if each not in done), None)) is not None:
                return left, rung
            runners = self._ranked(runners, [each for each in history if each.rung <= rung])[: max(1, len(runners) // 2)]
            rung += 1
        return None

    def leader(self, history: Sequence[Measured]) -> Candidate | None:
        """The best candidate that is not the default, among those that got farthest; None: none other than it worked."""
        farthest: dict[Candidate, int] = {}
        for each in history:
            if each.score is not None and any(each.candidate):
                farthest[each.candidate] = max(each.rung, farthest.get(each.candidate, 0))
        if not farthest:
            return None
        last = max(farthest.values())
        return self._ranked([candidate for candidate, rung in farthest.items() if rung == last], history)[0]

    def _leaders(self, screened: Sequence[Measured]) -> list[Candidate]:
        worked = list(dict.fromkeys(each.candidate for each in screened if each.score is not None))
        return self._ranked(worked, screened)[: min(_MOST_LEADERS, max(2, round(_LEADERS * len(worked))))]

    def _ranked(self, runners: Sequence[Candidate], history: Sequence[Measured]) -> list[Candidate]:
        """The best first; one that failed comes last."""
        known = estimates(self.space.sizes, history)
        return sorted(runners, key=lambda candidate: -known.get(candidate, float("-inf")))

    def search_s(self, history: Sequence[Measured]) -> float:
        """What of the budget the race may take: all but the fresh restarts, as long as these leave half of it."""
        if not history:
            return self.budget_s
        return max(_LEAST_SEARCH * self.budget_s, self.budget_s - 2 * FRESH_RESTARTS * full_cost(history))


def full_cost(history: Sequence[Measured]) -> float:
    """A restart with the scenario's own loads, from the shorter ones."""
    starts = fmean(each.start_s for each in history)
    return starts + fmean(each.cells_s / each.length for each in history)
