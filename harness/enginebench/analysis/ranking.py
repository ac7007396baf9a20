"""Which deployment of a run is best, and how sure that is, as one sentence per model.

Pure: rows in, sentences out. A claim is never stronger than the test behind it. Does not know tables or files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.analysis.rows import Row
from enginebench.domain import Load
from enginebench.domain.formatting import rounded
from enginebench.metrics.statistics import Comparison, Estimate, compare, repeats_needed

_NAMED = 3
"""A sentence names at most this many deployments and counts more of them."""

RankedBy: TypeAlias = Literal["goodput", "output_throughput"]


@dataclass(frozen=True)
class Contender:
    row: Row
    value: Estimate
    """The figure that ranks it."""
    behind: Comparison | None
    """How the leader compares with it; None for the leader."""


def ranked_by(rows: Sequence[Row]) -> RankedBy:
    """The figure that ranks rows: goodput if an SLO gives any of them one, else output throughput."""
    return "goodput" if any(row.ranked and row.figures.get("goodput") for row in rows) else "output_throughput"


def contenders(rows: Sequence[Row]) -> list[Contender]:
    """The rows of one load that may be ranked, best first, each compared with the first. Sentences and marks both follow this order."""
    figure = ranked_by(rows)
    found = [(row, estimate) for row in rows if row.ranked and (estimate := row.figures.get(figure))]
    found.sort(key=lambda pair: pair[1].value, reverse=True)
    return [Contender(row, value, compare(found[0][1], value) if i else None) for i, (row, value) in enumerate(found)]


def verdict_sentence(rows: Sequence[Row]) -> str:
    """One sentence per model: which deployment is best at the heaviest common load, by how much, and whether that is sure.

    Best is the highest output throughput; with an SLO the highest goodput, at the common load where that is highest.
    """
    models = dict.fromkeys(row.deployment.model for row in rows)
    found = {model: sentence for model in models if (sentence := _best(model, rows) or _unranked(model, rows))}
    sentences = [f"{model}: {sentence}" if len(models) > 1 else sentence for model, sentence in found.items()]
    if sentences:
        return " ".join(sentences)
    if any(row.ranked for row in rows):
        return "Nothing can be ranked: no row has an output throughput."
    ran = any(row.verdict == "invalid" for row in rows)
    return "Nothing can be ranked: every cell that ran is invalid, for the reasons given." if ran else "Nothing could be measured."


def _best(model: str, rows: Sequence[Row]) -> str | None:
    """The comparison at the load that most deployments have in common; None if no row of the model may be ranked."""
    groups: dict[Load, list[Row]] = {}
    of_model = [row for row in rows if row.deployment.model == model]
    figure = ranked_by(of_model)
    for row in of_model:
        if row.ranked and row.figures.get(figure):
            groups.setdefault(row.load, []).append(row)
    if not groups:
        return None
    load = max(groups, key=lambda at: (len(groups[at]), *_weight(at, contenders(groups[at])[0].value, figure)))
    field = contenders(groups[load])
    suspect = any(contender.row.verdict == "suspect" for contender in field)
    sentence = _comparison(field, figure, f"at {load.level_text} of {load.shape_text}")
    return sentence + (" With reservations: see the reasons of the rows marked suspect." if suspect else "")


def _unranked(model: str, rows: Sequence[Row]) -> str | None:
    """The throughput of deployments that must not be ranked, in the order of the scenario, and why they must not."""
    sound = [row for row in rows if row.deployment.model == model and row.sound and row.figures.get("output_throughput")]
    if not sound:
        return None
    counts = Counter(row.load for row in sound)
    load = max(counts, key=lambda at: (counts[at], *_weight(at, _throughput(sound[0]), "output_throughput")))
    here = [row for row in sound if row.load == load]
    values = [_throughput(row).value for row in here]
    if len(here) <= _NAMED:
        reached = ", ".join(f"{row.name} {value:,.0f} tok/s" for row, value in zip(here, values, strict=True))
    else:
        reached = f"{len(here)} deployments {min(values):,.0f} to {max(values):,.0f} tok/s"
    reasons = [reason for row in here for cell in row.cells for reason in cell.reasons if reason.severity == "unranked"]
    why = "; ".join(dict.fromkeys(reason.check.meaning for reason in reasons))
    return f"measured at {load.level_text} of {load.shape_text}: {reached}; not ranked: {why}."


def _throughput(row: Row) -> Estimate:
    found = row.figures["output_throughput"]
    assert found is not None  # noqa: S101  # callers pass only rows that have one
    return found


def _weight(load: Load, best: Estimate, figure: RankedBy) -> tuple[float, float]:
    """Order of loads for the sentence: by goodput the one with the most, by throughput the heaviest, then the longest."""
    length = load.input_tokens if isinstance(load.input_tokens, int) else 0
    return (best.value, load.level) if figure == "goodput" else (load.level, length)


def _comparison(field: Sequence[Contender], figure: RankedBy, where: str) -> str:
    """The weakest comparison decides: the leader is best only if it is surely better than every other deployment."""
    best, *others = field
    name, good = best.row.name, figure == "goodput"
    value = f"{rounded(best.value.value)} req/s within the SLO" if good else f"{best.value.value:,.0f} tok/s"
    if not others:
        return f"{name} reaches {value} {where}."
    second = others[0].value.value
    lead = f"{value}, {f'{best.value.value / second:.2f}x {others[0].row.name}' if second else f'{others[0].row.name} none'}"
    by = {order: [c for c in others if c.behind and c.behind.order == order] for order in ("tied", "unknown", "ahead")}
    if tied := by["tied"]:
        names = [name, *(c.row.name for c in tied)]
        who = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) <= _NAMED + 1 else f"{name} and {len(tied)} others"
        return f"{who} cannot be told apart {where} ({value}; {_p_text(tied)}, {_n_text([best, *tied])})."
    if by["unknown"]:
        return f"{name} is ahead {where}: {lead} (one repeat: no interval, repeat before you rely on it)."
    if ahead := by["ahead"]:
        enough = f"{repeats_needed()} restarts each would do"
        few = f"{_n_text([best, *ahead])} is too few to be sure ({_p_text(ahead)}; {enough})"
        return f"{name} is ahead in every repeat {where}: {lead}, but {few}."
    return f"{name} {'has the highest goodput' if good else 'is fastest'} {where}: {lead} ({_p_text(others)}, {_n_text([best, *others])})."


def _n_text(involved: Sequence[Contender]) -> str:
    low, high = min(c.value.n for c in involved), max(c.value.n for c in involved)
    return f"n={low}" if low == high else f"n={low} to {high}"


def _p_text(others: Sequence[Contender]) -> str:
    """The p of the exact test; of several, the one that supports the claim least."""
    known = [c.behind.p for c in others if c.behind and c.behind.p is not None]
    tied = any(c.behind and c.behind.order == "tied" for c in others)
    p = min(known) if tied else max(known)  # 'cannot be told apart' is supported least by the smallest p
    return "p<0.001" if p < 0.001 else f"p={p:.3f}" if p < 0.0995 else f"p={p:.2f}"
