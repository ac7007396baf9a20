"""The section on `repeats: auto`: when each load was decided, and what that saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.stopping import stopping
from enginebench.domain import JSON, plain_object
from enginebench.report.blocks import Block, Paragraph, Table
from enginebench.report.section import Context, Section, Summary


def _blocks(context: Context) -> Iterator[Block]:
    found = stopping(context.analysis)
    if found is None:
        return
    models = len({its.model for its in found.stops}) > 1
    heads = (*(("model",) if models else ()), "load", "restarts", "outcome", "")
    rows = tuple(
        (*((its.model,) if models else ()), its.load, str(its.restarts), its.outcome if its.decided else f"open: {its.outcome}", its.why)
        for its in found.stops
    )
    yield Table(heads, rows)
    yield Paragraph(
        f"{found.text}. After each look, restarts are added where they can still change the answer. All looks together name a wrong winner "
        "in at most 5 % of runs without a difference: that error is divided among them before the run."
    )


def _summaries(analysis: Analysis) -> Iterator[Summary]:
    found = stopping(analysis)
    if found is not None:
        left = [f"open at {its.load}: {its.why}" for its in found.stops if not its.decided and its.why]
        yield Summary("repeats: auto", (found.text, *left))


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    found = stopping(analysis)
    return {"auto_repeats": None if found is None else plain_object(found)}


SECTION = Section(
    "auto-repeats", "When it was decided", _blocks, label="Restarts", needs=(lambda analysis: analysis.run.auto_repeats is not None,),
    summaries=_summaries, data=_data, folded=True,
)  # fmt: skip
