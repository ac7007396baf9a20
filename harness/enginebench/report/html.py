"""The HTML page: one file that works offline and loads nothing.

Assembles sections (`enginebench.report.sections`) with the templates of reports/templates. Does not know particular sections.
Text from a run is untrusted: jinja2 escapes the page, `script_json` the data block, `plotly_traces` what Plotly reads. A content security
policy allows only the two scripts of the page, by their hash, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from enginebench.analysis.analysis import Analysis
from enginebench.domain import JSON
from enginebench.domain.formatting import page_text, printable, size
from enginebench.machine.folders import resource_dir
from enginebench.records.files import write_atomically
from enginebench.records.run_folder import Run
from enginebench.report import plotly_traces
from enginebench.report.blocks import Block, Plots
from enginebench.report.columns import interval_text, repeats_text, value_text, why_missing
from enginebench.report.section import Context, Section
from enginebench.report.sections import all_sections

Rendered = list[tuple[Section, tuple[Block, ...]]]
"""Sections that have something to show for one run, with their blocks."""


def write_html(run: Run, analysis: Analysis, path: Path) -> Path:
    """Write the page atomically and return `path`. Reads the samples of every cell once."""
    write_atomically(path, render_html(run, analysis))
    return path


def render_html(run: Run, analysis: Analysis) -> str:
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    templates = resource_dir("reports/templates")
    script = (templates / "report.js").read_text(encoding="utf-8")
    plotly = _inside_script(get_plotlyjs())
    context = Context(run, analysis)
    applicable = ((section, tuple(section.blocks(context))) for section in all_sections() if section.applies(analysis))
    sections = [(section, blocks) for section, blocks in applicable if blocks]
    contents: dict[str, str] = {}  # label -> anchor; of sections with the same label the first
    for section, _ in sections:
        contents.setdefault(section.label or section.title, section.id)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=page_text,
    )  # fmt: skip
    environment.filters |= {"bytes": size, "prose": _prose}
    environment.globals |= {
        "value_text": value_text,
        "interval_text": interval_text,
        "repeats_text": repeats_text,
        "why_missing": why_missing,
        "symbols": plotly_traces.SYMBOLS,
        "dashes": plotly_traces.DASHES,
    }
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        run=analysis.run,
        verdicts=_verdicts(context),
        sections=sections,
        contents=contents,
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
        plots_json=Markup(script_json(_specs(sections))),  # noqa: S704  # script_json escapes
        plotly_js=Markup(plotly),  # noqa: S704  # the library
        report_js=Markup(script),  # noqa: S704  # our own file
        policy=_policy(plotly, script),
    )


def script_json(value: JSON) -> str:
    """JSON for a script element: no text in it can end the element or open a comment."""
    text = json.dumps(_visible(value), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(value: JSON) -> JSON:
    """Without control characters in any text, which a plot would show."""
    if isinstance(value, dict):
        return {name: _visible(each) for name, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list) else printable(value, "\n") if isinstance(value, str) else value


def _specs(sections: Rendered) -> JSON:
    panels = (panel for _, blocks in sections for block in blocks if isinstance(block, Plots) for panel in block.panels)
    return [{"data": list(panel.traces), "layout": dict(panel.layout)} for panel in panels]


def _verdicts(context: Context) -> list[tuple[str, str]]:
    """(model, sentence) for each model; ('', sentence) for a single one."""
    if len(context.models) < 2:
        return [("", context.analysis.sentence)]
    return list(context.analysis.conclusion.by_model.items())


def _prose(text: str) -> str:
    """Text without backticks, which are for terminals."""
    return text.replace("`", "")


def _inside_script(source: str) -> str:
    """A library's source in which no string can end the script element, and without carriage returns, which would change the hash."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")


def _policy(*scripts: str) -> str:
    """The content security policy: these scripts by hash, inline styles (Plotly creates some), nothing from elsewhere."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
