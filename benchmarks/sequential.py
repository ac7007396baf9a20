"""`repeats: auto` on simulated runs: how often it names a winner that is none, and what it costs against a fixed number of restarts.

A restart has an effect that all its loads share and every cell one of its own, both with heavy tails (Student's t with 4 degrees of
freedom): `noise` is their standard deviation together, half of the variance each. Engines are equal, or one is faster. The rules are
those of a run: `enginebench.analysis.sequential` judges rows, and only what is still open gets further restarts. `make bench-sequential`.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from enginebench.analysis.regimes import Field
from enginebench.analysis.rows import Row
from enginebench.analysis.sequential import Looks
from enginebench.domain import ClosedLoop, Deployment
from enginebench.domain.repeats import AutoRepeats
from enginebench.metrics.statistics import CONFIDENCE, Floats, estimate

FIGURE = "output_throughput"
START, CELL = 1.0, 1.0
"""Cost of a server start and of a cell. Large engines take minutes for either."""


@dataclass(frozen=True)
class Truth:
    """Engines under loads."""

    name: str
    factors: Sequence[float]
    """Of each engine's throughput, the same at every load."""
    loads: int = 3
    noise: float = 0.02

    @property
    def best(self) -> int | None:
        """The engine that is faster than the others by more than what is equal in practice; None: there is none."""
        first, second = sorted(self.factors, reverse=True)[:2]
        return list(self.factors).index(first) if first > 1.03 * second else None


@dataclass(frozen=True)
class Outcome:
    """One simulated run."""

    false: bool
    """A deployment was surely called the leader of a load, and is not."""
    right: int
    """Loads with the true answer: the leader, or that there is none."""
    decided: int
    fixed: int
    """Loads that `most` restarts of everything decide, looked at once with an error of 5 %."""
    loads: int
    cost: float
    """Of what was measured, as a share of `most` restarts of everything."""


def drawn(truth: Truth, most: int, rng: np.random.Generator) -> Floats:
    """Figures by engine, load and restart."""
    scale = truth.noise / math.sqrt(2) / math.sqrt(2.0)  # a t with 4 degrees of freedom has the variance 2
    engines = len(truth.factors)
    launch = rng.standard_t(4, (engines, 1, most)) * scale
    cell = rng.standard_t(4, (engines, truth.loads, most)) * scale
    return np.asarray(100 * np.array(truth.factors)[:, None, None] * np.exp(launch + cell))


def simulate(truth: Truth, auto: AutoRepeats, rng: np.random.Generator) -> Outcome:
    values = drawn(truth, auto.most, rng)
    loads = [ClosedLoop(concurrency=2**i) for i in range(truth.loads)]
    names = [f"engine {i}" for i in range(len(truth.factors))]
    counts = np.full(values.shape[:2], auto.looks[0])
    judged = {}
    for number, goal in enumerate((*auto.looks[1:], 0), 1):
        field = Field([_row(i, name, load, j, values, counts) for i, name in enumerate(names) for j, load in enumerate(loads)], FIGURE)
        looks = Looks(field, auto)
        judged = {load: looks.judged(load, number) for load in loads}
        if not goal or not any(its.contenders for its in judged.values()):
            break
        for j, load in enumerate(loads):
            for name in judged[load].contenders:
                counts[names.index(name), j] = goal
    leaders = [its.regime.best.deployment if its.regime.best and its.regime.outcome == "leads" else None for its in judged.values()]
    best = names[truth.best] if truth.best is not None else None
    starts = counts.max(axis=1).sum()
    cost = (START * starts + CELL * counts.sum()) / (auto.most * len(names) * (START + CELL * truth.loads))
    right = sum(name == best for name in leaders)
    counts[:] = auto.most
    whole = Field([_row(i, name, load, j, values, counts) for i, name in enumerate(names) for j, load in enumerate(loads)], FIGURE)
    fixed = sum(whole.regime(load).sure for load in loads)
    false = any(name not in (None, best) for name in leaders)
    return Outcome(false, right, sum(j.decided for j in judged.values()), fixed, truth.loads, float(cost))


def _row(number: int, name: str, load: ClosedLoop, place: int, values: Floats, counts: Floats) -> tuple[int, Row]:
    known = estimate(values[number, place, : int(counts[number, place])].tolist())
    served = Deployment(name, "m", "none", "hf:m")
    return number * counts.shape[1] + place, Row(served, load, {}, (), "ok", {FIGURE: known}, "valid", (), name)


EQUAL = tuple(
    Truth(f"{engines} equal engines, {loads} loads, {noise:.1%}", (1.0,) * engines, loads, noise)
    for engines, loads in ((2, 1), (2, 3), (2, 9), (3, 3), (5, 3))
    for noise in (0.01, 0.03)
)
DIFFERENT = tuple(
    Truth(f"{size:.0%} faster of {len(others) + 1}, {noise:.0%}", (1 + size, *others), 3, noise)
    for size, noise in ((0.3, 0.03), (0.1, 0.02), (0.06, 0.02))
    for others in ((1.0,), (1.0, 0.9, 0.7))
)


def table(truths: Sequence[Truth], auto: AutoRepeats, runs: int, jobs: int) -> str:
    rows = [
        "| truth | false winner (at most) | right | decided | by the fixed design | engine time of the fixed design |",
        "|---|---|---|---|---|---|",
    ]
    with multiprocessing.Pool(jobs) as pool:
        for i, truth in enumerate(truths):
            found = pool.map(partial(_run, truth, auto, i), range(runs), chunksize=16)
            loads = sum(its.loads for its in found)
            false = sum(its.false for its in found)
            rows.append(
                f"| {truth.name} | {false / runs:.1%} ({upper(false, runs):.1%}) | {sum(its.right for its in found) / loads:.0%} | "
                f"{sum(its.decided for its in found) / loads:.0%} | {sum(its.fixed for its in found) / loads:.0%} | "
                f"{np.mean([its.cost for its in found]):.0%} |"
            )
    return "\n".join(rows)


def _run(truth: Truth, auto: AutoRepeats, number: int, seed: int) -> Outcome:
    return simulate(truth, auto, np.random.default_rng((number, seed)))


def upper(found: int, of: int) -> float:
    """Upper end of the one-sided exact 95 % interval of a share (Clopper and Pearson 1934), by bisection."""
    low, high = found / of, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        logs = [math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * math.log(middle)
                + (of - k) * math.log1p(-middle) for k in range(found + 1)]  # fmt: skip
        low, high = (middle, high) if sum(map(math.exp, logs)) > 1 - CONFIDENCE else (low, middle)
    return high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs of each truth")
    parser.add_argument("--most", type=int, default=AutoRepeats.most)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    auto = AutoRepeats(given.most)
    print(f"looks after {', '.join(map(str, auto.looks))} restarts; errors {', '.join(f'{its:.2%}' for its in auto.errors)}\n")
    print(table((*EQUAL, *DIFFERENT), auto, given.runs, given.jobs))


if __name__ == "__main__":
    main()
