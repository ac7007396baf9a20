"""The first screen of the page: what to run by load, with the command to copy. It decides nothing: all is from the conclusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.conclusion import Choice, Grid, Outcome, Regime, Statement
from enginebench.domain.formatting import counted, number
from enginebench.report.run_facts import facts

_LONGEST = 170
"""Characters of a sentence that is a heading as a whole."""
_WORDS: dict[Outcome, str] = {
    "leads": "leads", "probably leads": "probably leads", "equal": "equal in practice", "cannot tell": "cannot tell apart",
    "alone": "the only one with a figure", "none holds": "none meets the SLO", "nothing": "no figure",
}  # fmt: skip


@dataclass(frozen=True)
class AnswerRow:
    load: str
    about: str
    """What the load belongs to: model, kind of load, settings."""
    leaders: tuple[str, ...]
    command: str
    """To copy; '' where several share the lead, or nothing was started."""
    values: str
    lead: str
    sure: str
    why: str
    suspect: bool = False


@dataclass(frozen=True)
class Answer:
    headings: tuple[tuple[str, str], ...]
    """(model, sentence); the model is '' for a single one."""
    sentence: str
    """The whole answer, where the headings are only its beginning."""
    unit: str
    rows: tuple[AnswerRow, ...]
    others: tuple[str, ...]
    facts: dict[str, list[str]]


def answer(analysis: Analysis) -> Answer:
    found = analysis.conclusion
    several = len(found.by_model) > 1
    headings = [(model if several else "", text) for model, text in found.by_model.items()] or [("", found.sentence)]
    first = {grid.scale.model: grid for grid in reversed(found.grids)}
    short = [(model, text if len(text) <= _LONGEST else _beginning(first.get(model or next(iter(found.by_model), "")), text))
             for model, text in headings]  # fmt: skip
    units = dict.fromkeys(grid.scale.unit for grid in found.grids)
    rows = [row for grid in found.grids for row in _rows(grid, analysis)]
    rows += [_mixed(its, several=several) for its in found.choices if _to_choose(its.model, found.grids)]
    others = tuple(
        f"{grid.scale.model}: {text}" if several else text for grid in found.grids for text in (*grid.others, *grid.left_out)
    )  # fmt: skip
    whole = "" if short == headings else " ".join(f"{model}: {text}" if model else text for model, text in headings)
    return Answer(tuple(short), whole, next(iter(units)) if len(units) == 1 else "", tuple(rows), others, facts(analysis))


def _beginning(grid: Grid | None, text: str) -> str:
    if grid is None or not grid.statements:
        return text
    scope = grid.scale.scope
    return f"{f'{scope[:1].upper()}{scope[1:]}: ' if scope else ''}{grid.statements[0].text}."


def _rows(grid: Grid, analysis: Analysis) -> Iterator[AnswerRow]:
    scale, found = grid.scale, analysis.conclusion
    several = len(found.grids) > 1
    about = ", ".join(filter(None, (scale.model if len(found.by_model) > 1 else "", scale.kind if several else "", scale.settings)))
    for its in grid.statements:
        regimes = [regime for at in its.regimes if (regime := grid.at(*at)) is not None]
        alone = len(its.leaders) == 1
        yield AnswerRow(
            its.where.removeprefix("at ") or "every load that was tried", about, its.leaders,
            found.commands.get(f"{scale.model}/{its.leaders[0]}", "") if alone else "", _values(regimes, scale.unit),
            its.lead or _WORDS[its.outcome], _surety(its), its.why, its.suspect,
        )  # fmt: skip


def _values(regimes: list[Regime], unit: str) -> str:
    """'1,140 to 6,688 tok/s' of the best."""
    values = [best.value.value for regime in regimes if (best := regime.best) is not None and best.value is not None]
    if not values:
        return ""
    low, high = number(min(values)), number(max(values))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _surety(its: Statement) -> str:
    if its.outcome in ("alone", "none holds", "nothing"):
        return ""
    return f"sure at {its.sure} of {counted(its.of, 'load')}" if its.sure else f"not sure: {_WORDS[its.outcome]}"


def _to_choose(model: str, grids: Sequence[Grid]) -> bool:
    return len({name for grid in grids if grid.scale.model == model for name in grid.scale.deployments}) > 1


def _mixed(its: Choice, *, several: bool) -> AnswerRow:
    return AnswerRow("mixed or unknown", its.model if several else "", (its.deployment,), its.command, "", its.text, "", "")
