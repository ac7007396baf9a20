"""A run of `bench tune` as data: every restart with its score, the default and the tuned rows on fresh restarts, and what mattered. Pure.

The score of a restart is the mean over the scenario's loads of the logarithm of the goal's figure, so a difference is a ratio. The gain is
computed from restarts with the scenario's own loads only. These are measured when the search has ended, so the luck by which a candidate
became the leader is not in them (no winner's curse).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.cell_result import CellResult
from enginebench.analysis.launch_command import launch_command
from enginebench.domain import JSON, Deployment, Load, Parallelism
from enginebench.domain.ids import canonical, short_hash, text_of
from enginebench.domain.repeats import AutoRepeats
from enginebench.domain.tuning import DEGREES
from enginebench.metrics.equivalence import equal_within
from enginebench.metrics.registry import find
from enginebench.metrics.statistics import Change, Estimate, change, estimate

_SLOWED = {"client_bound", "crowded_machine", "foreign_load"}
"""Checks that make a cell invalid because it is too slow, which it may be for every candidate alike."""
STAGES = 2
"""Of a search."""
_RIDGE = 0.05
"""Trials that count for 'no effect' when effects are fitted."""


@dataclass(frozen=True)
class Spec:
    """What a tuning was asked for, as the record of its run has it."""

    figure: str
    higher: bool
    budget_s: float
    """Engine time for each deployment."""
    bases: tuple[Deployment, ...]
    """The deployments of the scenario."""
    names: tuple[tuple[str, ...], ...]
    """For each of them, what is tuned."""
    loads: tuple[tuple[str, ...], ...]
    """For each of them, `load_key` of the scenario's own loads."""
    seed: int = 0

    def place(self, deployment: Deployment) -> int | None:
        """Which of the bases a deployment is a variant of."""
        return next((i for i, base in enumerate(self.bases) if text_of(self._reset(deployment, i)) == text_of(base)), None)

    def settings(self, deployment: Deployment, place: int) -> dict[str, JSON]:
        """What a variant changes."""
        base, names = self.bases[place], self.names[place]
        options = {name: deployment.options[name] for name in names if name in deployment.options}
        spread = {name: getattr(deployment.parallelism, name) for name in names if name in DEGREES}
        return options | {name: value for name, value in spread.items() if value != getattr(base.parallelism, name)}

    def _reset(self, deployment: Deployment, place: int) -> Deployment:
        names = self.names[place]
        options = {name: value for name, value in deployment.options.items() if name not in names}
        spread: dict[str, int] = {name: getattr(Parallelism(), name) for name in names if name in DEGREES}
        return replace(deployment, options=options, parallelism=replace(deployment.parallelism, **spread))


def load_key(load: Load) -> str:
    return short_hash(text_of(load))


def spec_of(stored: Mapping[str, JSON]) -> Spec | None:
    """From the `scenario` of a run's record; None: it is no tuning."""
    its = stored.get("tune")
    if not isinstance(its, dict):
        return None
    from pydantic import TypeAdapter  # only here: reports of other runs do without

    return TypeAdapter(Spec).validate_python(its)


@dataclass(frozen=True)
class Restart:
    """One server start of a tuning with all its loads."""

    deployment: Deployment
    repeat: int
    fresh: bool
    """Whether its loads are those of the scenario."""
    score: float | None
    """None: a cell failed, or has no such figure."""
    start_s: float
    cells_s: float
    complete: bool
    """Whether every load is stored."""

    @property
    def stage(self) -> int:
        """Of the search, 0: the screening, with half as long cells. 1: the race. Its restarts are numbered 0, 2, 4, ... and 1, 3, 5, ..."""
        return self.repeat % STAGES


