"""How often a run names a winner that is none: whole simulated runs with many deployments, in which it is known who wins where.

Each run has 9 loads. A restart has an effect that all its loads share and every cell one of its own, half of the variance each; together
they vary by 3 % in every other run and by 10 % in the rest (standard deviation), with normal noise (light tails) or Student's t with 4
degrees of freedom (heavy). The rules are those of a report: `enginebench.analysis.regimes`. A run is wrong if it surely names a
leader at any load that is not the only best one there. `make bench-winners`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from enginebench.analysis.regimes import Field
from enginebench.analysis.rows import Row
from enginebench.domain import ClosedLoop, Deployment
from enginebench.metrics.statistics import Floats, estimate

Tails: TypeAlias = Literal["light", "heavy"]

FIGURE = "output_throughput"
LOADS = tuple(ClosedLoop(concurrency=c, input_tokens=n) for n in (1024, 4096, 16384) for c in (1, 8, 64))
NOISE = 0.03, 0.10
_DEGREES = 4


@dataclass(frozen=True)
class Truth:
    name: str
    factors: Callable[[int], Floats]
    """Number of deployments -> throughput by deployment and load."""

    def best(self, deployments: int) -> list[int | None]:
        """At each load the deployment that is faster than all others; None: there is none."""
        known = self.factors(deployments)
        return [int(each.argmax()) if np.sum(each > each.max() - 1e-9) == 1 else None for each in known.T]


def _all(deployments: int, *changes: tuple[slice | int, slice | int, float]) -> Floats:
    """Equal deployments, but for changes: (deployments, loads, factor)."""
    out = np.ones((deployments, len(LOADS)))
    for who, where, factor in changes:
        out[who, where] *= factor
    return out


def _pairs(deployments: int) -> list[tuple[int, slice, float]]:
    """Another pair at each third of the loads, faster than all others if these run at 70 %."""
    return [((2 * i + j) % deployments, slice(3 * i, 3 * i + 3), 1 / 0.7) for i in range(3) for j in range(2)]


CORNER, ALL = len(LOADS) - 1, slice(None)
TRUTHS = (
    Truth("all equal", _all),
    Truth("one ahead by 5 %", lambda k: _all(k, (0, ALL, 1.05))),
    Truth("one ahead by 5 %, another at one corner", lambda k: _all(k, (0, slice(0, CORNER), 1.05), (1, CORNER, 1.05))),
    Truth("equal, but one ahead by 5 % at one corner", lambda k: _all(k, (0, CORNER, 1.05))),
    Truth("two equal in front", lambda k: _all(k, (slice(2, None), ALL, 0.7))),
    Truth("two equal in front, but 30 % apart at one corner", lambda k: _all(k, (slice(2, None), ALL, 0.5), (1, CORNER, 0.7))),
    Truth("two equal in front, but 30 % apart at four of nine", lambda k: _all(k, (slice(2, None), ALL, 0.5), (1, slice(5, None), 0.7))),
    Truth(
        "another pair equal in front at each third of the loads",
        lambda k: _all(k, (ALL, ALL, 0.7), *_pairs(k)),
    ),
)


def wrong(truth: Truth, deployments: int, restarts: int, tails: Tails, seed: int) -> bool:
    """Whether one simulated run surely names a leader that is none."""
    rng = np.random.default_rng((seed, deployments, restarts, tails == "heavy"))
    values = _measured(truth.factors(deployments), restarts, NOISE[seed % len(NOISE)], tails, rng)
    names = [f"engine {i}" for i in range(deployments)]
    rows = [_row(name, load, values[i, j]) for i, name in enumerate(names) for j, load in enumerate(LOADS)]
    field = Field(list(enumerate(rows)), FIGURE)
    for load, best in zip(LOADS, truth.best(deployments), strict=True):
        found = field.regime(load)
        if found.outcome == "leads" and found.leaders != ((names[best],) if best is not None else ()):
            return True
    return False


def _measured(factors: Floats, restarts: int, noise: float, tails: Tails, rng: np.random.Generator) -> Floats:
    """By deployment, load and restart."""
    engines, loads = factors.shape

    def draw(*shape: int) -> Floats:
        if tails == "light":
            return np.asarray(rng.standard_normal(shape))
        return np.asarray(rng.standard_t(_DEGREES, shape) / math.sqrt(_DEGREES / (_DEGREES - 2)))

    scale = noise / math.sqrt(2)
    return np.asarray(100 * factors[:, :, None] * np.exp(scale * (draw(engines, 1, restarts) + draw(engines, loads, restarts))))


def _row(name: str, load: ClosedLoop, values: Floats) -> Row:
    return Row(Deployment(name, "m", "none", "hf:m"), load, {}, (), "ok", {FIGURE: estimate(values.tolist())}, "valid", (), name)


def upper_bound(count: int, of: int, confidence: float = 0.95) -> float:
    """The largest probability that is not refuted by so few events (Clopper and Pearson 1934), one-sided."""
    if count >= of:
        return 1.0

    def at_most(p: float) -> float:
        logs = (math.lgamma(of + 1) - math.lgamma(i + 1) - math.lgamma(of - i + 1) + i * math.log(p) + (of - i) * math.log1p(-p)
                for i in range(count + 1))  # fmt: skip
        return sum(map(math.exp, logs))

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > 1 - confidence else (low, middle)
    return high


def table(truths: Sequence[Truth], runs: int, deployments: Sequence[int], restarts: Sequence[int], first: int = 0) -> str:
    """runs: of each truth, number of deployments and restarts, and kind of tails. first: seed."""
    every_tails: tuple[Tails, ...] = "light", "heavy"
    kinds = [(k, tails) for k in deployments for tails in every_tails]
    head = ["truth", "restarts", *(f"{k} deployments, {tails} tails" for k, tails in kinds), "all", "at most"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for truth in truths:
        for n in restarts:
            counts = [sum(wrong(truth, k, n, tails, first + seed) for seed in range(runs)) for k, tails in kinds]
            every = runs * len(kinds)
            shares = [*(count / runs for count in counts), sum(counts) / every, upper_bound(sum(counts), every)]
            rows.append(f"| {truth.name} | {n} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |")
            print(rows[-1], flush=True)
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="of each truth, number of deployments and restarts, and kind of tails")
    parser.add_argument("--deployments", type=int, nargs="+", default=[5, 6])
    parser.add_argument("--restarts", type=int, nargs="+", default=[4, 6])
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    given = parser.parse_args()
    text = table(TRUTHS, given.runs, given.deployments, given.restarts, given.first)
    print(f"\nat most: one-sided bound of Clopper and Pearson, 95 %\n\n{text}")


if __name__ == "__main__":
    main()
