"""The headline of one model: the sentences of its grids and of the loads that its deployments hold. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.analysis.conclusion import Capacity, Grid
from enginebench.domain.formatting import rounded

_SAID = 4
"""At most so many statements of a grid are in the headline; the grid has all."""


def headline(model: str, grids: Sequence[Grid], limits: Sequence[Capacity], scope: str, currency: str) -> str:
    """What to run and why, by regime; '' if nothing is known. scope: of the weights, as a clause."""
    its_limits = [its for its in limits if its.model == model]
    parts = list(held(its_limits, currency))
    its_grids = [each for each in grids if each.scale.model == model]
    parts += [_grid(each, named=len(its_grids) > 1) for each in its_grids if not said_by_limits(each, its_limits)]
    text = " ".join(parts)
    return f"{scope[0].upper()}{scope[1:]}: {text}" if scope and text else text


def _grid(grid: Grid, *, named: bool) -> str:
    name = name_of(grid) if named else grid.scale.settings
    texts = [statement.text for statement in grid.statements[:_SAID]]
    more = len(grid.statements) - _SAID
    texts += [f"and {more} more, see the grid"] if more > 0 else []
    whys = list(dict.fromkeys(its.why for its in grid.statements if its.why and its.outcome != "none holds"))
    why = f". Not sure: {'; '.join(whys[:2])}" if whys else ""
    suspect = " (some cells are suspect)" if any(statement.suspect for statement in grid.statements) else ""
    said = f"{'; '.join([*texts, *grid.others, *grid.left_out])}{why}{suspect}."
    return f"{name}: {said}" if name else said


def name_of(grid: Grid) -> str:
    """'open loop', 'closed loop, prompts text': which of several grids of a model it is."""
    return ", ".join(filter(None, (grid.scale.kind, grid.scale.settings)))


def said_by_limits(grid: Grid, limits: Sequence[Capacity]) -> bool:
    """Whether the loads that each deployment holds say it all: below its limit every deployment serves the rate that is offered."""
    its = [each for each in limits if each.settings == grid.scale.settings]
    its = [each for each in its if (each.unit == "req/s") == (grid.scale.kind == "open loop")]
    only = all(each.outcome in ("alone", "none holds") for each in grid.statements)
    searched = any(each.searched for each in its)
    return bool(its) and (searched or grid.scale.kind == "open loop" or (only and not _all_hold(its)))


# -- loads that are held -----------------------------------------------------------------------------------------------------------


def held(limits: Sequence[Capacity], currency: str, most: int | None = None) -> Iterator[str]:
    """One sentence for each context: what every deployment holds, the highest load first. most: deployments that it names."""
    places = dict.fromkeys((its.settings, its.context, its.unit) for its in limits)
    if limits and _all_hold(limits) and not any(its.searched for its in limits):
        yield "Every load tried is within the SLO."
        return
    for settings, context, unit in places:
        its = [each for each in limits if (each.settings, each.context, each.unit) == (settings, context, unit)]
        several = [len(set(each)) > 1 for each in zip(*places, strict=True)]  # the unit is said with each load
        where = ", ".join(filter(None, (settings if several[0] else "", f"with {context}" if several[1] else "")))
        alike: dict[str, list[str]] = {}
        for each in its:
            alike.setdefault(f"{_held(each)}{_priced(each, currency)}", []).append(each.deployment)
        parts = [f"{' and '.join(names)} {'hold' if len(names) > 1 else 'holds'} {held}" for held, names in alike.items()]
        parts = parts if most is None or len(parts) <= most else [*parts[:most], f"{len(parts) - most} more"]
        yield f"Within the SLO{f' {where}' if where else ''}: {'; '.join(parts)}{_order(its)}."


def _all_hold(limits: Sequence[Capacity]) -> bool:
    return all(its.bound == "at least" for its in limits)


def _held(its: Capacity) -> str:
    if its.bound == "between":
        return its.text + (" (one restart: the interval is over requests only)" if its.restarts == 1 else "")
    if its.bound == "none":
        return f"no level tried ({its.nearest})" if its.nearest else "no level tried"
    return its.text if its.bound == "at least" else "an unknown load: no level could be judged"


def _priced(its: Capacity, currency: str) -> str:
    return f" at {rounded(its.cost)} {currency}/M tokens" if its.cost is not None else ""


def _order(its: Sequence[Capacity]) -> str:
    """Whether the first surely holds more than the second; nothing where both hold more than was tried, or one holds nothing."""
    if len(its) < 2 or its[0].sure or its[1].level is None or its[0].bound == its[1].bound == "at least":
        return ""
    return f"; the order of {its[0].deployment} and {its[1].deployment} is not sure"
