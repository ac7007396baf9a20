"""Changes over many nights in words: those of one deployment in one night belong together, and are described together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from enginebench.analysis.comparison import Changed
from enginebench.analysis.history import Change, History, Trend
from enginebench.domain.formatting import counted, number
from enginebench.metrics.change_points import FEWEST
from enginebench.report.columns import Column, column

MOST = 6
"""Changes that are described; of more, the number is given."""
_MOST_CAUSES, _MOST_IN_A_SENTENCE = 3, 3


@dataclass(frozen=True)
class Group:
    """Changes of one deployment in one night, under all loads and of all figures."""

    changes: tuple[tuple[Trend, Change], ...]
    """The surest first."""

    def main(self, figures: Sequence[str]) -> tuple[Trend, Change]:
        """The one that is told: of the first figure."""
        return min(self.changes, key=lambda its: figures.index(its[0].series.figure))

    @property
    def label(self) -> str:
        words = {change.direction for _, change in self.changes}
        return next(word for word in ("worse", "better", "changed") if word in words).upper()

    @property
    def causes(self) -> tuple[Changed, ...]:
        return tuple(dict.fromkeys(each for _, change in self.changes for each in change.causes if change.at.night.day == self.day))

    @property
    def day(self) -> str:
        return self.changes[0][1].at.night.day


def groups(found: History) -> list[Group]:
    """The newest first, and of a night the worse ones. Changes belong together if the night of either may be that of the other."""
    made: list[list[tuple[Trend, Change]]] = []
    for each in sorted(found.changes, key=lambda its: its[1].p):
        home = next((group for group in made if _together(group[0], each)), None)
        if home is None:
            made.append(home := [])
        home.append(each)
    grouped = [Group(tuple(each)) for each in made]
    return sorted(grouped, key=lambda its: (its.day, its.label == "WORSE"), reverse=True)


def _together(one: tuple[Trend, Change], other: tuple[Trend, Change]) -> bool:
    (a, first), (b, second) = one, other
    if deployment_of(a) != deployment_of(b) or first.kind != second.kind:
        return False
    if first.kind == "drift":
        return first.earliest.night.at <= second.latest.night.at and second.earliest.night.at <= first.latest.night.at
    return any(its.earliest.night.day <= at.night.day <= its.latest.night.day for its, at in ((first, second.at), (second, first.at)))


def deployment_of(trend: Trend) -> str:
    return f"{trend.series.row.deployment.model} {trend.series.row.name}"


# -- sentences -----------------------------------------------------------------------------------------------------------


def sentence(found: History) -> str:
    """'1 change in 42 nights: vllm tok/s -5.6 % on 2026-11-13 (version 0.33.0 -> 0.34.0).'"""
    made, nights = groups(found), _nights(found)
    if not found.judged:
        return f"Nothing can be said yet: {counted(nights, 'night') if nights else 'no night'} with a usable value, {FEWEST} are needed."
    if not made:
        return f"No change in {counted(nights, 'night')}: {counted(found.judged, 'series', 'series')} judged."
    first = [f"{_name(found, each)} {_size(*each.main(found.figures))} {_when(each)}{_with(each)}" for each in made[:_MOST_IN_A_SENTENCE]]
    more = [f"and {len(made) - _MOST_IN_A_SENTENCE} more"] if len(made) > _MOST_IN_A_SENTENCE else []
    return f"{counted(len(made), 'change')} in {counted(nights, 'night')}: {'; '.join([*first, *more])}."


def change_sentences(found: History) -> list[str]:
    """One for each change, the newest first: 'worse: 2026-11-13 vllm tok/s 464 -> 438, -5.6 % ...'; or that there is none."""
    told = [list(describe(found, group)) for group in groups(found)]
    sentences = [f"{its[0][0].lower()}: {'; '.join(' '.join(text.split()) for _, text in its)}" for its in told[:MOST]]
    more = [f"and {len(told) - MOST} more: bench history"] if len(told) > MOST else []
    return [*sentences, *more] or [sentence(found)]


def _nights(found: History) -> int:
    return max((len(trend.series.used) for trend in found.trends), default=0)


def _name(found: History, group: Group) -> str:
    row = group.changes[0][0].series.row
    several = len({trend.series.row.deployment.model for trend in found.trends}) > 1
    return f"{row.deployment.model} {row.name}" if several else row.name


def figure_column(trend: Trend) -> Column:
    return column(trend.series.figure)


def figure_label(trend: Trend) -> str:
    return "tok/s" if trend.series.figure == "output_throughput" else figure_column(trend).label


def _size(trend: Trend, change: Change) -> str:
    return f"{figure_label(trend)} {_percent(change)}"


def _percent(change: Change) -> str:
    return f"{100 * change.relative:+.1f} %" if abs(change.relative) < 0.095 else f"{100 * change.relative:+.0f} %"


def _when(group: Group) -> str:
    change = group.changes[0][1]
    if change.kind == "drift":
        return f"gradually from {change.earliest.night.day} to {change.latest.night.day}"
    return f"on {group.day}"


def _with(group: Group) -> str:
    return f" ({_cause(group.causes[0])})" if group.causes else ""


def _cause(each: Changed) -> str:
    texts = [text if len(text) <= 24 else f"{text[:21]}..." for text in (each.base, each.candidate)]
    return f"{each.of}: {each.what} {texts[0]} -> {texts[1]}"


def describe(found: History, group: Group) -> Iterator[tuple[str, str]]:
    """Label and text of each line about a group; the label stands before the first."""
    trend, change = group.main(found.figures)
    its = figure_column(trend)
    values = f"{number(change.before * its.factor)} -> {number(change.after * its.factor)}"
    name = f"{_name(found, group)}  {figure_label(trend)} {values}{'' if its.unit == 'tok/s' else ' ' + its.unit}, {_percent(change)}"
    yield group.label, f"{group.day}  {name}{_interval(change)}"
    others = [f"{label}: {_range(its)}" for label, its in _by_figure(found, group)]
    yield "", f"under {' · '.join(others)}"
    if change.kind == "drift":
        yield "", f"gradually, from {change.earliest.night.day} to {change.latest.night.day}{_a_week(change)}"
    else:
        if change.earliest.night.day != change.latest.night.day:
            yield "", f"the night is one of {change.earliest.night.day} to {change.latest.night.day} (95 %)"
        causes = [_cause(each) for each in group.causes]
        more = [f"{len(causes) - _MOST_CAUSES} more"] if len(causes) > _MOST_CAUSES else []
        yield "", f"with {' · '.join([*causes[:_MOST_CAUSES], *more]) or 'nothing that is recorded'}"


def _interval(change: Change) -> str:
    return "" if change.low is None or change.high is None else f" [{100 * change.low:+.1f} to {100 * change.high:+.1f}]"


def _a_week(change: Change) -> str:
    nights = (np.datetime64(change.latest.night.day) - np.datetime64(change.earliest.night.day)).astype(int)
    return f", {100 * change.relative * 7 / nights:+.1f} % a week" if nights >= 7 else ""


def _by_figure(found: History, group: Group) -> Iterator[tuple[str, list[Change]]]:
    """('tok/s at 3 of 4 loads', its changes)"""
    for figure in found.figures:
        its = [change for trend, change in group.changes if trend.series.figure == figure]
        if its:
            deployment = deployment_of(group.changes[0][0])
            of = [
                trend
                for trend in found.trends
                if trend.series.figure == figure and deployment_of(trend) == deployment and not trend.not_judged
            ]
            yield f"{figure_label(of[0])} at {len(its)} of {counted(len(of), 'load')}", its


def _range(changes: Sequence[Change]) -> str:
    ends = sorted(changes, key=lambda change: change.relative)
    return _percent(ends[0]) if len(ends) == 1 else f"{_percent(ends[0])} to {_percent(ends[-1])}"


def short(change: Change) -> str:
    """'-5.8 % 09-26', 'drift +8.4 %'"""
    return f"drift {_percent(change)}" if change.kind == "drift" else f"{_percent(change)} {change.at.night.day[5:]}"
