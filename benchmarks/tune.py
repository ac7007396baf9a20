"""How well `bench tune` searches: the search over a grid that was measured in full on a real engine, with noise drawn anew for each seed.

`--measured RUN` adds a run of one of benchmarks/tune_grids/*.yaml to tune_measured.jsonl: figure and engine time of every combination. The
replay is the search of `bench tune` itself (proposals, race) with those figures in place of an engine: a measurement is the stored figure
times noise drawn from the residuals between restarts of the same combination, larger for shorter cells by the root of their length. The
best of the grid is its best stored figure, luck included, which makes it harder to reach. `make bench-tune`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from enginebench.analysis.analysis import analyse
from enginebench.domain import ClosedLoop, Deployment
from enginebench.domain.tuning import Tunable
from enginebench.engines.registry import discover
from enginebench.metrics.statistics import Floats
from enginebench.records.run_folder import open_run
from enginebench.runner.tuning.race import FRESH_RESTARTS, LENGTHS, Measured, Race
from enginebench.runner.tuning.space import Candidate, Space

DATA = Path(__file__).with_name("tune_measured.jsonl")
FIGURE = "output_throughput"
SHARE = 0.2
"""Of the engine time of the grid, with one restart of every combination, that a search may take."""
CLOSE = 0.03


@dataclass(frozen=True)
class Grid:
    """An engine's grid as it was measured."""

    engine: str
    space: Space
    truth: dict[Candidate, float]
    """Logarithm of the figure, the mean over the restarts."""
    start_s: dict[Candidate, float]
    cells_s: dict[Candidate, float]
    residuals: Floats
    """Of single restarts, on logarithms."""

    @property
    def seconds(self) -> float:
        """Engine time of one restart of every combination."""
        return sum(self.start_s.values()) + sum(self.cells_s.values())

    @property
    def best(self) -> Candidate:
        return max(self.truth, key=lambda each: self.truth[each])


@dataclass(frozen=True)
class Replay:
    share: float
    """The true figure of the leader as a share of the best of the grid; the default's where nothing better was found."""
    spent: float
    """Engine time of the search as a share of that of the grid."""
    restarts: int


def grid(line: dict[str, Any]) -> Grid:
    names = [name for name, _ in line["options"]]
    tunables = tuple(Tunable(name, tuple(values[1:]), values[0]) for name, values in line["options"])
    adapter = discover().need(line["engine"])
    base = Deployment(line["engine"], "m", line["precision"], "m", max_context=512, max_concurrency=4)
    space = Space(base, (ClosedLoop(concurrency=4, output_tokens=16),), adapter, tunables)
    truth, starts, cells, residuals = {}, {}, {}, []
    for point in line["points"]:
        at = tuple(values.index(point["options"][name]) for name, values in line["options"])
        logs = np.log(point["values"])
        truth[at], starts[at], cells[at] = float(logs.mean()), point["start_s"], point["cells_s"]
        if len(logs) > 1:
            residuals += ((logs - logs.mean()) * math.sqrt(len(logs) / (len(logs) - 1))).tolist()
    assert len(truth) == math.prod(len(values) for _, values in line["options"]), f"the grid of {names} has gaps"  # noqa: S101
    return Grid(line["engine"], space, truth, starts, cells, np.array(residuals or line["residuals"]))


def replay(its: Grid, seed: int) -> Replay:
    """One search. The time for fresh restarts comes on top: they are needed to compare the best of a grid with the default as well."""
    rng = np.random.default_rng(seed)
    fresh = 2 * FRESH_RESTARTS * its.seconds / len(its.truth)
    race = Race(its.space, SHARE * its.seconds + fresh, seed)
    history: list[Measured] = []
    limit = SHARE * its.seconds
    while (found := race.next(history)) is not None and sum(each.cost_s for each in history) < limit:
        candidate, rung = found
        length = LENGTHS[min(rung, 1)]
        noise = float(rng.choice(its.residuals)) / math.sqrt(length)
        history.append(Measured(candidate, rung, its.truth[candidate] + noise, its.start_s[candidate], length * its.cells_s[candidate]))
    leader = race.leader(history) or its.space.default
    chosen = max(its.truth[leader], its.truth[its.space.default])
    spent = sum(each.cost_s for each in history) / its.seconds
    return Replay(math.exp(chosen - its.truth[its.best]), spent, len(history))


