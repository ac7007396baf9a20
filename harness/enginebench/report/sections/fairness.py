"""The section on fairness: what differs between the deployments of a run, what does not, and a sentence for each asymmetry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from enginebench.analysis.analysis import Analysis
from enginebench.domain import JSON, plain
from enginebench.domain.formatting import counted
from enginebench.report.blocks import Block, Bullets, Cell, Folded, Paragraph, Table
from enginebench.report.fairness_card import ASPECTS, Card, Column, fairness
from enginebench.report.findings import listed
from enginebench.report.section import Context, Section, measurements

__all__ = ["ASPECTS", "SECTION", "Card", "fairness"]


def _blocks(context: Context) -> Iterator[Block]:
    card = fairness(context.analysis)
    differing = [aspect for aspect in card.rows if _differing(card, aspect)]
    same = [aspect for aspect in card.rows if aspect not in differing]
    yield Paragraph(
        "What differs between deployments: as the engine reported it, and as requested where that differs. An asymmetry is a setting in "
        "which two engines differ."
    )
    if card.asymmetries:
        yield Bullets(card.asymmetries)
    if rows := [row for aspect in differing for row in _values_of(card, aspect)] + list(_approximations(card)):
        yield Table(("setting", "value", "deployments"), tuple(rows), css="card")
    if same:
        values = tuple((ASPECTS[aspect][0], card.columns[0].facts[aspect].text) for aspect in same)
        table = Table(("setting", "all deployments"), values, css="card")
        yield Folded(f"{counted(len(same), 'setting')} the same for all", (table,))


def _differing(card: Card, aspect: str) -> bool:
    """Whether two deployments differ in an aspect, or one reported what it should not have."""
    facts = [column.facts[aspect] for column in card.columns]
    return len({fact.text for fact in facts}) > 1 or any(fact.differs for fact in facts)


def _values_of(card: Card, aspect: str) -> Iterator[tuple[str | Cell, ...]]:
    """A line for each value of a setting, with the deployments that have it, the commonest value first."""
    found: dict[str, list[Column]] = {}
    for column in card.columns:
        found.setdefault(column.facts[aspect].text, []).append(column)
    for i, (text, columns) in enumerate(sorted(found.items(), key=lambda item: -len(item[1]))):
        fact = columns[0].facts[aspect]
        css = "differs" if fact.differs else "quiet" if fact.got is None else ""
        yield Cell(ASPECTS[aspect][0], css="again" if i else ""), Cell(text, css=css), _named(columns, card)


def _approximations(card: Card) -> Iterator[tuple[str | Cell, ...]]:
    """What adapters could set only approximately."""
    found: dict[str, list[Column]] = {}
    for column in card.columns:
        for note in column.notes:
            found.setdefault(note, []).append(column)
    yield from (("approximation", note, _named(columns, card)) for note, columns in found.items())


def _named(columns: Sequence[Column], card: Card) -> str:
    """The names of deployments; with their model where the same name under another model is not among them."""
    if len(columns) == len(card.columns):
        return "all"
    names: dict[str, None] = {}
    for column in columns:
        whole = sum(each.name == column.name for each in card.columns) == sum(each.name == column.name for each in columns)
        names[column.name if whole else f"{column.name} ({column.model})"] = None
    return ", ".join(names)


def _notes(analysis: Analysis) -> Iterator[str]:
    yield from (f"fairness: {asymmetry}" for asymmetry in fairness(analysis).asymmetries)


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    """Per deployment: each aspect with the requested and the reported value, and whether they differ."""
    card = fairness(analysis)
    deployments: list[JSON] = [
        {
            "deployment": column.name,
            "model": column.model,
            "engine": column.engine,
            "facts": {name: plain(fact) for name, fact in column.facts.items()},
            "notes": list(column.notes),
        }
        for column in card.columns
    ]
    return {"fairness": {"asymmetries": list(card.asymmetries), "deployments": deployments}}


def _finding(context: Context) -> str:
    card = fairness(context.analysis)
    if len({column.engine for column in card.columns}) < 2:
        return "One engine: what differs is what the scenario varies" if card.columns else ""
    names = list(dict.fromkeys(each.partition(":")[0] for each in card.asymmetries))
    if not names:
        return "The engines do not differ in any setting that is known of both and matters"
    return f"The engines differ in {counted(len(names), 'setting')} that {'matters' if len(names) == 1 else 'matter'}: {listed(names)}"


SECTION = Section("fairness", "Fairness", _blocks, needs=(measurements,), notes=_notes, data=_data, finding=_finding)
