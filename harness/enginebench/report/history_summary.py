"""Many nights in a terminal and in Markdown: what changed, when, by how much and with what; then what did not. 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from enginebench.analysis.comparison import Changed
from enginebench.analysis.history import Change, History, Trend
from enginebench.analysis.nights import Point
from enginebench.domain.formatting import counted, number, percent
from enginebench.metrics.change_points import FEWEST
from enginebench.report.columns import Column, column
from enginebench.report.export import escape_markdown
from enginebench.report.layout import aligned, columns_of, joined, labelled

_MOST, _MOST_CAUSES, _MOST_OUTLIERS = 6, 3, 2
_BARS = "▁▂▃▄▅▆▇█"
_LONGEST = 16
"""Nights of a trend in one line; of more, neighbours are folded into their median."""
_HEADINGS = ("deployment", "load", "figure", "trend", "change", "nights", "first", "last")
_LEFT = 3


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
    if _deployment(a) != _deployment(b) or first.kind != second.kind:
        return False
    if first.kind == "drift":
        return first.earliest.night.at <= second.latest.night.at and second.earliest.night.at <= first.latest.night.at
    return any(its.earliest.night.day <= at.night.day <= its.latest.night.day for its, at in ((first, second.at), (second, first.at)))


def _deployment(trend: Trend) -> str:
    return f"{trend.series.row.deployment.model} {trend.series.row.name}"


# -- sentences -----------------------------------------------------------------------------------------------------------


def sentence(found: History) -> str:
    """'1 change in 42 nights: vllm tok/s -5.6 % on 2026-11-13 (version 0.33.0 -> 0.34.0).'"""
    made, nights = groups(found), _nights(found)
    if not found.judged:
        return f"Nothing can be said yet: {counted(nights, 'night') if nights else 'no night'} with a usable value, {FEWEST} are needed."
    if not made:
        return f"No change in {counted(nights, 'night')}: {counted(found.judged, 'series', 'series')} judged."
    first = [f"{_name(found, each)} {_size(*each.main(found.figures))} {_when(each)}{_with(each)}" for each in made[:_LEFT]]
    more = [f"and {len(made) - _LEFT} more"] if len(made) > _LEFT else []
    return f"{counted(len(made), 'change')} in {counted(nights, 'night')}: {'; '.join([*first, *more])}."


def change_sentences(found: History) -> list[str]:
    """One for each change, the newest first: 'worse: 2026-11-13 vllm tok/s 464 -> 438, -5.6 % ...'; or that there is none."""
    told = [list(describe(found, group)) for group in groups(found)]
    sentences = [f"{its[0][0].lower()}: {'; '.join(' '.join(text.split()) for _, text in its)}" for its in told[:_MOST]]
    more = [f"and {len(told) - _MOST} more: bench history"] if len(told) > _MOST else []
    return [*sentences, *more] or [sentence(found)]


def _nights(found: History) -> int:
    return max((len(trend.series.used) for trend in found.trends), default=0)


def _name(found: History, group: Group) -> str:
    row = group.changes[0][0].series.row
    several = len({trend.series.row.deployment.model for trend in found.trends}) > 1
    return f"{row.deployment.model} {row.name}" if several else row.name


def _column(trend: Trend) -> Column:
    return column(trend.series.figure)


def _label(trend: Trend) -> str:
    return "tok/s" if trend.series.figure == "output_throughput" else _column(trend).label


def _size(trend: Trend, change: Change) -> str:
    return f"{_label(trend)} {_percent(change)}"


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


# -- terminal ------------------------------------------------------------------------------------------------------------


def render_history(found: History, folder: str, *, width: int | None = None, all_shown: bool = False) -> str:
    width = columns_of(width)
    made = groups(found)
    shown = made if all_shown else made[:_MOST]
    lines = [head(found)]
    if not found.judged:
        lines += labelled("ANSWER", sentence(found), width)
    for group in shown:
        lines += [line for label, text in describe(found, group) for line in labelled(label, text, width)]
    if len(made) > len(shown):
        lines.append(f"        and {len(made) - len(shown)} more: --all")
    for label, text in notes(found):
        lines += labelled(label, text, width)
    if not all_shown:
        lines.append(f"more    bench history {shlex.quote(folder or 'FOLDER')} --all")
    return joined([lines])


def head(found: History) -> str:
    """'history · nightly · 42 runs, 2026-10-20 to 2026-11-30 · 2 deployments'"""
    names = list(dict.fromkeys(analysis.run.name for analysis in found.analyses))
    days = [at[:10] for at in found.nights]
    span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    many = counted(len({_deployment(trend) for trend in found.trends}), "deployment")
    return f"history · {names[0] if len(names) == 1 else counted(len(names), 'scenario')} · {counted(len(days), 'run')}, {span} · {many}"


def describe(found: History, group: Group) -> Iterator[tuple[str, str]]:
    """Label and text of each line about a group; the label stands before the first."""
    trend, change = group.main(found.figures)
    its = _column(trend)
    values = f"{number(change.before * its.factor)} -> {number(change.after * its.factor)}"
    name = f"{_name(found, group)}  {_label(trend)} {values}{'' if its.unit == 'tok/s' else ' ' + its.unit}, {_percent(change)}"
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
            deployment = _deployment(group.changes[0][0])
            of = [
                trend
                for trend in found.trends
                if trend.series.figure == figure and _deployment(trend) == deployment and not trend.not_judged
            ]
            yield f"{_label(of[0])} at {len(its)} of {counted(len(of), 'load')}", its


def _range(changes: Sequence[Change]) -> str:
    ends = sorted(changes, key=lambda change: change.relative)
    return _percent(ends[0]) if len(ends) == 1 else f"{_percent(ends[0])} to {_percent(ends[-1])}"


def notes(found: History) -> list[tuple[str, str]]:
    """Label and text: what did not change, single nights, and what was left out."""
    return [*_unchanged(found), *_notes(found)]


def _unchanged(found: History) -> Iterator[tuple[str, str]]:
    same = [trend for trend in found.trends if not trend.changes and not trend.not_judged]
    if same:
        noise = percent(float(np.median([trend.noise for trend in same])), 2)
        yield "SAME", f"{len(same)} of {counted(found.judged, 'series', 'series')} did not change (a night varies by {noise})"
    if few := [trend for trend in found.trends if trend.not_judged]:
        reasons = list(dict.fromkeys(trend.not_judged for trend in few))
        yield "UNKNOWN", f"{counted(len(few), 'series', 'series')} not judged: {reasons[0]}"


def _notes(found: History) -> Iterator[tuple[str, str]]:
    odd = [(point, trend) for trend in found.trends for point in trend.outliers]
    if odd:
        figures: dict[tuple[str, str], dict[str, None]] = {}
        for point, trend in sorted(odd, key=lambda its: its[0].night.at, reverse=True):
            figures.setdefault((point.night.day, trend.series.row.name), {})[_label(trend)] = None
        texts = [f"{day} {name} {', '.join(labels)}" for (day, name), labels in figures.items()]
        more = [f"{len(texts) - _MOST_OUTLIERS} more"] if len(texts) > _MOST_OUTLIERS else []
        yield "OUTLIER", f"one night only, no change: {' · '.join([*texts[:_MOST_OUTLIERS], *more])}"
    left = [point for trend in found.trends for point in _unused(trend)]
    if left:
        of = sum(len(trend.series.points) for trend in found.trends)
        kinds = list(dict.fromkeys(point.doubt.partition(":")[0] for point in left))
        counts = [f"{sum(point.doubt.partition(':')[0] == kind for point in left)} {kind}" for kind in kinds]
        yield "LEFT OUT", f"{len(left)} of {of} values: {', '.join(counts)}"
    if any(trend.series.mostly_suspect for trend in found.trends):
        yield "TRUST", "indicative only: most nights are suspect, so suspect values are used; bench report RUN --why"


def _unused(trend: Trend) -> Iterator[Point]:
    used = set(map(id, trend.series.used))
    return (point for point in trend.series.points if id(point) not in used)


# -- every trend ---------------------------------------------------------------------------------------------------------


def render_trends(found: History, *, width: int | None = None) -> str:
    return joined([list(aligned(table(found), columns_of(width), left=_LEFT))])


def _row(trend: Trend, *, shapes: bool) -> tuple[str, ...]:
    row, its, used = trend.series.row, _column(trend), trend.series.used
    ends = [number(point.found.value * its.factor) for point in (used[0], used[-1]) if point.found is not None]
    load = f"{row.load.level_text} {row.load.shape_text.removesuffix(' tokens')}" if shapes else row.load.level_text
    changes = ", ".join(short(change) for change in trend.changes) or ("?" if trend.not_judged else "~")
    figure = _label(trend) if its.unit == "tok/s" else its.heading
    return (row.name, load, figure, sparkline(used), changes, str(len(used)), *ends)


def short(change: Change) -> str:
    """'-5.8 % 09-26', 'drift +8.4 %'"""
    return f"drift {_percent(change)}" if change.kind == "drift" else f"{_percent(change)} {change.at.night.day[5:]}"


def table(found: History) -> list[tuple[str, ...]]:
    """Headings, then a row for each trend."""
    shapes = len({trend.series.row.load.shape_text for trend in found.trends}) > 1
    return [_HEADINGS, *(_row(trend, shapes=shapes) for trend in found.trends)]


def sparkline(points: Iterable[Point]) -> str:
    """'▂▂▃▂▂▇▇▇': one bar per night, between the lowest and the highest, but no range below a tenth of the value."""
    values = np.array([point.found.value for point in points if point.found is not None])
    if not len(values):
        return ""
    if len(values) > _LONGEST:
        values = np.array([np.median(part) for part in np.array_split(values, _LONGEST)])
    low, high = float(values.min()), float(values.max())
    room = max(high - low, 0.1 * abs(high)) or 1.0
    start = (low + high - room) / 2
    return "".join(_BARS[min(int((value - start) / room * len(_BARS)), len(_BARS) - 1)] for value in values.tolist())


def render_markdown(found: History) -> str:
    parts = ["## History", f"**{escape_markdown(sentence(found))}**"]
    bullets = []
    for group in groups(found):
        (label, text), *more = describe(found, group)
        bullets.append(f"- **{label}** {escape_markdown('; '.join([text, *(each for _, each in more)]))}")
    bullets += [f"- {label.lower()}: {escape_markdown(text)}" for label, text in notes(found)]
    headings, *rows = table(found)
    rule = ["--:" if i > _LEFT + 1 else ":--" for i in range(len(headings))]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *(tuple(map(escape_markdown, row)) for row in rows)))
    return "\n\n".join(filter(None, [*parts, "\n".join(bullets), lines if rows else ""])) + "\n"
