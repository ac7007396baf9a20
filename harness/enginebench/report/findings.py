"""Headings of sections: what a figure shows, computed from the data. A claim that one is better follows the tests of the analysis.

A section adds its own where it shows more than who is best. Knows no section and no markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.conclusion import Grid, Outcome, Regime, Statement
from enginebench.analysis.figure_grids import figure_grids
from enginebench.domain.formatting import counted, percent, rounded
from enginebench.metrics.registry import find
from enginebench.report.columns import column
from enginebench.report.section import Context

_LONGEST = 150
_NAMED = 3


def leader_finding(figure: str, analysis: Analysis) -> str:
    """'a has the lowest TTFT p50 up to 8 streams: 4.0-4.4 % below b; c at 64 streams'; '' where nothing is known."""
    grids = figure_grids(analysis.rows, figure, analysis.equal_within)
    several = len({grid.scale.model for grid in grids}) > 1
    kinds = len({grid.scale.kind for grid in grids}) > 1
    texts = []
    for grid in grids:
        about = ", ".join(filter(None, (grid.scale.model if several else "", grid.scale.kind if kinds else "", grid.scale.settings)))
        texts.append(f"{f'{about}: ' if about else ''}{_of_grid(grid, figure, analysis)}")
    return joined(texts)


def joined(texts: Sequence[str]) -> str:
    """As many of the sentences as fit; the others are in the figure."""
    shown = list(texts[:1])
    for text in texts[1:]:
        if len("; ".join([*shown, text])) > _LONGEST:
            break
        shown.append(text)
    return "; ".join(shown)


def _of_grid(grid: Grid, figure: str, analysis: Analysis) -> str:
    label = column(figure, analysis).label
    first, *others = grid.statements
    text = _sentence(first, grid, label, figure, analysis)
    more = [brief for each in others if (brief := _brief(each))]
    return joined([text, *more])


def _sentence(its: Statement, grid: Grid, label: str, figure: str, analysis: Analysis) -> str:
    where = its.where or ("at every load" if len(grid.regimes) > 1 else "")
    low = (found := find(figure)) is not None and found[0].better == "lower"
    names = listed(its.leaders)
    if its.outcome in ("leads", "probably leads"):
        has = "has" if its.outcome == "leads" else "probably has"
        lead = its.lead.replace(" ahead of ", " below " if low else " above ")
        return _words(names, has, "the lowest" if low else "the highest", label, where) + (f": {lead}" if lead else "")
    if its.outcome == "equal":
        margin = analysis.equal_within if analysis.equal_within is not None else found[0].equal_within if found else 0.03
        return f"{_words(names, 'are equal in', label, where)} (within {percent(margin)})"
    if its.outcome == "cannot tell":
        return _words(names, "cannot be told apart in", label, where)
    values = [best.value.value for at in its.regimes if (r := grid.at(*at)) is not None and (best := r.best) and best.value]
    its_column = column(figure, analysis)
    return f"{names}: {label} {span([value * its_column.factor for value in values])} {its_column.unit} {where}".strip()


def _words(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _brief(its: Statement) -> str:
    """A further statement: 'c at 64 streams', 'equal from 4 streams'."""
    if its.outcome in ("leads", "probably leads"):
        return f"{'probably ' if its.outcome == 'probably leads' else ''}{its.leaders[0]} {its.where}"
    return f"{'equal' if its.outcome == 'equal' else 'not told apart'} {its.where}" if its.outcome in ("equal", "cannot tell") else ""


def grid_finding(context: Context) -> str:
    """How many loads each deployment leads: 'Of 9 loads, a leads at 8 and b at 1'."""
    grids = context.analysis.conclusion.grids
    models = list(dict.fromkeys(grid.scale.model for grid in grids))
    texts = []
    for model in models:
        regimes = [each for grid in grids if grid.scale.model == model for each in grid.regimes if each.outcome != "nothing"]
        if not regimes:
            continue
        texts.append(f"{f'{model}: ' if len(models) > 1 else ''}{_counts(regimes)}")
    return sentence_case(joined(texts)) if texts else ""


_OUTCOMES: tuple[tuple[Outcome, str], ...] = (
    ("equal", "the first are equal"), ("cannot tell", "the first are not told apart"), ("none holds", "none meets the SLO"),
    ("alone", "only one has a figure"),
)  # fmt: skip


def _counts(regimes: Sequence[Regime]) -> str:
    parts = []
    for outcome, verb in (("leads", "leads"), ("probably leads", "is probably ahead")):
        leaders = Counter(each.leaders[0] for each in regimes if each.outcome == outcome and each.leaders)
        parts += [f"{name} {verb} at {count}" for name, count in leaders.most_common()]
    for outcome, words in _OUTCOMES:
        if count := sum(each.outcome == outcome for each in regimes):
            parts.append(f"{words} at {count}")
    if len(parts) == 1 and len(regimes) > 1:
        return parts[0].removesuffix(f" at {len(regimes)}") + (" at both loads" if len(regimes) == 2 else f" at all {len(regimes)} loads")
    return f"of {counted(len(regimes), 'load')}, {listed(parts, most=4)}" if len(regimes) > 1 else parts[0].removesuffix(" at 1")


# -- facts -------------------------------------------------------------------------------------------------------------------


def span(values: Sequence[float], digits: int = 3) -> str:
    """'12-15', '3.1': the lowest and the highest."""
    ends = [rounded(min(values), digits), rounded(max(values), digits)] if values else []
    return "-".join(dict.fromkeys(ends))


_SAME = 0.03


def times(ratios: Sequence[float]) -> str:
    """How a figure changes by factors: 'rises 4.1-5.2 times', 'falls to 40-45 %', 'becomes 0.8-1.4 times as large'."""
    if max(ratios) < 1 + _SAME and min(ratios) > 1 - _SAME:
        return "stays the same within 3 %"
    if min(ratios) > 1:
        return f"rises {span(ratios, 2)} times"
    if max(ratios) < 1:
        return f"falls to {span([100 * ratio for ratio in ratios], 2)} %"
    return f"becomes {span(ratios, 2)} times as large"


def ratios(figure: str, groups: Sequence[Sequence[Row]]) -> list[float]:
    """Of each group of rows (in order) the figure of the last over that of the first, where both are known."""
    found = []
    for its in groups:
        ends = [each.value if (each := row.figures.get(figure)) is not None else 0.0 for row in (its[0], its[-1])]
        found += [ends[1] / ends[0]] if len(its) > 1 and min(ends) > 0 else []
    return found


def listed(names: Sequence[str], *, most: int = _NAMED) -> str:
    """'a, b and c'; 'a and 4 others'."""
    if len(names) > most + 1:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} others" if most > 1 else f"{len(names)}"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0] if names else ""


def sentence_case(text: str) -> str:
    """With a capital where it begins with a word of ours; names of deployments and models stay as they are."""
    return text[:1].upper() + text[1:] if text.startswith(("of ", "the first", "none ", "only one", "probably ")) else text
