"""The section on trust: every cause of doubt with the cells it affects and its fix, and what to know before a figure is quoted."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.report.blocks import Block, Custom
from enginebench.report.section import Context, Section


def _blocks(context: Context) -> Iterator[Block]:
    trust, caveats = context.analysis.conclusion.trust, context.analysis.caveats
    if trust.causes or caveats:
        yield Custom("trust.html.j2", {"trust": trust, "caveats": caveats})


SECTION = Section(
    "trust", "Why trust it", _blocks, label="Trust", finding=lambda context: _finding(context.analysis.conclusion.trust.text)
)  # fmt: skip


def _finding(text: str) -> str:
    """The trust line without its fix, which is in the table."""
    said = text.partition(". Fix: ")[0]
    return f"{said[:1].upper()}{said[1:]}"
