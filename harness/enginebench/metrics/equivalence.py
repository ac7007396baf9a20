"""Three answers about two deployments: different, equal in practice, or neither. Tests over restarts; pure, and without metrics.

`compare` of `enginebench.metrics.statistics` tests whether two differ at all. Here: whether they surely differ by less than a margin, and
at which loads of a run two deployments differ, which guards against finding one difference by chance among many loads.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from enginebench.errors import UserError
from enginebench.metrics.statistics import CONFIDENCE, Estimate, Floats, cut

EQUAL_CONFIDENCE = 2 * CONFIDENCE - 1
"""Two one-sided tests at 5 % each: the 90 % interval must lie within the margin."""
GATE = 0.03
"""Two deployments differ at a load if p is below it: under 5 %, for other pairs may lead at other loads; 4 + 4 restarts reach 2 / 70."""
_MOST_SPLITS = 4000
"""With more ways to split the restarts, so many are drawn."""

LARGEST_MARGIN = 0.5

Restarts: TypeAlias = Mapping[int, Mapping[int, float]]
"""Load (its number) -> restart -> figure of one deployment. A restart serves many loads, so its figures belong together."""


def read_margin(given: str | float) -> float:
    """The margin below which a difference is equal in practice, as a share: '3%' and 0.03 are the same.

    UserError for what is not above 0 and at most LARGEST_MARGIN.
    """
    text = str(given).strip()
    try:
        value = float(text.removesuffix("%")) * (0.01 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if isinstance(given, bool) or not 0 < value <= LARGEST_MARGIN:
        message = f"a margin of {given!r} for equal_within: it must be above 0 and at most {LARGEST_MARGIN:.0%}"
        raise UserError(message, advice="write e.g. 3% or 0.03")
    return value


def equal_within(a: Estimate, b: Estimate, margin: float, confidence: float = EQUAL_CONFIDENCE) -> bool | None:
    """Whether a and b surely differ by less than the margin (0.03: 3 %); None with too few restarts to ever show it, or values of 0.

    Two one-sided tests (TOST; Schuirmann 1987): the 90 % interval of the ratio lies within 1 +- margin. The interval is that of Hodges and
    Lehmann over all pairs of restarts, exact for any distribution, as in `change`. 3 + 3 restarts are the fewest that reach it.
    confidence: of that interval, 1 - twice the error of each test.
    """
    if min(*a.values, *b.values) <= 0 or min(a.n, b.n) < 2:
        return None
    outside, coverage = cut(a.n, b.n, confidence)
    if coverage < confidence - 1e-9:
        return None
    ratios = sorted(x / y for x in a.values for y in b.values)
    return 1 - margin < ratios[outside] and ratios[-1 - outside] < 1 + margin


def differ_at(a: Restarts, b: Restarts) -> dict[int, float]:
    """For each load p of 'the two deployments are alike there'; empty with fewer than 2 restarts of either, or without a common load.

    Whole restarts are exchanged between the two (a permutation test, exact whatever the noise and however the loads of a restart go
    together). The statistic of a load is log(total / within variance) of the logarithms, that of several the largest, and loads are
    tested from the largest down (Westfall and Young 1993): however many loads there are, and wherever else the two differ, those at
    which they are alike have a p below GATE in at most GATE of the runs. Without it, 9 loads at 3 % each would name a winner in one of
    four runs.
    """
    units = [(0, r) for r in sorted({r for its in a.values() for r in its})] + [
        (1, r) for r in sorted({r for its in b.values() for r in its})
    ]
    first = sum(side == 0 for side, _ in units)
    loads = sorted(set(a) & set(b))
    if min(first, len(units) - first) < 2 or not loads:
        return {}
    table = np.array([[(a, b)[side][load].get(r, math.nan) for load in loads] for side, r in units])
    table = np.log(np.where(table > 0, table, np.nan))
    separation = _separation(table, _splits(len(units), first))
    order = np.argsort(-separation[0], kind="stable")
    largest = np.maximum.accumulate(separation[:, order[::-1]], axis=1)[:, ::-1]  # of this load and those after it
    ps = np.maximum.accumulate((largest >= separation[0, order] - 1e-9).mean(axis=0))
    return {loads[at]: float(p) for at, p in zip(order, ps, strict=True)}


@lru_cache(maxsize=64)  # every pair of deployments with as many restarts is split in the same ways
def _splits(units: int, picked: int) -> Floats:
    """One row for each way to pick: 1 for a picked unit, else 0; the first row picks the first ones."""
    if math.comb(units, picked) <= _MOST_SPLITS:
        ways: Sequence[Sequence[int]] = list(itertools.combinations(range(units), picked))
    else:
        random = np.random.default_rng(0)
        ways = [range(picked), *(random.permutation(units)[:picked].tolist() for _ in range(_MOST_SPLITS))]
    out = np.zeros((len(ways), units))
    for row, way in zip(out, ways, strict=True):
        row[list(way)] = 1
    return out


def _separation(table: Floats, splits: Floats) -> Floats:
    """For each split and load log(total / within sum of squares). A load with a value on one side only says nothing."""
    known = ~np.isnan(table)
    values = np.where(known, table, 0.0)
    centred = np.where(known, values - values.sum(axis=0) / np.maximum(known.sum(axis=0), 1), 0.0)
    total = (centred**2).sum(axis=0)
    counts, sums = splits @ known, splits @ centred
    others = known.sum(axis=0) - counts
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.where((counts > 0) & (others > 0), sums**2 / counts + sums**2 / others, 0.0)
        share = np.where(total > 0, np.minimum(between / total, 1 - 1e-12), 0.0)
    return np.asarray(-np.log1p(-share))
