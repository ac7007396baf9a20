"""The section on parity: how far deployments of a model agree on the greedy output of the same prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enginebench.analysis.analysis import Analysis
from enginebench.domain import JSON, plain_object
from enginebench.domain.formatting import counted
from enginebench.report.blocks import Block, Custom
from enginebench.report.section import Context, Section

_FEW = 6
"""Pairs that are all listed; of more, those that agree for the same prompts are one sentence."""


def _blocks(context: Context) -> Iterator[Block]:
    pairs = context.analysis.parity
    alike: dict[tuple[str, str], int] = {}
    for pair in pairs:
        if len(pairs) > _FEW and pair.agreed and pair.identical == pair.prompts:
            alike[pair.model, pair.summary] = alike.get((pair.model, pair.summary), 0) + 1
    same = [f"{counted(count, 'pair')} of deployments of {model}: the same output for {text}." for (model, text), count in alike.items()]
    listed = [pair for pair in pairs if (pair.model, pair.summary) not in alike or pair.identical != pair.prompts]
    yield Custom("parity.html.j2", {"pairs": listed, "same": same})


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    return {"parity": [{**plain_object(parity), "identical": parity.identical} for parity in analysis.parity]}


def _finding(context: Context) -> str:
    """Of the pairs with a prompt that can be compared."""
    pairs = [pair for pair in context.analysis.parity if pair.agreed]
    differ = sum(pair.identical < len(pair.agreed) for pair in pairs)
    if not pairs:
        return ""
    return (
        f"{differ} of {counted(len(pairs), 'pair')} of deployments gave different greedy output"
        if differ
        else (
            f"All {counted(len(pairs), 'pair')} of deployments gave the same greedy output"
            if len(pairs) > 1
            else "Both deployments gave the same greedy output"
        )
    )


SECTION = Section("parity", "Parity", _blocks, needs=(lambda analysis: bool(analysis.parity),), data=_data, finding=_finding)
