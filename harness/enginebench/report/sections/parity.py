"""The section on parity: how far deployments of a model agree on the greedy output of the same prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enginebench.analysis.analysis import Analysis
from enginebench.domain import JSON, plain_object
from enginebench.report.blocks import Block, Custom
from enginebench.report.section import Context, Section


def _blocks(context: Context) -> Iterator[Block]:
    yield Custom("parity.html.j2", {"pairs": context.analysis.parity})


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    return {"parity": [{**plain_object(parity), "identical": parity.identical} for parity in analysis.parity]}


SECTION = Section("parity", "Parity", _blocks, needs=(lambda analysis: bool(analysis.parity),), data=_data)
