"""Which row of one run is which row of the other, and by how much each of its figures changed.

The same deployment under the same load is a pair. What then remains is paired where an engine serves a model under a load once in
either run: there the deployment itself has changed, and that is told. Whatever has no partner is named. Renders nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from enginebench.analysis.analysis import Analysis, Row, metric_of
from enginebench.analysis.changes import Changed, changes, moved
from enginebench.analysis.labels import load_text
from enginebench.analysis.rows import metric_name
from enginebench.domain import canonical, fingerprint
from enginebench.metrics.slo import SLO_METRICS
from enginebench.metrics.statistics import Change, Estimate, change

Verdict: TypeAlias = Literal["better", "worse", "changed", "alike", "unsure", "unknown"]
"""changed: of a figure of which neither direction is good. alike: they cannot be told apart. unsure: every restart agrees, and there
are too few of them. unknown: a single restart."""


@dataclass(frozen=True)
class Figure:
    """One figure of a pair, in SI units."""

    name: str
    base: Estimate
    candidate: Estimate
    change: Change

    @property
    def direction(self) -> Literal["better", "worse", "changed"]:
        """Which way the candidate's value lies, whether or not that is sure."""
        metric = metric_of(self.name)
        better = metric.better if metric else "lower"  # intervals between tokens are per event, and no metric
        return "changed" if better is None else "better" if (better == "lower") == self.change.falls else "worse"

    @property
    def verdict(self) -> Verdict:
        """What the test over the restarts says."""
        order = self.change.order
        return self.direction if order == "higher" else "alike" if order == "tied" else "unsure" if order == "ahead" else "unknown"


@dataclass(frozen=True)
class Pair:
    """The same deployment under the same load in both runs. why_not: why its figures must not be compared; then there are none.

    withheld: figures that must not be, though others may, each with the reason.
    """

    base: Row
    candidate: Row
    figures: Mapping[str, Figure]
    why_not: str | None = None
    withheld: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """'olmoe · vllm fp8 · 4 streams x 128 + 64 tokens, 16 requests'."""
        return _name(self.base)

    def why_missing(self, figure: str) -> str:
        """Why the pair has no such figure to compare."""
        name = metric_name(figure)
        hidden = [cell.withheld[name] for row in (self.base, self.candidate) for cell in row.cells if name in cell.withheld]
        known = self.why_not or self.withheld.get(name) or next(iter(hidden), None)
        return known or "no such figure in both runs: too few requests for it, or the server did not say enough"


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side. alone: rows without a partner, 'base' or 'candidate' -> their names. moved: the machines are not alike."""

    base: Analysis
    candidate: Analysis
    pairs: tuple[Pair, ...]
    alone: Mapping[str, tuple[str, ...]]
    changed: tuple[Changed, ...]
    moved: bool


def compare_runs(base: Analysis, candidate: Analysis) -> Comparison:
    """Match the rows of two runs and compare what matches."""
    matched, left, right = match(base.rows, candidate.rows)
    pairs = tuple(_pair(one, other, same_slo=base.slo == candidate.slo) for one, other in matched)
    alone = {"base": tuple(map(_name, left)), "candidate": tuple(map(_name, right))}
    return Comparison(base, candidate, pairs, alone, changes(base, candidate, matched), moved(base, candidate))


def _name(row: Row) -> str:
    return f"{row.deployment.model} · {row.name} · {load_text(row.load)}"


def match(base: Sequence[Row], candidate: Sequence[Row]) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    """Pairs in the order of the base, and what is left of either."""
    found: list[tuple[Row, Row]] = []
    left, right = list(base), list(candidate)
    for key in (_the_same, _the_same_engine):
        ours, theirs = _once(left, key), _once(right, key)
        found += [(row, theirs[its]) for its, row in ours.items() if its in theirs]
        left = [row for row in left if not any(row is one for one, _ in found)]
        right = [row for row in right if not any(row is other for _, other in found)]
    place = {id(row): i for i, row in enumerate(base)}
    return sorted(found, key=lambda pair: place[id(pair[0])]), left, right


def _the_same(row: Row) -> str:
    return fingerprint([canonical(row.deployment), canonical(row.load)])


def _the_same_engine(row: Row) -> str:
    return fingerprint([row.deployment.engine, row.deployment.model, canonical(row.load)])


def _once(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, Row]:
    """The rows whose key no other row has."""
    keys = [key(row) for row in rows]
    return {its: row for its, row in zip(keys, rows, strict=True) if keys.count(its) == 1}


def _pair(base: Row, candidate: Row, *, same_slo: bool) -> Pair:
    if why := next(_unsound(base, candidate), None):
        return Pair(base, candidate, {}, why)
    withheld = dict(_withheld(base, candidate, same_slo=same_slo))
    figures = {
        name: Figure(name, ours, theirs, change(theirs, ours))
        for name, ours in base.figures.items()
        if ours and (theirs := candidate.figures.get(name)) and metric_name(name) not in withheld
    }
    return Pair(base, candidate, figures, withheld=withheld)


def _unsound(base: Row, candidate: Row) -> Iterator[str]:
    """Why nothing of a pair may be compared."""
    for side, row in (("base", base), ("candidate", candidate)):
        if not row.sound:
            yield f"the {side} is {'invalid' if row.status == 'ok' else row.status}: {'; '.join(row.reasons) or 'no reason was recorded'}"
    random = [any(cell.record.random_weights for cell in row.cells) for row in (base, candidate)]
    if random[0] != random[1]:
        yield f"only the {'base' if random[0] else 'candidate'} has random weights"


def _withheld(base: Row, candidate: Row, *, same_slo: bool) -> Iterator[tuple[str, str]]:
    """Metrics that do not mean the same in both rows."""
    exact = [all(cell.itl_exact for cell in row.cells if cell.ran) for row in (base, candidate)]
    if exact[0] != exact[1]:
        yield "itl", f"it is an interval between tokens in the {'base' if exact[0] else 'candidate'} only"
    if not same_slo:
        for name in SLO_METRICS:
            yield name, "the runs have different SLOs"
