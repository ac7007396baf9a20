"""What to note about shares of the ceiling and costs: a throughput above the ceiling, and prices that apply to no row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.analysis.rows import Row
from enginebench.metrics.context import RunContext
from enginebench.metrics.registry import metrics


def contradictions(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for each row that is faster than its ceiling."""
    for row in rows:
        share = row.figures.get("share_of_ceiling")
        if share is not None and share.value > 1:
            load = f"{row.load.level_text}, {row.load.shape_text}"
            yield (
                f"{row.name} on {row.deployment.model} reaches {share.value:.0%} of the ceiling with {load}: either the measurement "
                "is wrong, or an assumption of the ceiling (weights read from memory and not from a cache, even routing, bandwidth)"
            )


def unpriced(rows: Sequence[Row], context: RunContext) -> Iterator[str]:
    """One sentence if prices are given and none of them applies to the hardware of any row."""
    ran = [row for row in rows if row.status == "ok"]
    costs = [name for name, its in metrics().items() if its.scope == "cost"]
    if context.prices is None or not ran or any(row.figures.get(name) for row in ran for name in costs):
        return
    names = dict.fromkeys(machine.device.name for row in ran if (machine := context.machine(row.cells[0].record)) is not None)
    yield f"no price applies to the hardware of this run ({', '.join(names) or 'unknown'}): give one for it, or one for * (any device)"
