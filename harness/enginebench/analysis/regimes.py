"""Who is best in each regime (model x context x load), by how much, and whether that is sure. Makes no sentences.

A deployment leads where three things agree: the exact rank test over restarts at this load, a difference that is not below the margin that
counts as equal in practice, and a test over the whole run that the two differ at this load (`differ_at`). It shares the lead with
those that are equal (`equal_within`). Otherwise the measurements do not tell, and the regime says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from enginebench.analysis.conclusion import Margin, Outcome, Regime, Relation, Standing
from enginebench.analysis.restarts import by_restart, outlier, too_few
from enginebench.analysis.rows import Row, restarts_within
from enginebench.domain import Load
from enginebench.domain.formatting import percent
from enginebench.metrics.equivalence import GATE, Restarts, differ_at, equal_within
from enginebench.metrics.registry import find
from enginebench.metrics.slo import Slo
from enginebench.metrics.statistics import CONFIDENCE, Estimate, change, compare, repeats_needed


@dataclass(frozen=True)
class Field:
    """All rows of one model, and the rules by which they are compared."""

    rows: Sequence[tuple[int, Row]]
    """Each with its index in the analysis."""
    figure: str
    slo: Slo | None = None
    margin: float | None = None
    """Below it a difference is equal in practice; None: the metric's own."""
    error: float = 1 - CONFIDENCE
    """Of a claim about one load; of a run that looks several times, of this look (`enginebench.domain.repeats`)."""
    gate: float = GATE
    """Of all claims about two deployments together."""
    _gates: dict[tuple[str, str], Mapping[int, float]] = field(default_factory=dict)

    @property
    def higher(self) -> bool:
        found = find(self.figure)
        return found is None or found[0].better != "lower"

    @property
    def equal_within(self) -> float:
        found = find(self.figure)
        return self.margin if self.margin is not None else found[0].equal_within if found else 0.03

    def regime(self, load: Load, without: Collection[str] = ()) -> Regime:
        """What is known at one load. without: names of deployments that are left out."""
        rows = [(i, row) for i, row in self._by_load.get(load, ()) if row.name not in without]
        found = [
            _Entry(i, row, estimate, restarts_within(row, self.slo))
            for i, row in rows
            if row.ranked and (estimate := row.figures.get(self.figure))
        ]
        found.sort(key=lambda its: (its.holds is False, -its.value.value if self.higher else its.value.value))
        able = [its for its in found if its.holds is not False]
        standings = [*self._compared(able), *self._missing(found, able), *_absent(rows, found)]
        named = Regime(load, load.shape_text, load.level_text, "nothing", tuple(standings))
        if not able:
            return replace(named, outcome="none holds", why=_nearest(found)) if found else named
        return _concluded(named)

    def _compared(self, able: Sequence[_Entry]) -> Iterator[Standing]:
        if not able:
            return
        best, *others = able
        yield replace(best.standing, relation="best", share=1.0)
        for other in others:
            yield self._behind(best, other)

    def _behind(self, best: _Entry, other: _Entry) -> Standing:
        margin = margin_between(best.value, other.value, higher=self.higher, error=self.error)
        relation, note = self._relation(best, other, margin)
        return replace(other.standing, relation=relation, share=self._share(best.value, other.value), margin=margin, note=note)

    def _relation(self, best: _Entry, other: _Entry, margin: Margin | None) -> tuple[Relation, str]:
        if equal_within(best.value, other.value, self.equal_within, 1 - 2 * self.error):
            return "equal", ""
        high, low = (best.value, other.value) if self.higher else (other.value, best.value)
        order = compare(high, low, self.error).order
        apart = min(high.values) > max(low.values)
        if margin is not None and margin.value < self.equal_within and min(high.n, low.n) > 1 and (apart or order == "higher"):
            return "cannot tell", f"{percent(margin.value, 2)} apart, not shown to be more or less than {percent(self.equal_within)}"
        if margin is not None and margin.value < self.equal_within:
            return "cannot tell", self._overlap(best, other, alone=False)
        if order == "higher" and (margin is None or self._gate(best.row, other.row) < self.gate):
            return "behind", ""
        if apart and order in ("ahead", "unknown"):
            return "probably behind", too_few(min(best.value.n, other.value.n))
        return "cannot tell", self._overlap(best, other, alone=order == "higher")

    def _overlap(self, best: _Entry, other: _Entry, *, alone: bool) -> str:
        if alone:
            return "apart at this load, but chance alone makes one of so many loads look so"
        for its in (best, other):
            if (found := outlier(its.row, self.figure)) is not None:
                return found.text
        if min(best.value.n, other.value.n) < repeats_needed():
            return too_few(min(best.value.n, other.value.n))
        return "restarts overlap"

    def _gate(self, a: Row, b: Row) -> float:
        """p of 'these two deployments are alike at this load', over the whole run."""
        key = a.name, b.name
        if key not in self._gates:
            self._gates[key] = self._gates[key[::-1]] = differ_at(self._restarts[a.name], self._restarts[b.name])
        return self._gates[key].get(self._loads[a.load], 1.0)

    @cached_property
    def _by_load(self) -> Mapping[Load, Sequence[tuple[int, Row]]]:
        out: dict[Load, list[tuple[int, Row]]] = {}
        for i, row in self.rows:
            out.setdefault(row.load, []).append((i, row))
        return out

    @cached_property
    def _loads(self) -> Mapping[Load, int]:
        return {load: i for i, load in enumerate(dict.fromkeys(row.load for _, row in self.rows))}

    @cached_property
    def _restarts(self) -> Mapping[str, Restarts]:
        """Deployment -> load -> restart -> figure."""
        out: dict[str, dict[int, dict[int, float]]] = {}
        for _, row in self.rows:
            if row.ranked and row.figures.get(self.figure):
                out.setdefault(row.name, {})[self._loads[row.load]] = by_restart(row, self.figure)
        return out

    def _share(self, best: Estimate, other: Estimate) -> float | None:
        part, whole = (other.value, best.value) if self.higher else (best.value, other.value)
        return part / whole if whole > 0 else None

    def _missing(self, found: Sequence[_Entry], able: Sequence[_Entry]) -> Iterator[Standing]:
        """Those that have the figure, but do not meet the SLO."""
        for its in found[len(able) :]:
            share = self._share(able[0].value, its.value) if able else None
            yield replace(its.standing, relation="misses the SLO", share=share, note=_attained(its.row))


