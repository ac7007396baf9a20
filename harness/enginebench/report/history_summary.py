"""Many nights in a terminal and in Markdown: what changed, when, by how much and with what; then what did not. 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

import numpy as np

from enginebench.analysis.history import History, Trend
from enginebench.analysis.nights import Point
from enginebench.domain.formatting import counted, number, percent
from enginebench.report.export import escape_markdown
from enginebench.report.history_changes import MOST, deployment_of, describe, figure_column, figure_label, groups, sentence, short
from enginebench.report.layout import aligned, columns_of, joined, labelled

_MOST_OUTLIERS = 2
_BARS = "▁▂▃▄▅▆▇█"
_LONGEST = 16
"""Nights of a trend in one line; of more, neighbours are folded into their median."""
_HEADINGS = ("deployment", "load", "figure", "trend", "change", "nights", "first", "last")
_LEFT = 3


# -- terminal ------------------------------------------------------------------------------------------------------------


def render_history(found: History, folder: str, *, width: int | None = None, all_shown: bool = False) -> str:
    width = columns_of(width)
    made = groups(found)
    shown = made if all_shown else made[:MOST]
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
    names = list(dict.fromkeys(run.name for run in found.runs))
    days = [at[:10] for at in found.nights]
    span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    many = counted(len({deployment_of(trend) for trend in found.trends}), "deployment")
    return f"history · {names[0] if len(names) == 1 else counted(len(names), 'scenario')} · {counted(len(days), 'run')}, {span} · {many}"


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
            figures.setdefault((point.night.day, trend.series.row.name), {})[figure_label(trend)] = None
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
    row, its, used = trend.series.row, figure_column(trend), trend.series.used
    ends = [number(point.found.value * its.factor) for point in (used[0], used[-1]) if point.found is not None]
    load = f"{row.load.level_text} {row.load.shape_text.removesuffix(' tokens')}" if shapes else row.load.level_text
    changes = ", ".join(short(change) for change in trend.changes) or ("?" if trend.not_judged else "~")
    figure = figure_label(trend) if its.unit == "tok/s" else its.heading
    return (row.name, load, figure, sparkline(used), changes, str(len(used)), *ends)


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
