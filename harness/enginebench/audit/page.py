"""The audit as one HTML page that opens offline: no script, no font, no image from anywhere.

Claims are other people's words: jinja2 escapes every one of them, and the page's policy allows nothing but its own styles.
"""

from __future__ import annotations

from enginebench.audit.judge import VERDICTS
from enginebench.audit.outcome import Audit, number, share_text
from enginebench.machine.folders import resource_dir

MEANINGS = {
    "impossible as stated": "the model does not fit, or the rate is above the roofline at every batch that the words allow",
    "inconsistent": "it contradicts its own numbers, or the model's dimensions",
    "needs batch": "possible from that batch on, which the text does not state",
    "not enough stated": "something that decides is left out: precision, batch, where the weights lie, how it was measured",
    "plausible": "nothing forbids it; that does not make it true",
}


def render_page(audit: Audit) -> str:
    """The page as text."""
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
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),  # noqa: S704  # ours
        policy="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    )
