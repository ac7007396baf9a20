"""The section that defines metrics, verdicts and checks, from their declarations."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.analysis.analysis import Analysis
from enginebench.metrics.registry import metric_name, metrics
from enginebench.report.blocks import Block, Definition, Definitions, Heading
from enginebench.report.section import Context, Section
from enginebench.validity import VERDICTS, Check, all_checks


def _blocks(context: Context) -> Iterator[Block]:
    known = {metric_name(name) for row in context.analysis.rows for name, found in row.figures.items() if found}
    yield Definitions(tuple(Definition(metric.title, metric.definition) for name, metric in metrics().items() if name in known))
    yield Heading("Verdicts")
    yield Definitions(tuple(Definition(verdict, meaning, css=f"tag {verdict}") for verdict, meaning in VERDICTS.items()))
    yield Heading("Checks")
    yield Definitions(tuple(_definition(check, context.analysis) for check in all_checks()))


def _definition(check: Check, analysis: Analysis) -> Definition:
    text = f"{check.sentence}. It means: {check.meaning}. Next: {check.advice}."
    return Definition(check.id.replace("_", " "), text, _not_checkable(check, analysis))


def _not_checkable(check: Check, analysis: Analysis) -> str:
    """In how many cells the check could not run, and which evidence was missing; empty if it ran in all."""
    ran = [cell for row in analysis.rows for cell in row.cells if cell.ran]
    missing = [cell.not_checkable[check.id] for cell in ran if check.id in cell.not_checkable]
    return f"not checkable in {len(missing)} of {len(ran)} cells: no {' or '.join(dict.fromkeys(missing))}" if missing else ""


SECTION = Section("definitions", "Definitions", _blocks, folded=True)
