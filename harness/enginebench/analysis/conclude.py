"""The answer of a run: regimes, capacities, trust and what to run, put together from their modules. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from enginebench.analysis.capacity import capacities
from enginebench.analysis.choice import choice
from enginebench.analysis.conclusion import Capacity, Conclusion, Grid
from enginebench.analysis.launch_command import launch_command
from enginebench.analysis.regimes import Field
from enginebench.analysis.rows import Row
from enginebench.analysis.scales import groups
from enginebench.analysis.scope import scope_of
from enginebench.analysis.statements import grid
from enginebench.analysis.trust import trust_of
from enginebench.domain.formatting import rounded
from enginebench.metrics.slo import Slo
from enginebench.records.launch import LaunchRecord
from enginebench.records.run import RunRecord

_SAID = 4
"""A sentence has at most so many statements per grid; the grid has all."""


def conclude(
    rows: Sequence[Row],
    run: RunRecord,
    launches: Mapping[str, LaunchRecord],
    *,
    slo: Slo | None = None,
    equal_within: float | None = None,
    missing: int = 0,
    currency: str = "",
) -> Conclusion:
    """Everything that may be concluded.

    equal_within: the margin below which a difference is equal in practice, as a share; None: that of the metric. missing: cells that were
    not measured yet. currency: of the prices, for the sentences.
    """
    models = tuple(dict.fromkeys(row.deployment.model for row in rows))
    figures = {model: decides(model, rows) for model in models}
    scopes = {model: scope_of([row for row in rows if row.deployment.model == model]) for model in models}
    sorted_rows = list(groups(rows, figures, {model: scope.text for model, scope in scopes.items()}))
    probes = {probe for its in run.probes.values() for probe in its}
    fields = {
        model: Field(
            [(i, row) for i, row in enumerate(rows) if row.deployment.model == model and not scopes[model].refuses(row)],
            figures[model], slo if figures[model] == "goodput" else None, equal_within,
        )
        for model in models
    }  # fmt: skip
    grids = tuple(
        its for group in sorted_rows if (kept := group.without(lambda load: _only_searched(load, rows, probes))) is not None
        and (its := grid(kept, fields[group.scale.model])) is not None
    )  # fmt: skip
    pooled = groups(rows, figures, {}, apart=False)
    limits = tuple(capacities(list(pooled), slo, run)) if slo is not None else ()
    commands = {f"{row.deployment.model}/{row.name}": command for row in rows if (command := launch_command(row, launches))}
    choices = tuple(found for model in models if (found := choice(model, grids, limits, commands)) is not None)
    by_model = {model: _said(model, grids, limits, scopes[model].text, currency) or _nothing(model, rows) for model in models}
    sentence = " ".join(f"{model}: {text}" if len(models) > 1 else text for model, text in by_model.items())
    again = f"bench run {run.scenario.get('file') or run.name}"
    trust = trust_of(rows, figures, missing, again)
    return Conclusion(sentence or "Nothing could be measured.", by_model, grids, limits, choices, trust, equal_within, commands)


def decides(model: str, rows: Sequence[Row]) -> str:
    """The figure that decides for a model: goodput if an SLO gives any of its rows one, else output throughput."""
    its = [row for row in rows if row.deployment.model == model and row.sound]
    return "goodput" if any(row.figures.get("goodput") for row in its) else "output_throughput"


def _only_searched(load: object, rows: Sequence[Row], probes: set[str]) -> bool:
    """Whether a load is the probe of a single deployment's search: it compares nothing, and its result is a capacity."""
    its = [row for row in rows if row.load == load]
    return len(its) == 1 and bool(its[0].cells) and all(cell.record.id in probes for cell in its[0].cells)


# -- sentences -------------------------------------------------------------------------------------------------------------------


def _said(model: str, grids: Sequence[Grid], limits: Sequence[Capacity], scope: str, currency: str) -> str:
    parts = [*_capacity_sentences([its for its in limits if its.model == model], currency)]
    its_grids = [each for each in grids if each.scale.model == model]
    several = len(its_grids) > 1
    for each in its_grids:
        if _said_by_limits(each, limits):
            continue
        name = ", ".join(filter(None, (each.scale.kind if several else "", each.scale.settings)))
        texts = [statement.text for statement in each.statements[:_SAID]]
        more = len(each.statements) - _SAID
        texts += [f"and {more} more, see the grid"] if more > 0 else []
        said = "; ".join([*texts, *each.others]) + _why(each)
        suspect = " (some cells are suspect)" if any(statement.suspect for statement in each.statements) else ""
        parts.append(f"{name}: {said}{suspect}." if name else f"{said}{suspect}.")
    text = " ".join(parts)
    return f"{scope[0].upper()}{scope[1:]}: {text}" if scope and text else text


def _said_by_limits(grid: Grid, limits: Sequence[Capacity]) -> bool:
    """Whether the loads that each deployment holds say it all: below its limit every deployment serves the rate that is offered."""
    its = [each for each in limits if each.model == grid.scale.model and each.settings == grid.scale.settings]
    its = [each for each in its if (each.unit == "req/s") == (grid.scale.kind == "open loop")]
    only = all(each.outcome in ("alone", "none holds") for each in grid.statements)
    return bool(its) and (only or grid.scale.kind == "open loop" or any(each.searched for each in its))


def _why(grid: Grid) -> str:
    """'. Not sure: 3 restarts each are too few to be sure (4 would do)', each cause once."""
    whys = list(dict.fromkeys(statement.why for statement in grid.statements if statement.why))
    return f". Not sure: {'; '.join(whys[:2])}" if whys else ""


def _capacity_sentences(limits: Sequence[Capacity], currency: str) -> Iterator[str]:
    """One for each context: what every deployment holds, the highest load first."""
    places = dict.fromkeys((its.settings, its.context, its.unit) for its in limits)
    for settings, context, unit in places:
        its = [each for each in limits if (each.settings, each.context, each.unit) == (settings, context, unit)]
        where = ", ".join(filter(None, (f"with {context}", settings))) if len(places) > 1 else ""
        parts = [f"{each.deployment} {_held(each)}{_priced(each, currency)}" for each in its]
        yield f"Within the SLO{f' {where}' if where else ''}: {'; '.join(parts)}{_order(its)}."


def _held(its: Capacity) -> str:
    if its.bound == "between":
        return f"holds {its.text}" + (" (one restart: its interval is over requests only)" if its.restarts == 1 else "")
    return f"holds {its.text}" if its.bound == "at least" else f": {its.text}" if its.bound == "unknown" else f"holds none: {its.text}"


def _priced(its: Capacity, currency: str) -> str:
    return f" at {rounded(its.cost)} {currency}/M tokens" if its.cost is not None else ""


def _order(its: Sequence[Capacity]) -> str:
    """Whether the first surely holds more than the second."""
    if len(its) < 2 or its[0].level is None or its[1].level is None:
        return ""
    return "" if its[0].sure else f"; the order of {its[0].deployment} and {its[1].deployment} is not sure"


def _nothing(model: str, rows: Sequence[Row]) -> str:
    its = [row for row in rows if row.deployment.model == model]
    if any(row.sound for row in its):
        return "Nothing can be ranked: no row has an output throughput."
    if any(row.verdict == "invalid" for row in its):
        return "Nothing can be ranked: every cell that ran is invalid, for the reasons given."
    return "Nothing could be measured."
