"""A tuning as a run that grows: each round adds the next trial of every deployment, then fresh restarts of the default and the leader.

Deployments take turns, so that a drift of the machine meets all of them, and each has the same budget of engine time. Everything follows
from the stored cells: the same command goes on after an interruption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.analysis.analysis import analyse
from enginebench.analysis.tuning import STAGES, Restart, Spec, compared_with, restarts_of
from enginebench.domain import Cell, Deployment, Load
from enginebench.domain.formatting import duration
from enginebench.domain.ids import text_of
from enginebench.domain.repeats import AutoRepeats
from enginebench.records.run_folder import Run
from enginebench.runner.growth import Added
from enginebench.runner.tuning.race import FRESH_RESTARTS, Measured, Race, full_cost
from enginebench.runner.tuning.shorter import shorter
from enginebench.runner.tuning.space import Candidate


@dataclass(frozen=True)
class Contestant:
    """One deployment of the scenario."""

    race: Race
    loads: tuple[Load, ...]

    def trial(self, candidate: Candidate, stage: int, repeat: int) -> list[Cell]:
        deployment = self.race.space.deployment(candidate)
        return [Cell(deployment, shorter(load, stage), STAGES * repeat + stage) for load in self.loads]

    def fresh(self, deployment: Deployment, repeat: int) -> list[Cell]:
        return [Cell(deployment, load, repeat) for load in self.loads]


@dataclass(frozen=True)
class TuningGrowth:
    spec: Spec
    contestants: tuple[Contestant, ...]

    def more(self, run: Run) -> Added | None:
        known = restarts_of(analyse(run), self.spec)
        steps = [self._next(its, restarts) for its, restarts in zip(self.contestants, known, strict=True)]
        cells = [cell for step, _ in steps for cell in step]
        if not any(not run.has(cell.id) for cell in cells):
            return None
        spent = sum(each.start_s + each.cells_s for its in known for each in its)
        said = "; ".join(dict.fromkeys(text for _, text in steps if text))
        return Added(tuple(cells), f"{said} ({duration(spent)} of {duration(len(known) * self.spec.budget_s)} of engine time used)")

    def _next(self, its: Contestant, restarts: Sequence[Restart]) -> tuple[list[Cell], str]:
        """The next cells of a deployment, and what they are for; none: its tuning has ended."""
        history = measured_of(its, restarts)
        if (found := its.race.next(history)) is not None:
            candidate, stage, repeat = found
            text = f"trial {1 + len(history)}" if stage == 0 else f"race, round {1 + repeat}"
            return its.trial(candidate, stage, repeat), text
        leader = its.race.leader(history)
        if leader is None:
            return [], ""
        return self._fresh(its, restarts, history, leader)

    def _fresh(
        self, its: Contestant, restarts: Sequence[Restart], history: Sequence[Measured], leader: Candidate
    ) -> tuple[list[Cell], str]:  # fmt: skip
        pair = its.race.space.base, its.race.space.deployment(leader)
        before, after = (
            [each for each in restarts if each.fresh and each.complete and text_of(each.deployment) == text_of(one)] for one in pair
        )
        auto = AutoRepeats()
        goals = (FRESH_RESTARTS, *auto.looks[1:])
        done = min(len(before), len(after))
        goal = next((number for number in goals if number > done), None)
        compared = compared_with(before, after, self.spec)
        spent = sum(each.start_s + each.cells_s for each in restarts if each.complete)
        cost = 2 * full_cost(history)
        if goal is None or (done in goals and compared.decided):
            return [], ""
        if done >= 2 and spent + cost > its.race.budget_s:  # two of each are always measured: without them there is no result
            return [], ""
        first, second = pair if done % 2 == 0 else pair[::-1]
        return [*its.fresh(first, done), *its.fresh(second, done)], f"fresh restart {done + 1} of the default and of the leader"


def measured_of(its: Contestant, restarts: Sequence[Restart]) -> list[Measured]:
    """The restarts of a race, without those that were interrupted."""
    space = its.race.space
    places = {text_of(space.deployment(candidate)): candidate for candidate in _candidates(its, restarts)}
    return [
        Measured(places[text_of(each.deployment)], each.stage, each.repeat // STAGES, each.score, each.start_s, each.cells_s)
        for each in restarts
        if not each.fresh and each.complete and text_of(each.deployment) in places
    ]


def _candidates(its: Contestant, restarts: Sequence[Restart]) -> list[Candidate]:
    """The candidates of stored deployments, by their settings."""
    tunables = its.race.space.tunables
    found = []
    for each in restarts:
        values = [
            getattr(each.deployment.parallelism, one.name) if one.is_degree else each.deployment.options.get(one.name) for one in tunables
        ]
        written = [one.is_degree or one.name in each.deployment.options for one in tunables]
        found.append(
            tuple(
                1 + one.values.index(value) if known and value in one.values else 0
                for one, value, known in zip(tunables, values, written, strict=True)
            )
        )
    return found
