"""How long a run still takes, from what its launches and cells have taken so far. Pure: the caller says what time it is.

A cell takes about as long as it took in another restart. One that was not measured yet: the time of its load by itself (a stated duration
or rate), else its work times a factor of its deployment and one of its load, which are fitted to the cells that were measured. A launch
takes as long as others of its deployment, else of its engine.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import TypeAlias

from enginebench.domain import Cell, Deployment, Load, Search

Place: TypeAlias = tuple[int, Load]
"""id() of a deployment, whose cells share it, and a load."""
_SHRINK = 0.3
"""Measured cells that count for 'as the others' when a factor is fitted."""
_ROUNDS = 8
_OVERLAP = 0.6
"""By which power of the streams a closed loop is faster, until cells with several numbers of streams were measured."""


@dataclass
class TimeLeft:
    """What is to be done, and what has been seen."""

    todo: Sequence[Cell]
    searches: Mapping[str, Search] = field(default_factory=dict)
    """Id of a cell -> the search that begins with it."""
    expected: Mapping[Place, float] = field(default_factory=dict)
    """Seconds that physics expects of a cell; used if all closed loops have it."""

    def __post_init__(self) -> None:
        self._cells = Counter((id(cell.deployment), cell.load) for cell in self.todo if cell.id not in self.searches)
        self._starts = Counter(deployment for deployment, _ in {(id(cell.deployment), cell.repeat) for cell in self.todo})
        self._open = [(id(cell.deployment), cell.repeat, self.searches[cell.id]) for cell in self.todo if cell.id in self.searches]
        self._engine = {id(cell.deployment): cell.deployment.engine for cell in self.todo}
        self._took: dict[Place, list[float]] = defaultdict(list)
        self._launched: dict[int, list[float]] = defaultdict(list)
        self._by_engine: dict[str, list[float]] = defaultdict(list)  # '': of all
        self._probes: dict[tuple[int, int, Load], list[tuple[float, float]]] = defaultdict(list)
        self._searched: dict[Place, list[float]] = defaultdict(list)
        self._failing: dict[int, float] = {}
        self._paths: dict[Search, tuple[tuple[float, ...], ...]] = {}
        self._mark, self._start, self._cell, self._rest = 0.0, 0.0, 0.0, 0.0
        self._measured, self._overlap, self._factors, self._extra, self._mean = False, _OVERLAP, _Factors(), 0.0, 0.0
        self._number, self._next_fit = 0, 1.0
        priors = {place for place in self._cells if _stated_s(place[1]) is None}
        self._informed = bool(priors) and priors <= self.expected.keys()

    # -- what happens ------------------------------------------------------------------------------------------------------------

    def add(self, cells: Sequence[Cell]) -> None:
        """The run goes on with these."""
        self._cells.update((id(cell.deployment), cell.load) for cell in cells)
        self._starts.update(deployment for deployment, _ in {(id(cell.deployment), cell.repeat) for cell in cells})
        self._engine |= {id(cell.deployment): cell.deployment.engine for cell in cells}
        self._update()

    def launch_started(self, deployment: Deployment, now: float) -> None:
        self._mark, self._start, self._measured = now, 0.0, False
        self._starts[id(deployment)] = max(0, self._starts[id(deployment)] - 1)
        self._update()
        self._cell = self._launch_s(id(deployment))

    def cell_started(self, cell: Cell, now: float) -> None:
        """The first of a launch ends its start."""
        if not self._measured:
            self._start, self._mark, self._measured = now - self._mark, now, True
        place = (id(cell.deployment), cell.load)
        self._cell = min(self._cell_s(place), self._rest)  # it goes on: no longer among the rest
        self._rest -= self._cell

    def cell_ended(self, cell: Cell, now: float, *, measured: bool) -> None:
        place, took = (id(cell.deployment), cell.load), now - self._mark
        if search := self._search_of(cell):
            if measured:
                self._probes[place[0], cell.repeat, search.base].append((cell.load.level, took))
        elif self._cells[place] > 0:
            self._cells[place] -= 1
        if measured:
            self._took[place].append(took)
            self._number += 1
            self._mark, self._cell = now, 0.0
        self._update()

    def launch_ended(self, deployment: Deployment, now: float) -> None:
        key, stop = id(deployment), now - self._mark
        if self._measured:
            for known in (self._launched[key], self._by_engine[self._engine.get(key, "")], self._by_engine[""]):
                known.append(self._start + stop)
            self._failing.pop(key, None)
        else:
            self._failing[key] = stop
        for each in [each for each in self._open if each[0] == key]:
            if took := [seconds for _, seconds in self._probes[key, each[1], each[2].base]]:
                self._open.remove(each)
                self._searched[key, each[2].base].append(sum(took))
        self._mark, self._cell = now, 0.0
        self._update()

    def seconds(self, now: float) -> float | None:
        """Seconds left; None while no cell has been measured. Cheap: called inside a measured window."""
        if not self._took:
            return None
        return max(0.0, self._cell - (now - self._mark)) + self._rest

    # -- what is to be expected --------------------------------------------------------------------------------------------------

    def _update(self) -> None:
        """Everything but what is going on. The factors are fitted again when 2 % more cells have been measured."""
        if self._number >= self._next_fit:
            self._next_fit = 1.02 * self._number + 1
            self._refit()
        rest = sum(count * self._cell_s(place) for place, count in self._cells.items() if count)
        rest += sum(count * self._launch_s(deployment) for deployment, count in self._starts.items() if count)
        self._rest = rest + sum(self._search_s(*each) for each in self._open)

    def _refit(self) -> None:
        means = {place: fmean(took) for place, took in self._took.items()}
        free = {place: mean for place, mean in means.items() if _stated_s(place[1]) is None}
        self._overlap = _fitted_overlap(free)
        self._factors = _fit({place: (mean, self._prior(place)) for place, mean in free.items()})
        extra = [mean - known for place, mean in means.items() if (known := _stated_s(place[1])) is not None]
        self._extra, self._mean = max(0.0, median(extra)) if extra else 0.0, fmean(means.values()) if means else 0.0

    def _cell_s(self, place: Place) -> float:
        if place[0] in self._failing:
            return 0.0
        if took := self._took.get(place):
            return median(took)
        if (stated := _stated_s(place[1])) is not None:
            return stated + self._extra
        return self._prior(place) * self._factors.of(place) if self._factors.known else self._mean

    def _prior(self, place: Place) -> float:
        if self._informed and place in self.expected:
            return self.expected[place]
        return _work(place[1], self._overlap)

    def _launch_s(self, deployment: int) -> float:
        if deployment in self._failing:
            return self._failing[deployment]
        known = self._launched.get(deployment) or self._by_engine.get(self._engine.get(deployment, "")) or self._by_engine.get("")
        return median(known) if known else self._start

    def _search_of(self, cell: Cell) -> Search | None:
        shape = [each for each in self._open if each[0] == id(cell.deployment) and each[1] == cell.repeat]
        return next((its for _, _, its in shape if cell.load.without_level(*its.follows) == its.base.without_level(*its.follows)), None)

    def _search_s(self, deployment: int, repeat: int, search: Search) -> float:
        """Of the probes that a search still needs: as others of its load have taken, else the mean over the ways that it can go."""
        if deployment in self._failing:
            return 0.0
        done = self._probes[deployment, repeat, search.base]
        others = [took for (_, base), its in self._searched.items() if base == search.base for took in its]
        if known := self._searched.get((deployment, search.base)) or others:
            return max(0.0, fmean(known) - sum(seconds for _, seconds in done))
        if search not in self._paths:
            self._paths[search] = search.paths()
        levels = tuple(level for level, _ in done)
        ways = [path[len(levels) :] for path in self._paths[search] if path[: len(levels)] == levels]
        return fmean(sum(self._cell_s((deployment, _probe(search, level))) for level in way) for way in ways) if ways else 0.0


def _probe(search: Search, level: float) -> Load:
    """The load of a probe; requests that follow the level are as many as the load calls usual."""
    load = search.base.at_level(level)
    return replace(load, requests=max(search.least, load.usual_requests * load.turns)) if "requests" in search.follows else load


def _stated_s(load: Load) -> float | None:
    """How long a load takes by itself: a duration, or requests at a rate; None where the engine's pace decides."""
    if load.duration_s is not None and not load.requests:
        return load.duration_s
    return load.requests / load.mean_rate if load.mean_rate and load.requests else None


