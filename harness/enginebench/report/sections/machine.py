"""The section on how to make the run again: the command, the scenario, and the facts of the machine on which the harness ran."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.domain.formatting import printable
from enginebench.errors import UserError
from enginebench.report.blocks import Block, Custom, Facts, Folded, Heading, Paragraph
from enginebench.report.section import Context, Section


def _blocks(context: Context) -> Iterator[Block]:
    run = context.analysis.run
    yield Custom("reproduce.html.j2", {"command": f"bench run {run.scenario.get('file') or run.name}", "scenario": _scenario(context)})
    yield Heading("Machine")
    yield Folded("Facts of the machine", (Facts(run.machine),)) if run.machine else Paragraph("Nothing was recorded.")


def _scenario(context: Context) -> str:
    """The scenario as it was stored; '' if the run has none."""
    try:
        return printable((context.run.path / "scenario.yaml").read_text(encoding="utf-8"), "\n\t").strip()
    except (OSError, UnicodeDecodeError, UserError):
        return ""


SECTION = Section("machine", "Reproduce", _blocks)
