"""What the answer of a run rests on, for a terminal: how sure it is, each cause of doubt with its fix, latencies at every load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.conclusion import Choice, Regime, Standing
from enginebench.domain.formatting import counted
from enginebench.report.columns import column, value_text
from enginebench.report.layout import aligned, columns_of, fits, joined, labelled

_MOST_DETAILS = 3
_LATENCIES = ("ttft", "tpot")


def render_latencies(analysis: Analysis, *, width: int | None = None) -> str:
    """TTFT and TPOT of every deployment at every load."""
    width = columns_of(width)
    blocks: list[list[str]] = []
    several = len({grid.scale.model for grid in analysis.conclusion.grids}) > 1
    for grid in analysis.conclusion.grids:
        blocks += [[f"{grid.scale.model}:"]] if several else []
        blocks += [list(latency_rows(analysis, regime, width, len(regime.standings))) for regime in grid.regimes]
    return joined(blocks) or "No load has latencies of single requests.\n"


def render_why(analysis: Analysis, *, width: int | None = None) -> str:
    """Why the answer is what it is: each sentence with what makes it unsure, each cause of doubt with its figures and its fix, caveats."""
    width, found = columns_of(width), analysis.conclusion
    blocks = []
    for grid in found.grids:
        lines = [f"{grid.scale.model}, {grid.scale.kind}{f', {grid.scale.scope}' if grid.scale.scope else ''}"]
        for each in grid.statements:
            surety = f"sure at {each.sure} of {counted(each.of, 'load')}" if each.outcome not in ("alone", "none holds") else ""
            said = each.text if surety in each.text else f"{each.text}; {surety}"
            lines += labelled("  -", "; ".join(filter(None, (said, each.why))), width, 4)
        lines += [line for text in (*grid.others, *grid.left_out) for line in labelled("  -", text, width, 4)]
        blocks.append(lines)
    trust = [f"TRUST   {found.trust.level}"]
    for cause in found.trust.causes:
        trust += labelled("  -", f"{cause.text}. Fix: {cause.fix}", width, 4)
        trust += [line for detail in cause.details[:_MOST_DETAILS] for line in labelled("", detail, width, 6)]
        trust += [f"      and {len(cause.details) - _MOST_DETAILS} more: --json"] if len(cause.details) > _MOST_DETAILS else []
    blocks.append(trust)
    blocks.append([line for choice in found.choices for line in _choice(choice, width)])
    blocks.append([line for caveat in analysis.caveats for line in labelled("note:", caveat, width, 6)])
    return joined(blocks)


def _choice(choice: Choice, width: int) -> Iterator[str]:
    yield from labelled(f"for a mixed or unknown load on {choice.model}:", f"{choice.deployment} ({choice.text})", width, 4)
    if choice.command:
        yield f"    {choice.command}"  # in one line, to be copied


def latency_rows(analysis: Analysis, regime: Regime, width: int, most: int, about: str = "") -> Iterator[str]:
    """A line for each deployment at one load; of p99 and p90 the highest that is known. about: before the load."""
    shown = regime.standings[:most]
    known = {name for each in shown for name, value in analysis.rows[each.row].figures.items() if value}
    tails = {name: next((q for q in (99, 90) if f"{name}_p{q}" in known), 0) for name in _LATENCIES}
    rows: list[list[str]] = []
    for percentiles in ({name: (50, q) for name, q in tails.items()}, dict.fromkeys(_LATENCIES, (50,))):
        names = [f"{name}_p{q}" for name, qs in percentiles.items() for q in qs if f"{name}_p{q}" in known]
        rows = [*_latency_table(analysis, regime, shown, names, about)]
        if fits(rows, width):
            break
    if len(rows[0]) > 1:
        yield from aligned(rows, width, left=1)
    if (left := len(regime.standings) - most) > 0:
        yield f"  and {left} more: bench report --latency"


def _latency_table(
    analysis: Analysis, regime: Regime, shown: Sequence[Standing], figures: Sequence[str], about: str
) -> Iterator[list[str]]:
    columns = [column(name, analysis) for name in figures]
    yield [f"{about}at {regime.level}, {regime.context}", *(its.heading for its in columns)]
    for each in shown:
        known = analysis.rows[each.row].figures
        yield [f"  {each.deployment}{'?' if each.suspect else ''}", *(value_text(known.get(its.figure), its) for its in columns)]
