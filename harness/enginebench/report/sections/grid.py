"""The section with the decision grid: for each context and level the leader and its lead, as the conclusion has them.

With figures of latency the reader may set limits; the page then leaves out the deployments that miss them and compares the rest by the
ranges of their restarts. The verdict under a limit needs the whole analysis: `bench report --slo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.conclusion import Capacity, Grid, Regime, Standing
from enginebench.domain.formatting import counted, number, percent
from enginebench.metrics.slo import PRESETS
from enginebench.report.blocks import Block, Cell, Custom, Paragraph, Table
from enginebench.report.columns import MISSING
from enginebench.report.findings import grid_finding
from enginebench.report.section import Context, Section, measurements

_LEADS = ("leads", "probably leads")
_LATENCIES = ("ttft", "tpot")
_STEPS = (0.02, 0.05)
"""Leads from which the tint is stronger."""


@dataclass(frozen=True)
class GridCell:
    leaders: tuple[str, ...]
    says: str
    """'+7 %', 'equal', 'cannot tell', 'none holds'."""
    small: str
    css: str
    suspect: bool
    why: str
    data: tuple[tuple[float | None, ...], ...]
    """For each deployment: slot, tok/s with the lowest and highest restart, TTFT and TPOT in ms, 1 if suspect."""


@dataclass(frozen=True)
class GridView:
    title: str
    unit: str
    contexts: tuple[str, ...]
    levels: tuple[str, ...]
    cells: tuple[tuple[GridCell | None, ...], ...]
    limits: tuple[str, ...]
    """The figures that limits apply to: 'TTFT p99', 'TPOT p99'; () if the run has not both."""


def grid_views(analysis: Analysis, slots: dict[str, int]) -> list[GridView]:
    scales = [grid.scale for grid in analysis.conclusion.grids]
    differ = [len({getattr(scale, name) for scale in scales}) > 1 for name in ("model", "kind", "settings")]
    return [_view(grid, analysis, slots, differ) for grid in analysis.conclusion.grids]


def _view(grid: Grid, analysis: Analysis, slots: dict[str, int], differ: Sequence[bool]) -> GridView:
    """differ: whether the grids differ in model, kind of load and settings, which their titles then say."""
    scale = grid.scale
    tails = _tails([analysis.rows[each.row] for regime in grid.regimes for each in regime.standings])
    title = ", ".join(text for text, shown in zip((scale.model, scale.kind, scale.settings), differ, strict=True) if shown and text)
    cells = tuple(
        tuple(
            _cell(regime, scale.unit, analysis, tails, slots) if (regime := grid.at(context, level)) is not None else None
            for level in scale.levels
        )
        for context in scale.contexts
    )
    limits = tuple(f"{name.upper()} p{q}" for name, q in tails.items()) if all(tails.values()) and len(scale.deployments) > 1 else ()
    return GridView(title, scale.unit, tuple(each.removesuffix(" tokens") for each in scale.contexts), scale.levels, cells, limits)


def _tails(rows: Sequence[Row]) -> dict[str, int]:
    """Latency -> the highest percentile that every row with figures has; 0 if there is none."""
    ran = [row for row in rows if row.sound]
    return {name: next((q for q in (99, 90, 50) if ran and all(row.figures.get(f"{name}_p{q}") for row in ran)), 0) for name in _LATENCIES}


def _cell(regime: Regime, unit: str, analysis: Analysis, tails: dict[str, int], slots: dict[str, int]) -> GridCell:
    best = regime.best
    value = f"{number(best.value.value)} {unit}" if best is not None and best.value is not None else ""
    lead = regime.margin.value if regime.margin is not None and regime.outcome in _LEADS else None
    tint = f"t{sum((lead or 0.0) >= step for step in _STEPS)}"
    css = "none" if not regime.leaders else "eq" if len(regime.leaders) > 1 else tint
    says = f"+{percent(lead, 2)}" if lead is not None else regime.outcome
    holding = sum(each.holds is True for each in regime.standings)
    of = len(regime.standings)
    held = f"{holding} of {counted(of, 'deployment')} within the SLO" if analysis.slo is not None and 0 < holding < of else ""
    unsure = "" if regime.sure or regime.outcome != "probably leads" else "not sure"
    small = " · ".join(filter(None, (value, held, unsure)))
    data = tuple(_figures(each, analysis, tails, slots) for each in regime.standings if analysis.rows[each.row].sound)
    why = "; ".join(filter(None, (regime.why, "a failed check may change this" if regime.suspect else "")))
    return GridCell(regime.leaders, says, small, css, regime.suspect, why, tuple(found for found in data if found))


def _figures(its: Standing, analysis: Analysis, tails: dict[str, int], slots: dict[str, int]) -> tuple[float | None, ...]:
    row = analysis.rows[its.row]
    found = row.figures.get("output_throughput")
    if found is None:
        return ()
    latencies = [row.figures.get(f"{name}_p{q}") for name, q in tails.items()]
    known = [round(1e3 * latency.value, 3) if latency is not None else None for latency in latencies]
    speeds = (found.value, min(found.values), max(found.values))
    return (slots[its.deployment], *(float(f"{value:.6g}") for value in speeds), *known, int(its.suspect))


def _presets() -> dict[str, str]:
    """'TTFT ms,TPOT ms' -> its name; presets with the same limits are one."""
    found: dict[str, list[str]] = {}
    for name, slo in PRESETS.items():
        if slo.ttft_s and slo.tpot_s:
            found.setdefault(f"{1e3 * slo.ttft_s:g},{1e3 * slo.tpot_s:g}", []).append(name)
    return {limits: " and ".join(names) for limits, names in found.items()}


def _blocks(context: Context) -> Iterator[Block]:
    slots = {name: style.slot for name, style in context.slots.items()}
    if views := grid_views(context.analysis, slots):
        data = {"grids": views, "styles": context.slots, "presets": _presets(), "slo": context.analysis.slo}
        yield Custom("grid.html.j2", data)
    limits = [its for its in context.analysis.conclusion.capacities if not its.searched]
    if len(limits) > 1 and all(its.bound == "at least" for its in limits):
        yield Paragraph("Every deployment holds every load that was tried.")
    elif rows := [_held(its, context.analysis) for its in limits]:
        yield Table(("deployment", "context", "highest load within the SLO", *_HELD), tuple(rows), css="lined", caption=_CAPACITY)


_CAPACITY = "Highest load that each deployment holds"
_HELD = (Cell("output", "tok/s there", "num"), Cell("cost", "per M tokens", "num"))


def _held(its: Capacity, analysis: Analysis) -> tuple[str | Cell, ...]:
    """A deployment with one context: what it holds, and its throughput and cost there."""
    several = len(analysis.conclusion.by_model) > 1
    context = ", ".join(filter(None, (its.context, its.settings, its.model if several else "")))
    figures = (Cell(number(value) if value is not None else MISSING, css="num") for value in (its.throughput, its.cost))
    return its.deployment, context, Cell(its.text, css="differs" if its.sure else ""), *figures


SECTION = Section(
    "grid", "Decision grid: who leads at which context and load", _blocks, label="Grid", needs=(measurements,), finding=grid_finding
)
