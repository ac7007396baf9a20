"""The section of a tuning: default and tuned side by side, on fresh restarts, and which options mattered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.labels import deployment_titles
from enginebench.analysis.tuning import spec_of, tuned_of
from enginebench.domain import JSON
from enginebench.domain.ids import text_of
from enginebench.report.blocks import Block, Bullets, Heading, Paragraph, Table
from enginebench.report.section import Context, Section, Summary
from enginebench.report.tuning import lines_of, row_of, tuning_data, unit_of


def _blocks(context: Context) -> Iterator[Block]:
    spec = spec_of(context.analysis.run.scenario)
    if spec is None:
        return
    found, names = tuned_of(context.analysis), deployment_titles(spec.bases)
    heads = ("deployment", f"default, {unit_of(spec.figure)[0]}", "tuned", "gain", "fresh restarts")
    yield Table(heads, tuple((names[text_of(its.base)], *row_of(its, spec.figure)) for its in found))
    for its in found:
        name = names[text_of(its.base)]
        yield Heading(name)
        yield Bullets(tuple(f"{label}: {text}" for label, text in lines_of(its, name)))
    yield Paragraph(
        "Gains are from restarts with the scenario's own loads, which were measured when the search had ended: the luck of a "
        "candidate that looked best is not in them. Short cells of the search are rows of their own."
    )


def _summaries(analysis: Analysis) -> Iterator[Summary]:
    spec = spec_of(analysis.run.scenario)
    if spec is not None:
        names = deployment_titles(spec.bases)
        for its in tuned_of(analysis):
            name = names[text_of(its.base)]
            first = " -> ".join(row_of(its, spec.figure)[:2])
            lines = (f"{label}: {text}" for label, text in lines_of(its, name))
            yield Summary(f"tuned: {name}", (f"{first}, {row_of(its, spec.figure)[2]}", *lines))


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    return {"tuned": tuning_data(analysis)}


SECTION = Section(
    "tuning", "Default and tuned", _blocks, needs=(lambda analysis: spec_of(analysis.run.scenario) is not None,), summaries=_summaries,
    data=_data,
)  # fmt: skip
