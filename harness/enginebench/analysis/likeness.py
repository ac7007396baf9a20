"""May figures of other tools' files be compared? Finds what is unlike in two rows: what was served, the load, what clients could do.

Metrics that are defined in different ways are withheld one by one (`unlike_definitions`); the rest concerns every figure of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enginebench.analysis.rows import Row
from enginebench.domain.formatting import number
from enginebench.metrics.registry import metrics
from enginebench.records.cell import Imported
from enginebench.records.importer import UNKNOWN_PRECISION

LENGTHS_APART = 0.1
"""Lengths that differ by a larger share are another load."""


@dataclass(frozen=True)
class Unlike:
    """One reason why two rows must not be compared."""

    reason: str
    remedy: str
    """What would make it possible."""


def origin(row: Row) -> Imported | None:
    """Where the row was imported from; None: it was measured here."""
    return next((cell.record.imported for cell in row.cells if cell.record.imported is not None), None)


def unlike(base: Row, candidate: Row, hardware: tuple[str | None, str | None] = (None, None)) -> Iterator[Unlike]:
    """What is unlike in two rows of which at least one was imported; nothing where both were measured here. hardware: of the two runs."""
    origins = (origin(base), origin(candidate))
    if origins == (None, None):
        return
    names = [_file(its, side) for its, side in zip(origins, ("the base", "the candidate"), strict=True)]
    yield from _configurations(base, candidate, hardware, names)
    yield from _loads(base, candidate, names)
    for its, name in zip(origins, names, strict=True):
        if its is not None and its.faults:
            yield Unlike(f"the client of {name} is its limit: {'; '.join(its.faults)}", f"measure it again: bench rerun {its.file}")


def _file(its: Imported | None, side: str) -> str:
    return side if its is None else f"{its.file} ({its.tool})"


def _configurations(base: Row, candidate: Row, hardware: tuple[str | None, str | None], names: Sequence[str]) -> Iterator[Unlike]:
    one, other = base.deployment, candidate.deployment
    for what, fact, (a, b) in (
        ("model", "model", (_known(one.model), _known(other.model))),
        ("precision", "precision", (_known(one.known_precision), _known(other.known_precision))),
        ("hardware", "hardware", hardware),
    ):
        if a == b:
            continue
        missing = [name for name, value in zip(names, (a, b), strict=True) if not value]
        if missing:
            yield Unlike(f"the {what} of {missing[0]} is not stated", f"say it once: --set {fact}={a or b}")
        else:
            yield Unlike(f"the {what} differs: {a} in {names[0]}, {b} in {names[1]}", f"measure both with one {what}")


def _known(text: str) -> str | None:
    return None if text in ("", "unknown", UNKNOWN_PRECISION) else text


def _loads(base: Row, candidate: Row, names: Sequence[str]) -> Iterator[Unlike]:
    if (base.load.kind, base.load.level) != (candidate.load.kind, candidate.load.level):
        levels = f"{base.load.level_text} in {names[0]}, {candidate.load.level_text} in {names[1]}"
        yield Unlike(f"the load differs: {levels}", "measure both at one load")
    for what, figure, asked in (("prompts", "isl_p50", "input_tokens"), ("replies", "osl_p50", "output_tokens")):
        one, other = (_length(row, figure, asked) for row in (base, candidate))
        if one is not None and other is not None and abs(one - other) > LENGTHS_APART * max(one, other):
            shown = f"{number(one)} tokens in {names[0]}, {number(other)} in {names[1]}"
            yield Unlike(f"the length of the {what} differs: {shown}", "measure both with the same lengths")


def _length(row: Row, figure: str, asked: str) -> float | None:
    """The median that was counted, else the mean that two rates give, else the length that was asked for."""
    wanted, found = getattr(row.load, asked), row.figures.get(figure)
    if found is not None:
        return found.value
    tokens, requests = (row.figures.get(name) for name in (f"{asked.partition('_')[0]}_throughput", "request_throughput"))
    if tokens is not None and requests is not None and requests.value > 0:
        return tokens.value / requests.value
    return float(wanted) if isinstance(wanted, int) else None


def unlike_definitions(base: Row, candidate: Row) -> dict[str, str]:
    """Metric -> why it must not be compared: a tool defines it in another way."""
    one, other = (its.differs if (its := origin(row)) is not None else {} for row in (base, candidate))
    out: dict[str, str] = {}
    for name, metric in metrics().items():
        if one.get(name) != other.get(name):
            says = " and ".join(f"{side}: {text}" for side, text in (("base", one.get(name)), ("candidate", other.get(name))) if text)
            out[name] = f"{metric.title} is defined in another way ({says}); import files with single requests"
    return out