@dataclass(frozen=True)
class _Entry:
    index: int
    row: Row
    value: Estimate
    met: Sequence[bool]
    """For each restart whether it meets the SLO; empty: no SLO, or unknown."""

    @property
    def holds(self) -> bool | None:
        return sum(self.met) * 2 > len(self.met) if self.met else None

    @property
    def standing(self) -> Standing:
        agreed = len(self.met) > 1 and len(set(self.met)) == 1
        suspect = self.row.verdict == "suspect"
        return Standing(self.row.name, self.index, "behind", self.value, suspect=suspect, holds=self.holds, agreed=agreed)


def margin_between(best: Estimate, other: Estimate, *, higher: bool, error: float = 1 - CONFIDENCE) -> Margin | None:
    """By how much the best is better: more of the figure, or less of it."""
    its = change(best, other, error)
    if its.relative is None:
        return None
    if higher or its.low is None or its.high is None:
        return Margin(its.relative if higher else -its.relative, its.low, its.high, its.coverage)
    return Margin(-its.relative, -its.high, -its.low, its.coverage)


def _concluded(regime: Regime) -> Regime:
    """The outcome from how each stands to the best. The weakest comparison decides."""
    field_ = [each for each in regime.standings if each.relation in ("best", "behind", "probably behind", "equal", "cannot tell")]
    by: dict[Relation, list[Standing]] = {}
    for each in field_:
        by.setdefault(each.relation, []).append(each)
    shared = [*by.get("equal", ()), *by.get("cannot tell", ())]
    leaders = tuple(each.deployment for each in field_ if each.relation == "best" or each in shared)
    behind = [each for each in field_ if each not in shared and each.relation != "best"]
    missed = [each for each in regime.standings if each.relation == "misses the SLO"]
    outcome: Outcome = "leads"
    if len(field_) == 1 and not missed:
        outcome = "alone"
    elif by.get("cannot tell"):
        outcome = "cannot tell"
    elif by.get("equal"):
        outcome = "equal"
    elif by.get("probably behind"):
        outcome = "probably leads"
    unsure = [*by.get("cannot tell", ()), *by.get("probably behind", ())]
    wavers = len(field_) == 1 and bool(missed) and any(not each.agreed for each in (*field_, *missed))
    if wavers:
        outcome = "probably leads"
    second = behind[0] if behind else None
    concerned = [each for each in field_ if each.deployment in leaders or each is second]
    why = unsure[0].note if unsure else "restarts disagree on whether the SLO is met" if wavers else ""
    return replace(
        regime, outcome=outcome, leaders=leaders, margin=second.margin if second else None, runner_up=second.deployment if second else "",
        sure=not unsure and not wavers, why=why, suspect=any(each.suspect for each in concerned),
    )  # fmt: skip


def _absent(rows: Sequence[tuple[int, Row]], found: Sequence[_Entry]) -> Iterator[Standing]:
    known = {its.index for its in found}
    for i, row in rows:
        if i not in known:
            relation: Relation = "no figure" if row.ranked else "not comparable"
            left_out: Literal["", "failed", "invalid"] = (
                "failed" if row.status == "failed" else "invalid" if row.status == "ok" and row.verdict == "invalid" else ""
            )
            note = row.reasons[0] if row.reasons else ""
            yield Standing(row.name, i, relation, note=note, suspect=row.verdict == "suspect", left_out=left_out)


def _nearest(found: Sequence[_Entry]) -> str:
    """'nearest: vllm, 91 % of the requests within the SLO'."""
    known = [(share.value, its) for its in found if (share := its.row.figures.get("slo_attainment"))]
    return (
        f"nearest: {max(known, key=lambda each: each[0])[1].row.name}, {_attained(max(known, key=lambda e: e[0])[1].row)}" if known else ""
    )


def _attained(row: Row) -> str:
    share = row.figures.get("slo_attainment")
    return f"{percent(share.value)} of the requests within the SLO" if share else ""
