"""How many planted changes `bench history` finds at the right night, and how often it is wrong. `make bench-history`.

Each matrix has 20 series with one change of 5 % and 50 without. A restart varies by 1 to 3 % (standard deviation, heavy tails). Half of
that variance is common to the restarts of a night, with an autocorrelation of up to 0.4 between nights; a night is the median of four
restarts. 3 % of the nights are outliers. A series has 14 to 120 nights and changes at least a week from its ends. Something is recorded to
have changed (a version, a driver) in three random nights of every series and in the night of the change; without records, nowhere.
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from enginebench.metrics.level_changes import Step, find_changes
from enginebench.metrics.statistics import Floats

SIZE, LEAST = 0.05, 0.03
CHANGED, SAME = 20, 50
LENGTHS = (14, 28, 42, 56, 70, 84, 98, 112, 120)
RESTARTS, WEEK = 4, 7
OUTLIERS, DECOYS = 0.03, 3
_DEGREES = 4


@dataclass(frozen=True)
class Planted:
    values: Floats
    """Logarithms."""
    known: tuple[int, ...]
    at: int | None


Method: TypeAlias = Callable[[Sequence[Planted]], list[list[int]]]
"""For each series the nights at which it finds a change of at least LEAST."""


def matrix(seed: int, *, noise: tuple[float, float] = (0.01, 0.03), recorded: bool = True) -> list[Planted]:
    rng = np.random.default_rng(seed)
    out = []
    for i in range(CHANGED + SAME):
        n = int(rng.choice(LENGTHS))
        values = nights(rng, n, rng.uniform(*noise), rng.uniform(0, 0.4))
        at = int(rng.integers(WEEK, n - WEEK + 1)) if i < CHANGED else None
        known = set(rng.integers(1, n, DECOYS).tolist())
        if at is not None:
            values[at:] += math.log1p(SIZE) * rng.choice((-1, 1))
            known.add(at)
        out.append(Planted(values, tuple(sorted(known)) if recorded else (), at))
    return out


def nights(rng: np.random.Generator, n: int, noise: float, memory: float) -> Floats:
    """The medians over the restarts of each night, without a change."""
    innovations = _heavy(rng, (n + 20,)) * math.sqrt(1 - memory**2)
    for i in range(1, n + 20):
        innovations[i] += memory * innovations[i - 1]
    restarts = innovations[20:, None] + _heavy(rng, (n, RESTARTS))
    outliers = rng.choice((-1, 1), n) * rng.uniform(0.05, 0.25, n) * (rng.random(n) < OUTLIERS)
    return np.median(noise * math.sqrt(0.5) * restarts, axis=1) + outliers


def _heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Student's t, of variance 1."""
    return rng.standard_t(_DEGREES, shape) / math.sqrt(_DEGREES / (_DEGREES - 2))


# -- methods -------------------------------------------------------------------------------------------------------------


def ours(series: Sequence[Planted]) -> list[list[int]]:
    found = find_changes([its.values for its in series], [its.known for its in series], [LEAST] * len(series))
    return [[c.location.at if isinstance(c, Step) else c.start for c in its.changes] for its in found]


def pelt(cost: str, penalty: Callable[[int, float], float]) -> Method:
    """PELT of the package `ruptures` (Killick, Fearnhead and Eckley 2012). penalty: of the nights and the variance of a night."""
    ruptures: Any = importlib.import_module("ruptures")

    def method(series: Sequence[Planted]) -> list[list[int]]:
        out = []
        for its in series:
            n = len(its.values)
            variance = float(np.median(np.abs(np.diff(its.values))) * 1.4826) ** 2 / 2
            model = ruptures.Pelt(model=cost, min_size=3, jump=1).fit(its.values)
            out.append(_large(its.values, model.predict(pen=penalty(n, variance))[:-1]))
        return out

    return method