def restarts_of(analysis: Analysis, spec: Spec) -> list[list[Restart]]:
    """For each base its restarts, in the order in which they were planned."""
    groups: dict[tuple[str, int, bool], list[CellResult]] = {}
    own = {key for its in spec.loads for key in its}
    for row in analysis.rows:
        for cell in row.cells:
            key = text_of(cell.record.deployment), cell.record.repeat, load_key(cell.record.load) in own
            groups.setdefault(key, []).append(cell)
    order = {cell: i for i, cell in enumerate(analysis.run.cells)}
    out: list[list[Restart]] = [[] for _ in spec.bases]
    for (_, repeat, fresh), cells in sorted(groups.items(), key=lambda item: min(order[cell.record.id] for cell in item[1])):
        deployment = cells[0].record.deployment
        place = spec.place(deployment)
        if place is not None:
            its = _restart(analysis, spec, deployment, repeat, cells, fresh=fresh)
            out[place].append(replace(its, complete=len({cell.record.id for cell in cells}) >= len(spec.loads[place])))
    return out


def _restart(
    analysis: Analysis, spec: Spec, deployment: Deployment, repeat: int, cells: Sequence[CellResult], *, fresh: bool
) -> Restart:  # fmt: skip
    records = {cell.record.id: cell.record for cell in cells}
    launches = {record.launch_id for record in records.values()}
    startups = [analysis.launches[name].startup for name in launches if name in analysis.launches]
    start_s = sum((its.start_s or 0.0) + (its.first_generation_s or 0.0) + (its.stop_s or 0.0) for its in startups)
    logs = [_logarithm(cell, spec) for cell in cells]
    score = sum(its for its in logs if its is not None) / len(logs) if None not in logs else None
    cells_s = sum(record.wall_s or 0.0 for record in records.values())
    return Restart(deployment, repeat, fresh, score, start_s, cells_s, complete=True)


def _logarithm(cell: CellResult, spec: Spec) -> float | None:
    value = cell.figures.get(spec.figure)
    doubts = {reason.check.id for reason in cell.reasons if reason.severity == "invalid"}
    if not cell.ran or value is None or value <= 0 or not doubts <= _SLOWED:
        return None
    return math.log(value) if spec.higher else -math.log(value)


@dataclass(frozen=True)
class Effect:
    """What an option did, all else alike."""

    name: str
    best: JSON
    """Its best value; None: as it was."""
    gain: float
    """Of its best value over its worst: 0.3 is 30 %. What mattered most comes first."""


@dataclass(frozen=True)
class Tuned:
    """The outcome for one deployment of the scenario."""

    base: Deployment
    settings: Mapping[str, JSON]
    """What the best candidate changes; empty: nothing else worked, or the search has not ended."""
    default: Estimate | None
    """The goal's figure over the fresh restarts, the geometric mean over the loads."""
    tuned: Estimate | None
    gain: Change | None
    """Of the tuned over the default: more of the figure, or less where less is better."""
    verdict: str
    """'better', 'equal', 'worse', 'not told apart', 'no change found', 'not finished'."""
    candidates: int
    restarts: int
    failed: int
    """Restarts without a score."""
    spent_s: float
    effects: tuple[Effect, ...]
    command: str = field(default="", repr=False)
    """That starts the tuned server."""


def tuned_of(analysis: Analysis) -> list[Tuned]:
    """For each deployment of the scenario of a tuning; [] for any other run."""
    spec = spec_of(analysis.run.scenario)
    if spec is None:
        return []
    return [_tuned(analysis, spec, place, its) for place, its in enumerate(restarts_of(analysis, spec))]


def _tuned(analysis: Analysis, spec: Spec, place: int, restarts: Sequence[Restart]) -> Tuned:
    base = spec.bases[place]
    by_text: dict[str, list[Restart]] = {}
    for each in restarts:
        if each.fresh:
            by_text.setdefault(text_of(each.deployment), []).append(each)
    before = by_text.pop(text_of(base), [])
    after = next(iter(by_text.values()), [])
    leader = after[0].deployment if after else None
    compared = compared_with(before, after, spec)
    rows = [row for row in analysis.rows if leader is not None and text_of(row.deployment) == text_of(leader)]
    command = next((found for row in rows if (found := launch_command(row, analysis.launches))), "")
    return Tuned(
        base, spec.settings(leader, place) if leader is not None else {}, compared.default, compared.tuned, compared.gain, compared.verdict,
        len({text_of(each.deployment) for each in restarts}), len(restarts), sum(each.score is None for each in restarts),
        sum(each.start_s + each.cells_s for each in restarts), tuple(effects(restarts, spec, place)), command,
    )  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """The default and the leader on fresh restarts."""

    default: Estimate | None
    tuned: Estimate | None
    gain: Change | None
    verdict: str
    decided: bool


