"""The answer of a run in a terminal: at most 24 lines of 80 columns for a run of ordinary size, readable without colour.

What to run, by regime; whether the figures can be trusted, and what to type if not; a grid; the latencies at one load. It decides nothing:
every sentence is from `enginebench.analysis.conclusion`. Returns text and prints nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.conclusion import Grid, Regime, Standing
from enginebench.analysis.headline import held, name_of, said_by_limits
from enginebench.analysis.machine_text import machine_text
from enginebench.domain.formatting import number
from enginebench.report.columns import MISSING
from enginebench.report.layout import aligned, columns_of, fits, joined, labelled
from enginebench.report.run_facts import size_text, took_text
from enginebench.report.summary_details import latency_rows

_MOST_LINES = 24
"""Where they are too many, the lines between the grids are left out, then the latencies, unless it would not help."""
_MOST_ROWS = 8
"""Lines of the grid with a line for each deployment; with more, it has a line for each context, which names the leader."""
_MOST_SENTENCES = 6
_MOST_LATENCIES = 6
_MOST_CAPACITIES = 8
_MOST_HELD = 3
"""Deployments of which the answer says what they hold; all are below it."""
_MARKS = {"equal": "=", "cannot tell": "~"}


def render_summary(analysis: Analysis, path: Path | None = None, *, width: int | None = None) -> str:
    """The answer, in blocks. path: the run's folder, for the last line. width: columns; None: those of the terminal, at most 100."""
    width = columns_of(width)
    first = [*_head(analysis, width), *_answer(analysis, width), *labelled("TRUST", analysis.conclusion.trust.text, width)]
    several = len(analysis.conclusion.grids) > 1
    grids = [list(_grid(grid, width, several=several)) for grid in analysis.conclusion.grids]
    latencies, limits, end = list(_latencies(analysis, width)), list(_capacities(analysis, width)), list(_end(path, width))
    close = [[line for grid in grids for line in grid]]
    ways = ([first, *grids, latencies, limits, end], [first, *close, latencies, limits, end], [first, *close, limits, end])
    texts = [joined(blocks) for blocks in ways]
    return next((text for text in texts if text.count("\n") <= _MOST_LINES), texts[0])


def _head(analysis: Analysis, width: int) -> Iterator[str]:
    """'quickstart · 2 deployments x 4 loads x 4 restarts · AMD EPYC, 2 cores · 32/32 ok · 74 s'; the CPU's name only where it fits."""
    counts, total = analysis.counts, len(analysis.run.cells)
    cells = [f"{counts['ok']}/{total} ok", *(f"{count} {status}" for status, count in counts.items() if count and status != "ok")]
    machine = analysis.run.machine
    lines = [
        " · ".join(filter(None, (analysis.run.name, size_text(analysis), its, ", ".join(cells), took_text(analysis))))
        for its in (machine_text(machine), machine_text({**machine, "cpu": None}))
    ]
    yield from textwrap.wrap(next((line for line in lines if len(line) <= width), lines[0]), width, break_on_hyphens=False)


def _answer(analysis: Analysis, width: int) -> Iterator[str]:
    """A sentence for each group of regimes with the same leaders, the most important first."""
    found = analysis.conclusion
    sentences: list[str] = []
    left_out: list[str] = []
    currency = analysis.prices.currency if analysis.prices is not None else ""
    for model in found.by_model:
        grids = [each for each in found.grids if each.scale.model == model]
        limits = [each for each in found.capacities if each.model == model]
        texts = [each.removesuffix(".") for each in held(limits, currency, _MOST_HELD)]
        for grid in (each for each in grids if not said_by_limits(each, limits)):
            its = [each.text for each in grid.statements] + list(grid.others)
            name = name_of(grid) if len(grids) > 1 else ""
            texts += [f"{name}: {its[0]}", *its[1:]] if name and its else its
            left_out += [f"{model}: {each}" if len(found.by_model) > 1 else each for each in grid.left_out]
        scope = f"{grids[0].scale.scope}: " if grids and grids[0].scale.scope else ""
        prefix = f"{model}: " if len(found.by_model) > 1 else ""
        sentences += [f"{prefix}{scope}{texts[0]}", *texts[1:]] if texts else []
    if len(sentences) + len(left_out) <= _MOST_SENTENCES:
        sentences += left_out
    sentences = sentences or [found.sentence]
    shown = sentences if len(sentences) <= _MOST_SENTENCES else [*sentences[: _MOST_SENTENCES - 1], _more(sentences)]
    for i, sentence in enumerate(shown):
        yield from labelled("" if i else "ANSWER", sentence, width)


def _more(sentences: Sequence[str]) -> str:
    return f"and {len(sentences) - _MOST_SENTENCES + 1} more: bench report --why"


# -- the grid ------------------------------------------------------------------------------------------------------------


def _grid(grid: Grid, width: int, *, several: bool) -> Iterator[str]:
    scale = grid.scale
    about = f"{scale.model}, " if several else ""
    what = f"{scale.unit}{' within the SLO' if scale.figure == 'goodput' else ''}"
    settings = f", {scale.settings}" if scale.settings else ""
    rows = [["context", "deployment", *scale.levels], *_by_deployment(grid)]
    if len(scale.deployments) == 1 or (len(rows) <= _MOST_ROWS + 1 and fits(rows, width)):
        share = ", and % of the best" if len(scale.deployments) > 1 else ""
        yield f"{about}{what}{share}{settings}{_legend(grid, leaders=False)}"
        yield from aligned(rows, width, left=2)
    else:
        yield f"{about}{what}: the leader, and its lead in %{settings}{_legend(grid, leaders=True)}"
        yield from aligned([["context", *scale.levels], *_by_leader(grid)], width, left=1)