def e_divisive(series: Sequence[Planted], *, permutations: int = 199, level: float = 0.05) -> list[list[int]]:
    """Matteson and James (2014), J. Am. Stat. Assoc. 109, with a permutation test at each series' own level."""
    rng = np.random.default_rng(0)

    def best(values: Floats) -> tuple[float, int]:
        n = len(values)
        sums = np.zeros((n + 1, n + 1))
        sums[1:, 1:] = np.abs(values[:, None] - values).cumsum(axis=0).cumsum(axis=1)
        at = np.arange(3, n - 2)
        left, both = sums[at, at], sums[at, n]
        rest = sums[n, n] - 2 * both + left
        within = left / (at * (at - 1)) + rest / ((n - at) * (n - at - 1))
        divergence = at * (n - at) / n * (2 * (both - left) / (at * (n - at)) - within)
        return float(divergence.max()), int(at[divergence.argmax()])

    def divided(values: Floats, start: int) -> list[int]:
        if len(values) < 2 * 4:
            return []
        value, at = best(values)
        p = (1 + sum(best(rng.permutation(values))[0] >= value for _ in range(permutations))) / (1 + permutations)
        return [*divided(values[:at], start), start + at, *divided(values[at:], start + at)] if p <= level else []

    return [_large(its.values, divided(its.values, 0)) for its in series]


def _large(values: Floats, cuts: Sequence[int]) -> list[int]:
    levels = [float(np.median(part)) for part in np.split(values, list(cuts))]
    return [cut for cut, before, after in zip(cuts, levels, levels[1:], strict=False) if abs(after - before) >= math.log1p(LEAST)]


# -- counting ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    planted: int
    found: int
    """A change within three nights of the planted one."""
    right: int
    """At its night."""
    near: int
    """At most one night away."""
    extra: int
    """Changed series with a further change."""
    unchanged: int
    false: int
    """Unchanged series with a change."""

    @property
    def text(self) -> str:
        shares = (self.found, self.right, self.near, self.extra)
        return "  ".join(f"{100 * each / self.planted:5.1f} %" for each in shares) + f"  {100 * self.false / self.unchanged:5.2f} %"


def count(method: Method, matrices: Iterable[Sequence[Planted]]) -> Counts:
    totals = np.zeros(7, dtype=int)
    for series in matrices:
        for its, found in zip(series, method(series), strict=True):
            if its.at is None:
                totals[5:] += (1, bool(found))
                continue
            off = min((abs(at - its.at) for at in found), default=math.inf)
            totals[:5] += (1, off <= 3, off == 0, off <= 1, len(found) > 1)
    return Counts(*totals.tolist())


HEAD = f"{'':42}{'found':>7}  {'night':>7}  {'+-1':>7}  {'extra':>7}  {'false':>7}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--matrices", type=int, default=20, help="of 20 changed and 50 unchanged series")
    parser.add_argument("--alternatives", action="store_true", help="also PELT (needs ruptures) and E-divisive, on fewer matrices")
    asked = parser.parse_args()
    print(HEAD)
    for title, options in (
        ("noise 1-3 %, changes recorded", {}),
        ("noise 1-3 %, nothing recorded", {"recorded": False}),
        ("noise 1-2 %, nothing recorded", {"recorded": False, "noise": (0.01, 0.02)}),
        ("noise 2-3 %, nothing recorded", {"recorded": False, "noise": (0.02, 0.03)}),
    ):
        made = [matrix(seed, **options) for seed in range(asked.matrices)]
        print(f"{title:42}{count(ours, made).text}", flush=True)
    if asked.alternatives:
        few = [matrix(seed, recorded=False) for seed in range(min(asked.matrices, 4))]
        methods: dict[str, Method] = {
            "ours, nothing recorded": ours,
            "PELT, means, penalty of Schwarz": pelt("l2", lambda n, variance: 2 * math.log(n) * variance),
            "PELT, means, three times it": pelt("l2", lambda n, variance: 6 * math.log(n) * variance),
            "PELT, medians, three times it": pelt("l1", lambda n, variance: 3 * math.log(n) * math.sqrt(variance)),
            "PELT, ranks": pelt("rank", lambda n, _: 3 * math.log(n)),
            "E-divisive, 199 permutations, 5 %": e_divisive,
        }
        print(f"\n{len(few)} matrices, noise 1-3 %, nothing recorded")
        for title, method in methods.items():
            print(f"{title:42}{count(method, few).text}", flush=True)


if __name__ == "__main__":
    main()
