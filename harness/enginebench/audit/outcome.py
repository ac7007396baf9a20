"""The result of an audit (findings, contradictions, costs), as JSON, as a table for the terminal, and as one HTML page without scripts.

Returns data and text; does not print. Claims are untrusted: the table escapes control characters, jinja2 escapes the page, whose content
security policy allows only inline styles.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from enginebench.audit.claims import Claims
from enginebench.audit.judge import VERDICTS, Finding
from enginebench.audit.statements import Contradiction
from enginebench.domain import JSON, formatting, plain
from enginebench.domain.formatting import page_text, printable
from enginebench.machine.folders import resource_dir
from enginebench.metrics.costs import Cost

STYLES = {"impossible as stated": "red", "inconsistent": "red", "needs batch": "yellow", "plausible": "green"}


@dataclass(frozen=True)
class Audit:
    claims: Claims
    findings: tuple[Finding, ...]
    contradictions: tuple[Contradiction, ...]
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """Costs at the claimed rates, by id of the finding."""
    currency: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Number of claims by verdict, worst first, without zeros."""
        found = Counter(finding.verdict for finding in self.findings)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}

    @property
    def sentence(self) -> str:
        """'56 claims: 9 impossible as stated, 8 inconsistent, ...'."""
        return f"{len(self.findings)} claims: {', '.join(f'{count} {verdict}' for verdict, count in self.counts.items())}"

    @property
    def failed(self) -> bool:
        """Whether a claim is impossible as stated or inconsistent."""
        return any(finding.verdict in ("impossible as stated", "inconsistent") for finding in self.findings)

    def to_dict(self) -> JSON:
        """The audit as plain data. Rates in output tokens/s; share: stated rate / ceiling."""
        return {
            "schema": 1,
            "title": self.claims.title,
            "counts": dict(self.counts),
            "sources": {name: source.model_dump(exclude_none=True) for name, source in self.claims.sources.items()},
            "findings": [_finding_data(finding, self) for finding in self.findings],
            "contradictions": [{"about": each.about, "said": dict(each.stated), "truth": each.truth} for each in self.contradictions],
            "currency": self.currency or None,
        }

    def to_text(self, *, width: int = 120, color: bool = False) -> str:
        """The table of findings with reasons, the contradictions, and a summary."""
        return _render_table(self, width, color=color)


def _finding_data(finding: Finding, audit: Audit) -> JSON:
    return {
        "id": finding.id, "source": finding.source, "claim": finding.claim, "verdict": finding.verdict, "least_batch": finding.least,
        "stated": finding.stated, "ceiling": finding.ceiling, "ceiling_batch": finding.batch, "share": finding.share,
        "limit": finding.limit, "even": finding.even, "highest_ceiling": finding.highest, "highest_batch": finding.highest_batch,
        "reasons": list(finding.reasons), "cost": plain(audit.costs.get(finding.id)),
    }  # fmt: skip


def number(value: float | None) -> str:
    """3800 -> '3,800'; 3.5 -> '3.5'; None -> '-'."""
    return "-" if value is None else formatting.rounded(value)


def share_text(share: float | None) -> str:
    """0.0725 -> '7.2 %', 1.013 -> '101.3 %', None -> '-'."""
    return "-" if share is None else f"{formatting.number(100 * share, 1)} %"


def _render_table(audit: Audit, width: int, *, color: bool) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, color_system="standard" if color else None, highlight=False, emoji=False, markup=False
    )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("claim", overflow="fold", min_width=14)
    table.add_column("src", no_wrap=True)
    for heading in ("stated", "ceiling", "batch", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    if audit.costs:
        table.add_column(printable(f"{audit.currency}/M tok"), justify="right", no_wrap=True)
    table.add_column("verdict and reasons", overflow="fold", ratio=1)
    for finding in audit.findings:
        cost = audit.costs.get(finding.id)
        verdict = Text(finding.text, style=STYLES.get(finding.verdict, ""))
        for reason in finding.reasons:
            verdict.append(f"\n{printable(reason)}", style="dim")
        figures = (number(finding.stated), number(finding.ceiling), str(finding.batch or "-"), share_text(finding.share))
        prices = (_money(cost),) if audit.costs else ()
        table.add_row(printable(finding.id), printable(finding.source), *figures, *prices, verdict)
    console.print(table)
    if audit.contradictions:
        console.print(Text("\ncontradictions between sources:", style="bold"))
        for each in audit.contradictions:
            console.print(Text(f"  {printable(each.text)}"))
    console.print(Text(f"\n{audit.sentence}", style="bold"))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _money(cost: Cost | None) -> str:
    return "-" if cost is None or cost.per_million_tokens is None else f"{cost.per_million_tokens:.3g}"


MEANINGS = {
    "impossible as stated": "the model does not fit, or the rate is above the roofline at every batch that the claim allows",
    "inconsistent": "the claim contradicts its own numbers or the model's dimensions",
    "needs batch": "possible from that batch on, but the text does not state the batch",
    "not enough stated": "a decisive fact is missing: precision, batch, placement of the weights, or how it was measured",
    "not known here": "the catalogues of enginebench lack the model, the device or the precision: this says nothing about the claim",
    "plausible": "possible; this does not show that it is true",
}


def audit_to_html(audit: Audit) -> str:
    """A self-contained HTML page of an audit."""
    import jinja2
    from markupsafe import Markup

    templates = resource_dir("reports/templates")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=page_text,
    )  # fmt: skip
    environment.filters |= {"number": number, "share": share_text}
    return environment.get_template("audit.html.j2").render(
        audit=audit,
        verdicts={verdict: MEANINGS[verdict] for verdict in VERDICTS},
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
        policy="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    )