def _legend(grid: Grid, *, leaders: bool) -> str:
    used = [f"{mark} {word}" for word, mark in _MARKS.items() if leaders and any(each.outcome == word for each in grid.regimes)]
    suspect = any(each.suspect if leaders else any(s.suspect for s in each.standings) for each in grid.regimes)
    used += ["? suspect"] if suspect else []
    return f"    {'   '.join(used)}" if used else ""


def _by_deployment(grid: Grid) -> Iterator[list[str]]:
    scale = grid.scale
    for context in scale.contexts:
        for i, name in enumerate(_best_first(grid)):
            cells = [_standing(grid.at(context, level), name, shares=len(scale.deployments) > 1) for level in scale.levels]
            yield ["" if i else context.removesuffix(" tokens"), name, *cells]


def _best_first(grid: Grid) -> list[str]:
    """The deployments by their typical share of the best."""
    shares: dict[str, list[float]] = {name: [] for name in grid.scale.deployments}
    for each in (each for regime in grid.regimes for each in regime.standings if each.share is not None):
        shares[each.deployment].append(each.share or 0.0)
    return sorted(shares, key=lambda name: -sum(shares[name]) / max(len(shares[name]), 1))


def _standing(regime: Regime | None, name: str, *, shares: bool) -> str:
    found: Standing | None = next((each for each in regime.standings if each.deployment == name), None) if regime is not None else None
    if found is None or found.value is None:
        return MISSING
    share = f" {100 * found.share:3.0f} %" if shares and found.share is not None else ""
    return f"{number(found.value.value)}{share}{'?' if found.suspect else ''}"


def _by_leader(grid: Grid) -> Iterator[list[str]]:
    for context in grid.scale.contexts:
        yield [context.removesuffix(" tokens"), *(_leader(grid.at(context, level)) for level in grid.scale.levels)]


def _leader(regime: Regime | None) -> str:
    if regime is None or regime.outcome == "nothing":
        return ""
    if regime.outcome == "none holds" or not regime.leaders:
        return "none"
    lead = f" +{100 * regime.margin.value:.0f}" if regime.margin is not None and regime.outcome in ("leads", "probably leads") else ""
    return f"{regime.leaders[0]}{lead}{_MARKS.get(regime.outcome, '')}{'?' if regime.suspect else ''}"


# -- latencies and capacities --------------------------------------------------------------------------------------------


def _latencies(analysis: Analysis, width: int) -> Iterator[str]:
    """TTFT and TPOT of every deployment at one load."""
    if (found := _typical(analysis)) is not None:
        grid, regime = found
        model = f"{grid.scale.model} " if len(analysis.conclusion.by_model) > 1 else ""
        yield from latency_rows(analysis, regime, width, _MOST_LATENCIES, model)


def _typical(analysis: Analysis) -> tuple[Grid, Regime] | None:
    """The load at which latencies are shown: the middle of the levels and contexts at which most have figures; of two, the heavier."""
    grids = analysis.conclusion.grids
    regimes = [(grid, each) for grid in grids for each in grid.regimes if any(s.value is not None for s in each.standings)]
    if not regimes:
        return None
    most = max(sum(s.value is not None for s in each.standings) for _, each in regimes)
    full = [(grid, each) for grid, each in regimes if sum(s.value is not None for s in each.standings) == most]
    grid = max((grid for grid, _ in full), key=lambda its: len(its.scale.deployments))

    def distance(each: Regime) -> float:
        scale = grid.scale
        levels, contexts = (scale.levels, each.level), (scale.contexts, each.context)
        return sum(abs(axis.index(at) - median(range(len(axis)))) for axis, at in (levels, contexts))

    return grid, min((each for its, each in full if its is grid), key=lambda each: (distance(each), -each.load.level))


_SHORT: Mapping[str, str] = {"none": "no level that was tried", "unknown": "unknown"}


def _capacities(analysis: Analysis, width: int) -> Iterator[str]:
    """With an SLO: the highest load that each deployment holds; one sentence where all hold all that was tried."""
    found = analysis.conclusion.capacities
    if not found or analysis.slo is None:
        return
    if len(found) > 1 and all(each.bound == "at least" for each in found):
        yield from textwrap.wrap(f"every deployment holds every load that was tried within the SLO ({analysis.slo.text})", width)
        return
    yield f"highest load within the SLO ({analysis.slo.text})"[:width]
    several = len({each.model for each in found}) > 1
    rows = [
        [
            f"  {each.deployment}{f', {each.model}' if several else ''}", each.context.removesuffix(" tokens"),
            _SHORT.get(each.bound) or each.text.removesuffix(", the highest level tried"),
        ]
        for each in found[:_MOST_CAPACITIES]
    ]  # fmt: skip
    yield from (line.rstrip()[:width] for line in aligned(rows, width, left=3))
    if (left := len(found) - len(rows)) > 0:
        yield f"  and {left} more: bench report --json"


def _end(path: Path | None, width: int) -> Iterator[str]:
    page = path / "report.html" if path is not None else None
    where = f"report  {page}" if page is not None and page.exists() else f"run     {path}" if path is not None else ""
    more = "more  bench report --table | --latency | --why"
    yield from [f"{where}      {more}"] if len(where) + len(more) + 6 <= width else [where, more.replace("more  ", "more    ")]