def compared_with(before: Sequence[Restart], after: Sequence[Restart], spec: Spec) -> Compared:
    """At the error of the look that they reach: looks are those of `repeats: auto`."""
    sign = 1 if spec.higher else -1
    figures = [estimate([math.exp(sign * each.score) if each.score is not None else None for each in its]) for its in (before, after)]
    default, tuned = figures
    if default is None or tuned is None:
        why = "not finished" if not after else "the tuned server failed" if tuned is None else "the default failed"
        return Compared(default, tuned, None, why, decided=bool(before and after))
    auto = AutoRepeats()
    reached = min(len(before), len(after))
    look = sum(number < reached for number in auto.looks[:-1])
    error = auto.errors[look]
    its = change(tuned, default, error)
    found = find(spec.figure)
    margin = found[0].equal_within if found else 0.03
    if equal_within(tuned, default, margin, 1 - 2 * error):
        return Compared(default, tuned, its, "equal", decided=True)
    if its.order != "higher":
        return Compared(default, tuned, its, "not told apart", decided=False)
    return Compared(default, tuned, its, "better" if its.falls is not spec.higher else "worse", decided=True)


def effects(restarts: Sequence[Restart], spec: Spec, place: int) -> list[Effect]:
    """An additive model of the scores of the search, least squares with every effect drawn to 0: one number per value of an option."""
    known = [each for each in restarts if each.score is not None and not each.fresh]
    settings = [spec.settings(each.deployment, place) for each in known]
    columns = [(name, value) for name in spec.names[place] for value in _values(name, settings)]
    stages = sorted({each.stage for each in known})
    if len(known) < 3 or not columns:
        return []
    table = np.array([[float(_same(its.get(name), value)) for name, value in columns] for its in settings])
    levels = np.array([[float(each.stage == stage) for stage in stages] for each in known])
    scores = np.array([each.score for each in known], dtype=float)
    left = np.hstack([table, levels])
    penalty = np.diag([_RIDGE] * len(columns) + [1e-9] * len(stages))
    fitted = np.linalg.solve(left.T @ left + penalty, left.T @ scores)
    found = []
    for name in dict.fromkeys(name for name, _ in columns):
        its: list[tuple[float, JSON]] = [(float(fitted[i]), value) for i, (other, value) in enumerate(columns) if other == name]
        best, worst = max(its, key=lambda each: each[0]), min(its, key=lambda each: each[0])
        found.append(Effect(name, best[1], math.exp(best[0] - worst[0]) - 1))
    return sorted(found, key=lambda each: -each.gain)


def _values(name: str, settings: Sequence[Mapping[str, JSON]]) -> list[JSON]:
    """The values of an option in the trials, None where it is as it was; [] where it never changed."""
    out: list[JSON] = []
    for its in settings:
        if not any(_same(its.get(name), value) for value in out):
            out.append(its.get(name))
    return out if len(out) > 1 else []


def _same(one: JSON, other: JSON) -> bool:
    return type(one) is type(other) and one == other


def stored_spec(spec: Spec) -> dict[str, JSON]:
    """For the record of a run."""
    return {
        "tune": {
            "figure": spec.figure, "higher": spec.higher, "budget_s": spec.budget_s, "seed": spec.seed,
            "loads": [list(its) for its in spec.loads],
            "names": [list(its) for its in spec.names], "bases": [canonical(base) for base in spec.bases],
        }
    }  # fmt: skip
