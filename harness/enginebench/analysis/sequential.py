"""The regimes of a run with `repeats: auto`: judged at each look as its restarts were then, at that look's error. Makes no sentences.

A load is decided at the first look at which its outcome is sure; later restarts do not change it. A deployment that is surely behind at a
load is measured there no more, and stays behind; so is one that further restarts will probably not tell from the best (`forecast`). All of
it follows from the stored cells alone, so a run resumes where it stopped, and a report says what the run decided. The whole error of a pair
of deployments is the sum over the looks (`AutoRepeats.errors`): for one load by the rank test, for all loads together by `differ_at`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from enginebench.analysis.conclusion import Regime, Standing
from enginebench.analysis.forecast import LEAST_CHANCE, Forecast, Side, forecast
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
    forecast: Forecast | None = None
    """Not decided: what the looks that are left will probably show; None after the last one, and where it cannot be predicted."""


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
        ended: set[str] = set()
        reached = self._reached(load)
        number = reached if looks is None else looks
        for look in range(number):
            field = self._at(look)
            regime = field.regime(load, without=gone)
            whole = _with(regime, gone, field)
            if _decided(regime):
                return Judged(whole, self.auto.looks[look], decided=True)
            able, expected = self._contenders(regime, look, ended)
            if not able and look < reached - 1:  # it was measured again nevertheless, by a version that did not predict
                able = tuple(its.deployment for its in regime.standings if its.relation in _OPEN)
            if not able and expected is not None:
                whole = replace(whole, why="; ".join(filter(None, (whole.why, expected.text))))
            if not able or look == number - 1:
                return Judged(whole, self.auto.looks[look], decided=False, contenders=able, forecast=expected)
            gone |= {its.deployment: its for its in regime.standings if its.relation == "behind"}
            ended |= {its.deployment for its in regime.standings if its.deployment not in able}
        raise ValueError("a run is looked at at least once")

    def _contenders(self, regime: Regime, look: int, ended: Collection[str]) -> tuple[tuple[str, ...], Forecast | None]:
        """The deployments whose further restarts can change the outcome with a useful probability. ended: those that get none any more."""
        able = [its for its in regime.standings if its.relation in _OPEN and its.deployment not in ended]
        names = tuple(its.deployment for its in able)
        best, others = regime.best, [its for its in regime.standings if its.relation in _COMPARED]
        left = self.auto.looks[look + 1 :]
        wavers = any(its.relation == "misses the SLO" and not its.agreed for its in able)
        if best is None or not left or wavers:
            return names, None
        sides = [self._side(its, left, ended) for its in (best, *others)]
        expected = forecast(sides[0], sides[1:], self.auto.errors[look + 1 :], self.equal_within)
        if expected is None or expected.decided >= LEAST_CHANCE:
            return names, expected
        losing = {its.deployment for its, chance in zip(others, expected.behind, strict=True) if chance >= LEAST_CHANCE} - set(ended)
        return tuple(name for name in names if losing and name in {best.deployment, *losing}), expected

    def _side(self, its: Standing, left: Sequence[int], ended: Collection[str]) -> Side:
        values = its.value.values if its.value is not None else ()
        return Side(values, tuple(len(values) if its.deployment in ended else max(goal, len(values)) for goal in left))

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


_COMPARED = ("equal", "cannot tell", "probably behind")
_OPEN = ("best", *_COMPARED, "misses the SLO")
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
