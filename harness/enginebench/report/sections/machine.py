"""The section with the facts of the machine on which the harness ran."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.report.blocks import Block, Facts, Paragraph
from enginebench.report.section import Context, Section


def _blocks(context: Context) -> Iterator[Block]:
    machine = context.analysis.run.machine
    yield Facts(machine) if machine else Paragraph("Nothing was recorded.")


SECTION = Section("machine", "Machine", _blocks)
