"""The audit as one self-contained HTML page without scripts.

Claims are untrusted text: jinja2 escapes them, and the page's content security policy allows only inline styles.
"""

from __future__ import annotations

from enginebench.audit.judge import VERDICTS
from enginebench.audit.outcome import Audit, number, share_text
from enginebench.machine.folders import resource_dir

MEANINGS = {
    "impossible as stated": "the model does not fit, or the rate is above the roofline at every batch that the claim allows",
    "inconsistent": "the claim contradicts its own numbers or the model's dimensions",
    "needs batch": "possible from that batch on, but the text does not state the batch",
    "not enough stated": "a decisive fact is missing: precision, batch, placement of the weights, or how it was measured",
    "plausible": "possible; this does not show that it is true",
}


def audit_to_html(audit: Audit) -> str:
    """The audit as one HTML page that opens offline."""
    import jinja2
    from markupsafe import Markup

    templates = resource_dir("reports/templates")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "share": share_text}
    return environment.get_template("audit.html.j2").render(
        audit=audit,
        verdicts={verdict: MEANINGS[verdict] for verdict in VERDICTS},
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
        policy="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    )