def grids() -> list[Grid]:
    return [grid(json.loads(line)) for line in DATA.read_text().splitlines()]


def random_search(its: Grid, seed: int) -> float:
    """For comparison: as many combinations at random, one full restart each, as fit the same time; the best by what was seen."""
    rng = np.random.default_rng(seed)
    spent, seen = 0.0, {}
    for i in rng.permutation(len(its.truth)):
        candidate = list(its.truth)[int(i)]
        spent += its.start_s[candidate] + its.cells_s[candidate]
        if spent > SHARE * its.seconds:
            break
        seen[candidate] = its.truth[candidate] + float(rng.choice(its.residuals))
    return math.exp(its.truth[max(seen, key=lambda each: seen[each])] - its.truth[its.best])


def table(found: Sequence[Grid], seeds: int) -> str:
    rows = [
        "| engine | combinations | engine time | best over default | noise of a restart | within 3 % of best | worst | time | at random |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for its in found:
        replays = [replay(its, seed) for seed in range(seeds)]
        close = sum(each.share >= 1 - CLOSE for each in replays)
        drawn = sum(random_search(its, seed) >= 1 - CLOSE for seed in range(seeds))
        gain = math.exp(its.truth[its.best] - its.truth[its.space.default]) - 1
        rows.append(
            f"| {its.engine} | {len(its.truth)} | {its.seconds / 60:.1f} min | {gain:+.0%} | {its.residuals.std():.1%} | "
            f"{close} of {seeds} seeds | {min(each.share for each in replays):.1%} | {np.mean([each.spent for each in replays]):.0%} | "
            f"{drawn} of {seeds} |"
        )
    return "\n".join(rows)


def measured(run: Path) -> dict[str, Any]:
    """A run of a grid as one line of the data file."""
    analysis = analyse(open_run(run))
    engine = analysis.rows[0].deployment.engine
    names = list(dict.fromkeys(name for row in analysis.rows for name in row.deployment.options))
    options = [
        [name, list({json.dumps(row.deployment.options[name]): row.deployment.options[name] for row in analysis.rows}.values())]
        for name in names
    ]
    points = []
    for row in analysis.rows:
        cells = [cell for cell in row.cells if cell.ran and cell.figures.get(FIGURE)]
        starts = [analysis.launches[cell.record.launch_id].startup for cell in cells]
        points.append(
            {
                "options": dict(row.deployment.options),
                "values": [round(cell.figures[FIGURE] or 0.0, 2) for cell in cells],
                "start_s": round(float(np.mean([(s.start_s or 0) + (s.first_generation_s or 0) + (s.stop_s or 0) for s in starts])), 2),
                "cells_s": round(float(np.mean([cell.record.wall_s or 0.0 for cell in cells])), 2),
            }
        )
    machine = {key: analysis.run.machine.get(key) for key in ("cpu", "usable_cores")}
    about = {"engine": engine, "precision": analysis.rows[0].deployment.precision, "measured": analysis.run.created_at, "machine": machine}
    return {**about, "options": options, "points": points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--measured", type=Path, metavar="RUN", help="store the grid of this run instead")
    given = parser.parse_args()
    if given.measured is None:
        print(table(grids(), given.seeds))
        return
    new = measured(given.measured)
    kept = [line for line in DATA.read_text().splitlines() if json.loads(line)["engine"] != new["engine"]] if DATA.exists() else []
    DATA.write_text("\n".join([*kept, json.dumps(new)]) + "\n")


if __name__ == "__main__":
    main()
