"""The result of an audit (findings, contradictions, costs), as JSON, as text (`terminal`), and as one HTML page without scripts.

Does not print. Claims are untrusted: jinja2 escapes the page, whose content security policy allows only inline styles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from enginebench.audit.arithmetic import number, share_text
from enginebench.audit.claims import Claims
from enginebench.audit.finding import FAILED, VERDICTS, Finding
from enginebench.audit.statements import Contradiction
from enginebench.domain import JSON, plain
from enginebench.domain.formatting import page_text
from enginebench.machine.folders import resource_dir
from enginebench.metrics.costs import Cost


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
    def ordered(self) -> tuple[Finding, ...]:
        """The findings, worst verdict first."""
        return tuple(sorted(self.findings, key=lambda finding: VERDICTS.index(finding.verdict)))

    @property
    def failed(self) -> bool:
        """Whether a claim is impossible as stated or inconsistent."""
        return any(finding.verdict in FAILED for finding in self.findings)

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

    def to_text(self, *, width: int = 120, color: bool = False, verbose: bool = False) -> str:
        """The summary, the claims by verdict and the contradictions. verbose: every claim with its figures and all its reasons."""
        from enginebench.audit.terminal import Contents, render

        conflicts = [each.text for each in self.contradictions]
        contents = Contents(self.claims.title, self.sentence, self.ordered, conflicts, self.costs, self.currency)
        return render(contents, width, color=color, verbose=verbose)


def _finding_data(finding: Finding, audit: Audit) -> JSON:
    return {
        "id": finding.id, "source": finding.source, "claim": finding.claim, "verdict": finding.verdict, "least_batch": finding.least,
        "stated": finding.stated, "ceiling": finding.ceiling, "ceiling_batch": finding.batch, "share": finding.share,
        "limit": finding.limit, "decides": list(finding.decides), "off_by": finding.off_by, "even": finding.even,
        "least_batch_even": finding.least_even, "highest_ceiling": finding.highest, "highest_batch": finding.highest_batch,
        "reasons": list(finding.reasons), "cost": plain(audit.costs.get(finding.id)),
    }  # fmt: skip


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
        css=Markup("".join((templates / name).read_text(encoding="utf-8") for name in ("chart.css", "report.css"))),  # noqa: S704  # our own files
        policy="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    )
