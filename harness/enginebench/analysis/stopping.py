"""How a run with `repeats: auto` went: after how many restarts each load was decided, and what a fixed number would have cost. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.conclude import decides, fields_of
from enginebench.analysis.conclusion import Outcome
from enginebench.analysis.engine_time import EngineTime
from enginebench.analysis.sequential import Looks
from enginebench.domain import Cell
from enginebench.domain.formatting import counted, duration, percent


@dataclass(frozen=True)
class Stop:
    """One load of one model."""

    model: str
    load: str
    """'4 streams, 128 + 64 tokens'."""
    restarts: int
    """After which it was decided, or after which the run ended."""
    decided: bool
    outcome: Outcome
    why: str
    """Not decided: why not."""
    chance: float | None = None
    """Not decided: the probability that the restarts left would have decided it, when the last ones were measured; None: none are left."""
    needed: int | None = None
    """Not decided: restarts of each deployment that would probably tell; None: unknown, or 1,000 or more."""


@dataclass(frozen=True)
class Stopping:
    stops: tuple[Stop, ...]
    most: int
    spent_s: float
    """Engine time: starts and cells."""
    fixed_s: float
    """The same for `most` restarts of every deployment and load, at the mean of those measured."""

    @property
    def text(self) -> str:
        """'7 of 9 loads are decided, after 4 to 6 restarts; 12 restarts of all would have taken 1.2 h, these took 24 min (33 %)'."""
        decided = [its.restarts for its in self.stops if its.decided]
        after = f", after {_range(decided)} restarts" if decided else ""
        saved = f"{self.most} restarts of all would have taken {duration(self.fixed_s)}, these took {duration(self.spent_s)}"
        share = f" ({percent(self.spent_s / self.fixed_s)})" if self.fixed_s > 0 else ""
        verb = "is" if len(self.stops) == 1 else "are"
        return f"{len(decided)} of {counted(len(self.stops), 'load')} {verb} decided{after}; {saved}{share}"


def stopping(analysis: Analysis) -> Stopping | None:
    """None for a run with a fixed number of restarts, and for one without any row."""
    auto, rows = analysis.run.auto_repeats, analysis.rows
    if auto is None or not rows:
        return None
    figures = {model: decides(model, rows) for model in dict.fromkeys(row.deployment.model for row in rows)}
    stops = []
    for model, field in fields_of(rows, analysis.run, figures, slo=analysis.slo, equal_within=analysis.equal_within).items():
        if not isinstance(field, Looks):
            continue
        for load in field.loads:
            its = field.judged(load)
            shown = f"{load.level_text}, {load.shape_text}"
            why, expected = "" if its.decided else its.regime.why, its.forecast
            chance, needed = (expected.decided, expected.needed) if expected is not None else (None, None)
            stops.append(Stop(model, shown, its.restarts, its.decided, its.regime.outcome, why, chance, needed))
    records = {cell.record.id: cell.record for row in rows for cell in row.cells}.values()
    spent = EngineTime.of(analysis.launches.values(), records)
    once = [Cell(record.deployment, record.load) for record in records if record.repeat == 0 and record.status == "ok"]
    return Stopping(tuple(stops), auto.most, spent.spent_s, auto.most * spent.expected_s(once))


def _range(numbers: list[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"
