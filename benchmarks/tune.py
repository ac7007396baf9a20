"""How well `bench tune` searches: the search over a grid that was measured in full on a real engine, with noise drawn anew for each seed.

`--measured RUN` adds a run of benchmarks/tune_grids/llamacpp.yaml to tune_measured.jsonl: figure and engine time of every combination. The
replay is the search of `bench tune` itself (proposals, race) with those figures in place of an engine: a measurement is the stored figure
times noise drawn from the residuals between restarts of the same combination, larger for shorter cells by the root of their length. Stored
figures have that noise as well, so the true figure of a combination is what single options and pairs of them explain of all figures.
`make bench-tune` prints the table twice: with restarts that vary by 2 %, and with the noise of the grid.

The stored figure is output tokens per second, of one thread on a machine that nothing else used.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
QUIET = 0.02
"""Standard deviation of the logarithm between restarts where a machine is quiet; in the published run on a CPU it is 2 to 7 %."""


@dataclass(frozen=True)
class Grid:
    """An engine's grid as it was measured."""

    engine: str
    space: Space
    truth: dict[Candidate, float]
    """Logarithm of the figure, see `smoothed`."""
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
    base = Deployment(line["engine"], "m", line["precision"], "m", max_context=512, max_concurrency=4, options=line["fixed"])
    space = Space(base, (ClosedLoop(concurrency=4, output_tokens=16),), adapter, tunables)
    truth, starts, cells, residuals = {}, {}, {}, []
    for point in line["points"]:
        at = tuple(values.index(point["options"][name]) for name, values in line["options"])
        logs = np.log(point["values"])
        truth[at], starts[at], cells[at] = float(logs.mean()), point["start_s"], point["cells_s"]
        if len(logs) > 1:
            residuals += ((logs - logs.mean()) * math.sqrt(len(logs) / (len(logs) - 1))).tolist()
    assert len(truth) == math.prod(len(values) for _, values in line["options"]), f"the grid of {names} has gaps"  # noqa: S101
    return Grid(line["engine"], space, smoothed(truth, space.sizes), starts, cells, np.array(residuals))


def smoothed(logs: dict[Candidate, float], sizes: Sequence[int]) -> dict[Candidate, float]:
    """What single options and pairs of them explain of the figures (ridge regression); the rest is noise of the restarts."""
    terms = [(i, i) for i in range(len(sizes))] + list(itertools.combinations(range(len(sizes)), 2))
    columns = [(i, j, a, b) for i, j in terms for a in range(sizes[i]) for b in range(sizes[j]) if i != j or a == b]
    table = np.array([[1.0, *(float(each[i] == a and each[j] == b) for i, j, a, b in columns)] for each in logs])
    ridge = np.diag([1e-6, *(0.1 if i == j else 1.0 for i, j, _, _ in columns)])
    fitted = table @ np.linalg.solve(table.T @ table + ridge, table.T @ np.array(list(logs.values())))
    return dict(zip(logs, fitted.tolist(), strict=True))


def replay(its: Grid, seed: int) -> Replay:
    """One search. The time for fresh restarts comes on top: they are needed to compare the best of a grid with the default as well."""
    rng = np.random.default_rng(seed)
    fresh = 2 * FRESH_RESTARTS * its.seconds / len(its.truth)
    race = Race(its.space, SHARE * its.seconds + fresh, seed)
    history: list[Measured] = []
    limit = SHARE * its.seconds
    while (found := race.next(history)) is not None and sum(each.cost_s for each in history) < limit:
        candidate, stage, repeat = found
        length = LENGTHS[stage]
        noise = float(rng.choice(its.residuals)) / math.sqrt(length)
        seconds = its.start_s[candidate], length * its.cells_s[candidate]
        history.append(Measured(candidate, stage, repeat, its.truth[candidate] + noise, *seconds))
    leader = race.leader(history) or its.space.default
    chosen = max(its.truth[leader], its.truth[its.space.default])
    spent = sum(each.cost_s for each in history) / its.seconds
    return Replay(math.exp(chosen - its.truth[its.best]), spent, len(history))