def _fitted_overlap(seen: Mapping[Place, float]) -> float:
    """From the closed loops of one deployment that differ in their streams. seen: mean seconds."""
    by_deployment: dict[int, list[tuple[Load, float]]] = defaultdict(list)
    for (deployment, load), took in seen.items():
        if load.concurrency > 0 and took > 0:
            by_deployment[deployment].append((load, took))
    slopes = []
    for its in by_deployment.values():
        for (one, first), (other, second) in itertools.pairwise(sorted(its, key=lambda each: each[0].concurrency)):
            if one.concurrency != other.concurrency:
                size = math.log(_work(one, 0.0) / _work(other, 0.0)) - math.log(first / second)
                slopes.append(size / math.log(one.concurrency / other.concurrency))
    return min(1.2, max(-0.2, median(slopes))) if slopes else _OVERLAP


def _work(load: Load, overlap: float) -> float:
    """Proportional to the time of a closed loop: tokens of all requests, over the power of the streams by which it is faster."""
    sent, received = (tokens if isinstance(tokens, int) else 128 for tokens in (load.input_tokens, load.output_tokens))
    requests = max(1, load.requests + load.warmup_requests)
    return float(requests * (received + sent / 20) / max(1, load.concurrency) ** overlap)


@dataclass(frozen=True)
class _Factors:
    """The ratio of time to work is exp(mean + that of the deployment + that of the load)."""

    mean: float = 0.0
    deployments: Mapping[int, float] = field(default_factory=dict)
    loads: Mapping[Load, float] = field(default_factory=dict)
    known: bool = False

    def of(self, place: Place) -> float:
        return math.exp(self.mean + self.deployments.get(place[0], 0.0) + self.loads.get(place[1], 0.0))


def _fit(seen: Mapping[Place, tuple[float, float]]) -> _Factors:
    """Least squares in logarithms, with every effect drawn to 0. seen: (seconds, work)."""
    ratios = {place: math.log(max(took, 1e-3) / max(work, 1e-9)) for place, (took, work) in seen.items()}
    if not ratios:
        return _Factors()
    mean = math.log(fmean(math.exp(ratio) for ratio in ratios.values()))
    deployments: dict[int, float] = defaultdict(float)
    loads: dict[Load, float] = defaultdict(float)
    for _ in range(_ROUNDS):
        rest: dict[int, list[float]] = defaultdict(list)
        for (deployment, load), ratio in ratios.items():
            rest[deployment].append(ratio - mean - loads[load])
        deployments |= {key: sum(its) / (len(its) + _SHRINK) for key, its in rest.items()}
        left: dict[Load, list[float]] = defaultdict(list)
        for (deployment, load), ratio in ratios.items():
            left[load].append(ratio - mean - deployments[deployment])
        loads |= {key: sum(its) / (len(its) + _SHRINK) for key, its in left.items()}
    return _Factors(mean, deployments, loads, known=True)
