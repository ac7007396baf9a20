"""Lines for a terminal: wrapped text behind a label, aligned columns, blocks. Knows no run."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from enginebench.domain.formatting import printable

WIDTH, WIDEST = 80, 100
_INDENT = 8


def columns_of(width: int | None) -> int:
    """The width to write for: of the terminal, at least 80 and at most 100 columns."""
    return min(WIDEST, max(WIDTH, width or shutil.get_terminal_size((WIDTH, 24)).columns))


def joined(blocks: Sequence[Sequence[str]]) -> str:
    """The blocks with an empty line between them, without control characters; empty blocks are left out."""
    return "\n".join("\n".join(printable(line).rstrip() for line in block) + "\n" for block in blocks if block)


def labelled(label: str, text: str, width: int, indent: int = _INDENT) -> list[str]:
    """Wrapped text behind a label, which stands before its first line only."""
    first = f"{label} " if len(label) >= indent else label.ljust(indent)
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def fits(rows: Sequence[Sequence[str]], width: int) -> bool:
    return sum(max(map(len, cells)) + 2 for cells in zip(*rows, strict=True)) - 2 <= width


def aligned(rows: Sequence[Sequence[str]], width: int, *, left: int) -> Iterator[str]:
    """Columns two spaces apart, the first `left` of them left-aligned. Where they are too wide, the last columns go on below."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    room = width - sum(widths[:left]) - 2 * left
    blocks: list[list[int]] = [[]]
    for i in range(left, len(widths)):
        if blocks[-1] and sum(widths[j] + 2 for j in (*blocks[-1], i)) > room:
            blocks.append([])
        blocks[-1].append(i)
    for block in blocks:
        for row in rows:
            cells = [row[i].ljust(widths[i]) for i in range(left)] + [row[i].rjust(widths[i]) for i in block]
            yield "  ".join(cells)
