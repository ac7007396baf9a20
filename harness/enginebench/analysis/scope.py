"""What random weights restrict a comparison to, and which rows they make incomparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.analysis.rows import Row


@dataclass(frozen=True)
class Scope:
    text: str = ""
    """A clause that begins each sentence about the model; '' for trained weights."""
    refused: frozenset[str] = frozenset()
    """Deployments whose weights are random where those of others are trained: they do other work."""

    def refuses(self, row: Row) -> bool:
        return row.name in self.refused


def scope_of(rows: Sequence[Row]) -> Scope:
    """Of all rows of one model. Speed is real whatever the weights; where experts are routed, a random router does it evenly."""
    measured = [row for row in rows if row.cells and row.status == "ok"]
    random = {row.name for row in measured if any(cell.record.traits.random_weights for cell in row.cells)}
    if not random:
        return Scope()
    if random != {row.name for row in measured}:
        return Scope("random weights are not compared with trained ones", frozenset(random))
    traits = [cell.record.traits for row in measured for cell in row.cells]
    if all(its.dense for its in traits):
        return Scope("on random weights, whose speed is that of trained ones")
    if all(its.dense or its.forced_routing for its in traits):
        return Scope("on random weights with tokens spread over the experts by a rule")
    return Scope("on a synthetic MoE, whose routing is even and a trained model's is not")