def grids() -> list[Grid]:
    return [grid(json.loads(line)) for line in DATA.read_text().splitlines()]


def quiet(its: Grid) -> Grid:
    """The same grid with the noise of a quiet machine."""
    return replace(its, residuals=its.residuals * (QUIET / its.residuals.std()))


def whole_grid(its: Grid, seed: int) -> float:
    """For comparison: one full restart of every combination; the best by what was seen."""
    rng = np.random.default_rng(seed)
    seen = {candidate: truth + float(rng.choice(its.residuals)) for candidate, truth in its.truth.items()}
    return math.exp(its.truth[max(seen, key=lambda each: seen[each])] - its.truth[its.best])


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


def table(found: Sequence[Grid], seeds: Sequence[int]) -> str:
    names = "engine", "combinations", "engine time", "best over default", "noise of a restart"
    heads = (*names, "within 3 % of best", "worst", "time", "the whole grid", "at random")
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for its in found:
        replays = [replay(its, seed) for seed in seeds]
        close = sum(each.share >= 1 - CLOSE for each in replays)
        drawn = sum(random_search(its, seed) >= 1 - CLOSE for seed in seeds)
        whole = sum(whole_grid(its, seed) >= 1 - CLOSE for seed in seeds)
        gain = math.exp(its.truth[its.best] - its.truth[its.space.default]) - 1
        of = f"of {len(seeds)}"
        about = its.engine, f"{len(its.truth)}", f"{its.seconds / 60:.1f} min", f"{gain:+.0%}", f"{its.residuals.std():.1%}"
        worst, spent = min(each.share for each in replays), np.mean([each.spent for each in replays])
        cells = *about, f"{close} {of} seeds", f"{worst:.1%}", f"{spent:.0%}", f"{whole} {of}", f"{drawn} {of}"
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def measured(run: Path) -> dict[str, Any]:
    """A run of a grid as one line of the data file."""
    analysis = analyse(open_run(run))
    engine = analysis.rows[0].deployment.engine
    names = list(dict.fromkeys(name for row in analysis.rows for name in row.deployment.options))
    used = {name: {json.dumps(row.deployment.options[name]): row.deployment.options[name] for row in analysis.rows} for name in names}
    varied = {name: list(values.values()) for name, values in used.items() if len(values) > 1}
    fixed = {name: next(iter(values.values())) for name, values in used.items() if len(values) == 1}
    points = []
    for row in analysis.rows:
        cells = [cell for cell in row.cells if cell.ran and cell.figures.get(FIGURE)]
        starts = [analysis.launches[cell.record.launch_id].startup for cell in cells]
        points.append(
            {
                "options": {name: row.deployment.options[name] for name in varied},
                "values": [round(cell.figures[FIGURE] or 0.0, 3) for cell in cells],
                "start_s": round(float(np.mean([(s.start_s or 0) + (s.first_generation_s or 0) + (s.stop_s or 0) for s in starts])), 2),
                "cells_s": round(float(np.mean([cell.record.wall_s or 0.0 for cell in cells])), 2),
            }
        )
    machine = {key: analysis.run.machine.get(key) for key in ("cpu", "usable_cores")}
    about = {"engine": engine, "precision": analysis.rows[0].deployment.precision, "measured": analysis.run.created_at, "machine": machine}
    return {**about, "fixed": fixed, "options": [[name, values] for name, values in varied.items()], "points": points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0, help="the search was chosen on seeds from 1000 on")
    parser.add_argument("--measured", type=Path, metavar="RUN", help="store the grid of this run instead")
    given = parser.parse_args()
    if given.measured is None:
        print(table([each for its in grids() for each in (quiet(its), its)], range(given.first_seed, given.first_seed + given.seeds)))
        return
    new = measured(given.measured)
    kept = [line for line in DATA.read_text().splitlines() if json.loads(line)["engine"] != new["engine"]] if DATA.exists() else []
    DATA.write_text("\n".join([*kept, json.dumps(new)]) + "\n")


if __name__ == "__main__":
    main()
