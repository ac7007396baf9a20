"""The regimes of a run with `repeats: auto`: judged at each look as its restarts were then, at that look's error. Makes no sentences.

A load is decided at the first look at which its outcome is sure; later restarts do not change it. A deployment that is surely behind at a
load is measured there no more, and stays behind. Both follow from the stored cells alone, so a run resumes where it stopped, and a report
says what the run decided. The whole error of a pair of deployments is the sum over the looks (`AutoRepeats.errors`): for one load by the
rank test, for all loads together by `differ_at`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from enginebench.analysis.conclusion import Regime, Standing
from enginebench.analysis.regimes import Field, margin_between
from enginebench.analysis.rows import Row, fold
from enginebench.domain import Load
from enginebench.domain.repeats import AutoRepeats
from enginebench.metrics.statistics import estimate


@dataclass(frozen=True)
class Judged:
    """A load after some looks."""

    regime: Regime
    restarts: int
    """Of the look that its outcome rests on."""
    decided: bool
    """Whether more restarts cannot change its outcome."""
    contenders: tuple[str, ...] = ()
    """Not decided: the deployments whose further restarts can change it."""


@dataclass(frozen=True)
class Looks:
    """All rows of one model, as `Field` has them, and when they were looked at."""

    field: Field
    auto: AutoRepeats

    @property
    def equal_within(self) -> float:
        return self.field.equal_within

    @property
    def loads(self) -> tuple[Load, ...]:
        return tuple(dict.fromkeys(row.load for _, row in self.field.rows))

    def regime(self, load: Load, without: Sequence[str] = ()) -> Regime:
        """What is known at one load after all looks so far."""
        return self.judged(load).regime

    def judged(self, load: Load, looks: int | None = None) -> Judged:
        """A load after so many looks, or fewer where it was decided before; None: after all that its restarts reach."""
        gone: dict[str, Standing] = {}
        number = self._reached(load) if looks is None else looks
        for look in range(number):
            field = self._at(look)
            regime = field.regime(load, without=gone)
            decided, last = _decided(regime), look == number - 1
            if decided or last:
                whole = _with(regime, gone, field)
                able = () if decided else tuple(its.deployment for its in regime.standings if its.relation in _OPEN)
                return Judged(whole, self.auto.looks[look], decided, able)
            gone |= {its.deployment: its for its in regime.standings if its.relation == "behind"}
        raise ValueError("a run is looked at at least once")

    def _reached(self, load: Load) -> int:
        """Looks that there were: the last one counts as soon as there is a restart after the one before."""
        restarts = max((_restarts(row) for _, row in self.field.rows if row.load == load), default=0)
        return 1 + sum(look < restarts for look in self.auto.looks[:-1])

    def _at(self, look: int) -> Field:
        return self._fields[look]

    @cached_property
    def _fields(self) -> Sequence[Field]:
        most = max((_restarts(row) for _, row in self.field.rows), default=0)
        return [
            replace(
                self.field, rows=[(i, until(row, restarts)) for i, row in self.field.rows] if restarts < most else self.field.rows,
                error=error, gate=error, _gates={},
            )
            for restarts, error in zip(self.auto.looks, self.auto.errors, strict=True)
        ]  # fmt: skip


_OPEN = ("best", "equal", "cannot tell", "probably behind", "misses the SLO")
"""How those stand that further restarts can move."""


def until(row: Row, restarts: int) -> Row:
    """A row as it was after so many restarts; without any cell of those, its status is that of a row that did not run."""
    if not row.cells:
        known = {name: estimate(its.values[:restarts]) if its else None for name, its in row.figures.items()}
        return replace(row, figures=known)
    kept = [cell for cell in row.cells if cell.record.repeat < restarts]
    return fold(kept, row.labels, row.name) if kept else replace(row, cells=(), status="skipped", figures={}, verdict="not run", reasons=())


def _restarts(row: Row) -> int:
    """How many restarts were planned of it so far."""
    stated = max((its.n for its in row.figures.values() if its), default=0)
    return max((1 + cell.record.repeat for cell in row.cells), default=stated)


def _decided(regime: Regime) -> bool:
    return regime.sure or regime.outcome in ("alone", "nothing", "none holds")


def _with(regime: Regime, gone: Mapping[str, Standing], field: Field) -> Regime:
    """The regime with those that were behind at earlier looks, compared with its best."""
    best = regime.best
    if not gone or best is None or best.value is None:
        return regime
    behind = [_against(its, best, field) for its in gone.values()]
    behind.sort(key=lambda its: -(its.share or 0.0))
    at = next((i for i, its in enumerate(regime.standings) if its.relation in ("not comparable", "no figure")), len(regime.standings))
    standings = (*regime.standings[:at], *behind, *regime.standings[at:])
    first = behind[0]
    if regime.outcome == "alone":  # all others were behind before
        regime = replace(regime, outcome="leads", sure=True)
    if not regime.runner_up and regime.outcome in ("leads", "probably leads", "equal"):
        regime = replace(regime, runner_up=first.deployment, margin=first.margin)
    return replace(regime, standings=standings)


def _against(gone: Standing, best: Standing, field: Field) -> Standing:
    if best.value is None or gone.value is None:
        return gone
    margin = margin_between(best.value, gone.value, higher=field.higher, error=field.error)
    part, whole = (gone.value.value, best.value.value) if field.higher else (best.value.value, gone.value.value)
    return replace(gone, margin=margin, share=part / whole if whole > 0 else None)
