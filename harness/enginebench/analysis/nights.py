"""From stored runs to series: one per deployment, load and figure, with a point per night and what changed there.

Rows are paired over runs as `enginebench.analysis.comparison` pairs those of two runs. The restarts of a night are one point: their median.
It judges nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from enginebench.analysis.comparison import NOT_RECORDED, Changed, once, weight
from enginebench.analysis.night_run import NightRow, NightRun
from enginebench.metrics.change_points import FEWEST
from enginebench.metrics.statistics import Estimate, estimate

_SHARED = ("machine", "run")
"""What a fact may be of, besides a deployment."""
_RESTLESS = 0.25
"""A fact that changes at more than this share of the nights explains nothing."""


@dataclass(frozen=True)
class Night:
    """One run of a deployment under a load, or several of the same day between which nothing changed."""

    at: str
    """When the run started: UTC, ISO 8601."""
    rows: tuple[NightRow, ...]
    facts: Mapping[tuple[str, str], str]

    @property
    def day(self) -> str:
        return self.at[:10]


@dataclass(frozen=True)
class Lane:
    """A deployment under a load over all nights."""

    nights: tuple[Night, ...]

    @property
    def row(self) -> NightRow:
        """As it was in the last night."""
        return self.nights[-1].rows[-1]


@dataclass(frozen=True)
class Point:
    """A figure in a night."""

    night: Night
    found: Estimate | None = None
    """The median over the restarts, with its interval; None: there is no value."""
    doubt: str = ""
    """Why the value may mislead: the night is suspect or invalid, or failed."""


@dataclass(frozen=True)
class Series:
    """A figure of a lane over the nights."""

    figure: str
    row: NightRow
    points: tuple[Point, ...]
    """Every night, in the order of time."""
    used: tuple[Point, ...] = ()
    """Those that are judged."""
    known: Mapping[int, tuple[Changed, ...]] = field(default_factory=dict)
    """Position in `used` -> what changed there since the position before."""

    @property
    def mostly_suspect(self) -> bool:
        return bool(self.used) and all(point.doubt for point in self.used)


def read_lanes(runs: Sequence[NightRun]) -> list[Lane]:
    """Every deployment and load of the runs, which are in the order of time."""
    lanes: list[list[tuple[NightRow, NightRun]]] = []
    by_key: dict[str, list[tuple[NightRow, NightRun]]] = {}
    for run in runs:
        rows = once(run.rows, lambda row: row.key)
        found = {key: by_key[key] for key in rows if key in by_key}
        taken = set(map(id, found.values()))
        of_scenario = [lane for lane in lanes if lane[-1][1].name == run.name and id(lane) not in taken]
        latest = {id(lane[-1][0]): lane for lane in of_scenario}
        ours = once([lane[-1][0] for lane in of_scenario], lambda row: row.engine_key)
        theirs = once([row for key, row in rows.items() if key not in found], lambda row: row.engine_key)
        moved = {id(row): latest[id(ours[key])] for key, row in theirs.items() if key in ours}
        for key, row in rows.items():
            lane = found.get(key) or moved.get(id(row))
            if lane is None:
                lanes.append(lane := [])
            lane.append((row, run))
            by_key[key] = lane
    by_day = len({run.created_at[:10] for run in runs}) >= FEWEST
    return [Lane(tuple(_nights(lane, by_day=by_day))) for lane in lanes]


def _nights(lane: Sequence[tuple[NightRow, NightRun]], *, by_day: bool) -> Iterator[Night]:
    """by_day: whether runs of the same day and the same facts are one night; runs of one or few days are a night each."""
    last: Night | None = None
    for row, run in lane:
        night = Night(run.created_at, (row,), run.facts_of(row))
        if last is not None and by_day and last.day == night.day and last.facts == night.facts:
            last = replace(last, rows=(*last.rows, *night.rows))
            continue
        if last is not None:
            yield last
        last = night
    if last is not None:
        yield last


def read_series(lane: Lane, figure: str) -> Series:
    """Of the nights that are judged: the valid ones, or all with a value where most are suspect."""
    points = tuple(_point(night, figure) for night in lane.nights)
    valued = [point for point in points if point.found is not None]
    valid = [point for point in valued if not point.doubt]
    used = tuple(valid if len(valid) * 2 >= len(valued) else valued)
    return Series(figure, lane.row, points, used, _known(used))


def _point(night: Night, figure: str) -> Point:
    """The restarts that are valid, or else those that are suspect."""
    cells = [cell for row in night.rows for cell in row.cells if cell.figures.get(figure) is not None and cell.verdict != "invalid"]
    valid = [cell for cell in cells if cell.verdict == "valid"]
    found = estimate([value for cell in valid or cells if (value := cell.figures.get(figure)) is not None])
    if found is not None and valid:
        return Point(night, found)
    if found is not None:
        return Point(night, found, f"suspect: {cells[0].doubt or 'no reason was recorded'}")
    row = night.rows[-1]
    state = "invalid" if row.verdict == "invalid" else row.status if row.status != "ok" else "no value"
    return Point(night, None, f"{state}: {row.reasons[0]}" if row.reasons else state)


def _known(used: Sequence[Point]) -> dict[int, tuple[Changed, ...]]:
    """Without the facts that change all the time."""
    changes = {i: list(_differences(before.night, after.night)) for i, (before, after) in enumerate(itertools.pairwise(used), 1)}
    counts: dict[str, int] = {}
    for each in changes.values():
        for what in {change.what for change in each}:
            counts[what] = counts.get(what, 0) + 1
    most = max(_RESTLESS * len(used), 2)
    kept = {i: tuple(change for change in each if counts[change.what] <= most) for i, each in changes.items()}
    return {i: each for i, each in kept.items() if each}


def _differences(before: Night, after: Night) -> Iterator[Changed]:
    """By importance; a name of the deployment that changed is no change of its facts."""
    facts = [{(of if of in _SHARED else "", what): text for (of, what), text in night.facts.items()} for night in (before, after)]
    name = after.rows[-1].name
    for of, what in sorted({**facts[0], **facts[1]}, key=lambda key: weight(key[1])):
        one, other = (each.get((of, what), NOT_RECORDED) for each in facts)
        if one != other:
            yield Changed(of or name, what, one, other)
