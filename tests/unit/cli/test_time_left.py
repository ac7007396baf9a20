"""The time left is right within a factor of 1.5 from a tenth of a run on, for runs of many shapes. The times are not real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from enginebench import PlanTime
from enginebench.cli.progress import ProgressLines
from enginebench.cli.time_left import TimeLeft
from enginebench.domain import Cell, ClosedLoop, Deployment, Load, OpenLoop, Search
from enginebench.records.cell import CellRecord
from enginebench.records.launch import LaunchRecord
from enginebench.runner.events import CellEnded, CellStarted, LaunchEnded, LaunchStarted, RunOpened
from enginebench.scenario import load_at

FACTOR = 1.5
BASE = Deployment("vllm", "m", "fp8", "hf:m")


@dataclass
class Simulated:
    """A run whose launches and cells take the times that functions say."""

    cells: Sequence[Cell]
    cell_s: Callable[[Cell], float]
    launch_s: Callable[[Deployment], float]
    searches: Mapping[str, Search] = field(default_factory=dict)
    limit: float = 0.0
    """Of a search: the highest level that passes."""
    broken: frozenset[int] = frozenset()
    """id() of deployments whose server does not start."""
    expected: Mapping[tuple[int, Load], float] = field(default_factory=dict)
    stop_s: float = 2.0

    def guesses(self) -> Iterator[tuple[float, float | None]]:
        """(now, seconds left) after every event and in the middle of every cell; at last (end, 0)."""
        left, now = TimeLeft(self.cells, self.searches, self.expected), 0.0
        groups: dict[tuple[int, int], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.repeat, id(cell.deployment)), []).append(cell)
        for its in groups.values():
            deployment = its[0].deployment
            left.launch_started(deployment, now)
            now += self.launch_s(deployment)
            if id(deployment) in self.broken:
                for cell in its:
                    left.cell_ended(cell, now, measured=False)
                left.launch_ended(deployment, now)
                continue
            for cell in (probe for first in its for probe in self._probes(first)):
                left.cell_started(cell, now)
                took = self.cell_s(cell)
                yield now + took / 2, left.seconds(now + took / 2)
                now += took
                left.cell_ended(cell, now, measured=True)
                yield now, left.seconds(now)
            now += self.stop_s
            left.launch_ended(deployment, now)
            yield now, left.seconds(now)
        yield now, 0.0

    def _probes(self, first: Cell) -> Iterator[Cell]:
        search = self.searches.get(first.id)
        if search is None:
            yield first
            return
        answers: dict[float, bool | None] = {}
        while (level := search.bracket(answers).next_level) is not None:
            yield replace(first, load=load_at(search, level))
            answers[level] = level <= self.limit

    def worst(self) -> tuple[float, float]:
        """The lowest and the highest ratio of what was said to what was true, from a tenth of the run to where 5 % are left."""
        said = list(self.guesses())
        end = said[-1][0]
        ratios = [(guess or 0.0) / (end - now) for now, guess in said if 0.1 * end <= now <= 0.95 * end]
        assert len(ratios) > 4
        return min(ratios), max(ratios)


def plan(deployments: Sequence[Deployment], loads: Sequence[Load], repeats: int) -> list[Cell]:
    """In the order of a plan: every second repeat goes the other way."""
    return [
        Cell(deployment, load, repeat)
        for repeat in range(repeats)
        for deployment in (deployments if repeat % 2 == 0 else reversed(deployments))
        for load in loads
    ]


def paced(speeds: Mapping[int, float], *, overlap: float = 1.0) -> Callable[[Cell], float]:
    """Closed loops of an engine: seconds per token and number of streams, with a deviation of up to 6 % from cell to cell."""

    def seconds(cell: Cell) -> float:
        load, pace = cell.load, 0.01 * speeds[id(cell.deployment)]
        assert isinstance(load.output_tokens, int)
        assert isinstance(load.input_tokens, int)
        step = pace * (1 + (load.concurrency - 1) * (1 - overlap))
        wobble = 1 + 0.02 * ((7 * cell.repeat + load.concurrency + load.input_tokens // 100) % 4)
        rounds = (load.requests + load.warmup_requests) / load.concurrency
        return wobble * rounds * (load.output_tokens * step + load.input_tokens * pace / 15)

    return seconds


def some(count: int) -> list[Deployment]:
    return [replace(BASE, options={"n": n}) for n in range(count)]


LOADS = [
    ClosedLoop(concurrency=streams, input_tokens=length, output_tokens=256, requests=max(16, 4 * streams))
    for length in (1792, 7936)
    for streams in (1, 4, 16, 64)
]


def check(run: Simulated) -> None:
    low, high = run.worst()
    assert low > 1 / FACTOR, f"{low:.2f} of the truth was said"
    assert high < FACTOR, f"{high:.2f} times the truth was said"


@pytest.mark.parametrize("overlap", [1.0, 0.9, 0.5], ids=["a GPU", "between", "a CPU"])
@pytest.mark.parametrize("speeds", [(1, 1.2, 0.8, 1.5, 1), (1, 3, 2, 1, 2), (1.5, 1, 1, 2, 1)])
def test_unequal_cells(speeds: Sequence[float], overlap: float) -> None:
    """Cells of one deployment differ by a factor of over 100; the plain mean was wrong by 2 to 5."""
    deployments = some(5)
    pace = paced({id(each): speed for each, speed in zip(deployments, speeds, strict=True)}, overlap=overlap)
    check(Simulated(plan(deployments, LOADS, 3), pace, lambda _: 30.0))


def test_long_launches() -> None:
    deployments = some(6)
    loads = [replace(load, output_tokens=8, input_tokens=32) for load in LOADS[:4]]
    speeds = {id(each): 1.0 for each in deployments}
    check(Simulated(plan(deployments, loads, 4), paced(speeds), lambda each: 240.0 + 60.0 * (each is deployments[0])))


def test_loads_by_duration_and_by_rate() -> None:
    deployments = some(3)
    loads: list[Load] = [
        ClosedLoop(concurrency=4, requests=0, duration_s=60.0), ClosedLoop(concurrency=8, requests=0, duration_s=10.0),
        OpenLoop(rate=2.0, requests=400), OpenLoop(rate=8.0, requests=400),
    ]  # fmt: skip

    def seconds(cell: Cell) -> float:
        load = cell.load
        return 4.0 + (load.duration_s or load.requests / (load.mean_rate or 1.0))

    check(Simulated(plan(deployments, loads, 4), seconds, lambda _: 20.0))


@pytest.mark.parametrize("limit", [0.5, 3.0, 40.0, 300.0])
def test_a_search(limit: float) -> None:
    search = Search(OpenLoop(rate=1.0, requests=200), "rate", 1.0, 256.0, 0.1)
    deployments = some(3)
    cells = plan(deployments, [search.base], 4)
    run = Simulated(
        cells, lambda cell: 3 + cell.load.requests / (cell.load.mean_rate or 1), lambda _: 30.0, {cell.id: search for cell in cells}, limit
    )
    check(run)


def test_a_resumed_run() -> None:
    """Half of the cells are stored, in the middle of a launch: nothing is known of their times."""
    deployments = some(4)
    cells = plan(deployments, LOADS, 4)
    speeds = {id(each): 1 + 0.3 * i for i, each in enumerate(deployments)}
    check(Simulated(cells[len(cells) // 2 + 3 :], paced(speeds, overlap=0.9), lambda _: 45.0))


def test_servers_that_do_not_start() -> None:
    deployments = some(5)
    broken = frozenset({id(deployments[1]), id(deployments[3])})
    speeds = {id(each): 1.0 for each in deployments}
    check(Simulated(plan(deployments, LOADS, 4), paced(speeds), lambda _: 15.0, broken=broken))


def test_what_physics_expects_is_used_and_scaled() -> None:
    """The last deployment is ten times as slow as the first: only what is expected says so before it is measured."""
    deployments = some(3)
    speeds = {id(each): speed for each, speed in zip(deployments, (1, 2, 10), strict=True)}
    pace, cells = paced(speeds, overlap=0.9), plan(deployments, LOADS, 3)
    expected = {(id(cell.deployment), cell.load): 0.4 * pace(cell) for cell in cells}
    check(Simulated(cells, pace, lambda _: 30.0, expected=expected))


def test_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    now, load = 0.0, ClosedLoop(concurrency=2)
    cells = tuple(Cell(BASE, load, repeat) for repeat in range(4))
    progress = ProgressLines(lambda: PlanTime(10, 40), clock=lambda: now)
    progress(RunOpened(Path(), 4, 0, (load,), (BASE,), cells))
    for cell in cells:
        progress(LaunchStarted(BASE, cell.repeat))
        now += 100
        progress(CellStarted(cell, 4))
        now += 60
        launch = LaunchRecord(cell.launch_id, BASE, cell.repeat, "")
        progress(CellEnded(cell, CellRecord.of(cell, "failed", "abcd"[cell.repeat]), 4, launch=launch))
        now += 10
        progress(LaunchEnded(BASE, None))
    progress.finish()
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition("  ")[2] for line in lines] == [
        "about 40 s of load left (expected), at least 10 s; warm-up and server starts come on top".rpartition("  ")[2],
        "~8 min left", "~6 min left", "~3 min left", "failed: d",
    ]  # fmt: skip
