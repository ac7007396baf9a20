"""The audit as text for a terminal: a summary and the claims by verdict, or every figure and reason. Claims are untrusted, so escaped."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from enginebench.audit.arithmetic import number, share_text
from enginebench.audit.finding import FAILED, VERDICTS, Finding
from enginebench.domain.formatting import printable
from enginebench.metrics.costs import Cost

STYLES = {"impossible as stated": "red", "inconsistent": "red", "needs batch": "yellow", "plausible": "green"}
_IN_FULL = ("impossible as stated", "inconsistent", "needs batch")
"""Verdicts whose claims are listed with their reason; of the others, those that share a reason are listed together."""
_WIDEST_NAME = 32


@dataclass(frozen=True)
class Contents:
    """What is shown of an audit."""

    title: str | None
    sentence: str
    findings: Sequence[Finding]
    """Worst verdict first."""
    contradictions: Sequence[str]
    costs: Mapping[str, Cost]
    currency: str


def render(audit: Contents, width: int, *, color: bool, verbose: bool) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, color_system="standard" if color else None, highlight=False, emoji=False, markup=False
    )
    _print_summary(audit, console)
    if verbose:
        _print_table(audit, console)
    else:
        for verdict in VERDICTS:
            _print_group(verdict, [finding for finding in audit.findings if finding.verdict == verdict], console)
    _print_contradictions(audit, console)
    if not verbose:
        console.print("\nevery figure and reason: -v; as data: --json", style="dim")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def outstanding(audit: Contents) -> tuple[Finding, ...]:
    """The claims that are furthest from what is possible: one speed, one ratio and one other statement at most."""
    failed = sorted((finding for finding in audit.findings if finding.verdict in FAILED), key=lambda finding: -finding.off_by)
    kinds = [next((finding for finding in failed if _kind(finding) == kind), None) for kind in ("speed", "ratio", "statement")]
    return tuple(finding for finding in kinds if finding is not None)


def _kind(finding: Finding) -> str:
    return "speed" if finding.serving else "ratio" if ": ratio " in finding.id else "statement"


def _print_summary(audit: Contents, console: Console) -> None:
    if audit.title:
        console.print(Text(printable(audit.title)))
    console.print(Text(audit.sentence, style="bold"))
    furthest = outstanding(audit)
    if furthest:
        console.print(Text("furthest from what is possible or true:"))
    for finding in furthest:
        text = Text(f"{printable(finding.id)} ({printable(finding.source)}): ", style="bold")
        console.print(Padding(text.append(printable(_why(finding)), style=""), (0, 0, 0, 2)))


def _why(finding: Finding) -> str:
    """The decisive reason in one sentence."""
    if finding.verdict == "needs batch":
        even = f"{finding.least_even:,} if all experts are used equally" if finding.least_even else ""
        even = even if finding.least_even != finding.least else ""
        return "; ".join(filter(None, (f"{number(finding.stated)} tok/s from batch {finding.least:,} on", even)))
    decisive = 2 if finding.verdict == "impossible as stated" and "precision" in finding.decides else 1  # the second says which precision
    return "; ".join(finding.reasons[:decisive])


def _print_group(verdict: str, findings: list[Finding], console: Console) -> None:
    if not findings:
        return
    console.print(Text(f"\n{verdict} ({len(findings)})", style=f"bold {STYLES.get(verdict, '')}".strip()))
    if verdict == "plausible":
        names = ", ".join(printable(finding.id) for finding in findings)
        console.print(Padding(Text(names, style="dim"), (0, 0, 0, 2)))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(overflow="fold", max_width=_WIDEST_NAME)
    table.add_column(overflow="fold", ratio=1)
    for names, reason in _rows(verdict, findings):
        table.add_row(Padding(Text(printable(names)), (0, 0, 0, 2)), Text(printable(reason)))
    console.print(table)


def _rows(verdict: str, findings: list[Finding]) -> Iterator[tuple[str, str]]:
    if verdict in _IN_FULL:
        yield from ((finding.id, _why(finding)) for finding in findings)
        return
    by_reason: dict[str, list[str]] = {}
    for finding in findings:
        by_reason.setdefault(_why(finding), []).append(finding.id)
    yield from ((", ".join(ids), reason) for reason, ids in by_reason.items())


def _print_contradictions(audit: Contents, console: Console) -> None:
    if audit.contradictions:
        console.print(Text("\ncontradictions between sources:", style="bold"))
        for each in audit.contradictions:
            console.print(Padding(Text(printable(each)), (0, 0, 0, 2)))


def _print_table(audit: Contents, console: Console) -> None:
    """Every claim with its figures and all its reasons, worst verdict first."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("\nclaim", overflow="fold", min_width=14)
    table.add_column("\nsrc", no_wrap=True)
    for heading in ("stated", "ceiling", "batch", "share"):
        table.add_column(f"\n{heading}", justify="right", no_wrap=True)
    if audit.costs:
        table.add_column(printable(f"\n{audit.currency}/M tok"), justify="right", no_wrap=True)
    table.add_column("\nverdict and reasons", overflow="fold", ratio=1)
    for finding in audit.findings:
        verdict = Text(finding.text, style=STYLES.get(finding.verdict, ""))
        for reason in finding.reasons:
            verdict.append(f"\n{printable(reason)}", style="dim")
        if finding.decides:
            verdict.append(f"\ndecided by: {', '.join(finding.decides)}", style="dim")
        figures = (number(finding.stated), number(finding.ceiling), str(finding.batch or "-"), share_text(finding.share))
        cost = audit.costs.get(finding.id)
        money = "-" if cost is None or cost.per_million_tokens is None else f"{cost.per_million_tokens:.3g}"
        table.add_row(printable(finding.id), printable(finding.source), *figures, *((money,) if audit.costs else ()), verdict)
    console.print(table)
