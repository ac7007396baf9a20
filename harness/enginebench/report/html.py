"""The HTML page: one file that works offline and loads nothing.

Assembles sections (`enginebench.report.sections`) with the templates of reports/templates. Does not know particular sections.
Text from a run is untrusted: jinja2 escapes the page, `script_json` the data block, `static_chart` and `plotly_traces` the figures. A
content security policy allows only the page's own script and the packed library (`enginebench.report.packed`), by their hash, and no
connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from enginebench.analysis.analysis import Analysis
from enginebench.domain import JSON
from enginebench.domain.formatting import printable
from enginebench.records.run_folder import Run
from enginebench.report.answer import answer
from enginebench.report.blocks import Block, Folded, Panel, Plots
from enginebench.report.chart_marks import swatch
from enginebench.report.columns import interval_text, repeats_text, value_text, why_missing
from enginebench.report.findings import sentence_case
from enginebench.report.packed import pack
from enginebench.report.page import SITE_POLICY, Place, contained, packed, page_environment
from enginebench.report.section import Context, Section
from enginebench.report.sections import all_sections
from enginebench.report.static_chart import MOST_LABELS, static_chart
from enginebench.report.styles import Style, hues

Rendered = list[tuple[Section, tuple[Block, ...]]]
"""Sections that have something to show for one run, with their blocks."""

WIDE, NARROW, ONLY = 548, 350, 430
"""Widths of a static chart: on a desk, on a phone, and of one that has a single form because it is folded or one of many."""
_MOST_FORMS = 12
"""Figures of a page that are drawn for a desk and for a phone; of more, the page would be too large."""
_FOLDED_LABELS = 6
"""Lines with a name at their end in a folded figure, of which a page has many; the legend above it names them too."""
_MOST_DATA = 80_000
"""Characters of data of figures that are not packed."""


def render_html(run: Run, analysis: Analysis, place: Place | None = None) -> str:
    """The page of a run: one file with all that it needs, or with a place the page of a site."""
    from markupsafe import Markup

    context = Context(run, analysis)
    applicable = ((section, tuple(section.blocks(context))) for section in all_sections() if section.applies(analysis))
    sections = [(section, blocks) for section, blocks in applicable if blocks]
    contents: dict[str, str] = {}  # label -> anchor; of sections with the same label the first
    for section, _ in sections:
        contents.setdefault(section.label or section.title, section.id)
    anchors = _figure_ids(sections)
    single = sum(len(_panels(block)) for section, blocks in sections if not section.folded for block in blocks) > _MOST_FORMS
    environment = page_environment()
    environment.globals |= {
        "value_text": value_text,
        "interval_text": interval_text,
        "repeats_text": repeats_text,
        "why_missing": why_missing,
        "chart": lambda panel, section: Markup(_charts(panel, section, single=single)),  # noqa: S704  # static_chart escapes
        "swatch": lambda style: Markup(swatch(style.slot, style.symbol)),  # noqa: S704  # our own markup
        "styles": context.slots,
        "anchor": lambda panel: anchors[id(panel)],
    }
    plots, folded = _data(sections)
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        run=analysis.run,
        answer=answer(analysis),
        findings={section.id: sentence_case(section.finding(context)) for section, _ in sections},
        sections=sections,
        figures={section.id for section, blocks in sections if any(_panels(block) for block in blocks)},
        contents=contents,
        css=Markup(hues(context.slots) + _dimmed(context.slots)),  # noqa: S704  # our own
        plots_json=Markup(plots),  # noqa: S704  # script_json escapes
        packed_plots=packed(pack(folded)),
        place=place,
        **({"policy": SITE_POLICY} if place else contained()),
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


def _panels(block: Block) -> list[Panel]:
    """The figures of a block, also of a folded one."""
    if isinstance(block, Folded):
        return [panel for each in block.blocks for panel in _panels(each)]
    return list(block.panels) if isinstance(block, Plots) else []


def _figure_ids(sections: Rendered) -> Mapping[int, str]:
    """id() of each panel -> its anchor: 'ttft-1'."""
    found: dict[int, str] = {}
    for section, blocks in sections:
        panels = [panel for block in blocks for panel in _panels(block)]
        found |= {id(panel): f"{section.id}-{i}" for i, panel in enumerate(panels, start=1)}
    return found


def _data(sections: Rendered) -> tuple[str, str]:
    """The data of the figures, as JSON: those to read, and those to pack, which are folded or too many."""
    ids = _figure_ids(sections)
    shown: list[JSON] = []
    folded: list[JSON] = []
    for section, blocks in sections:
        for panel in (panel for block in blocks for panel in _panels(block)):
            spec: JSON = {"id": ids[id(panel)], "data": list(panel.traces), "layout": dict(panel.layout)}
            (folded if section.folded else shown).append(spec)
    plain = script_json(shown)
    return (plain, script_json(folded)) if len(plain) <= _MOST_DATA else ("[]", script_json([*shown, *folded]))


def _charts(panel: Panel, section: Section, *, single: bool) -> str:
    """The wide and the narrow form, of which CSS shows one; a single one if folded or asked for. Without control characters."""
    title = section.title  # the caption has the rest
    if section.folded or single:
        return printable(static_chart(panel, title, ONLY, 260, most_labels=_FOLDED_LABELS if section.folded else MOST_LABELS))
    return printable(static_chart(panel, title, WIDE, css="wide") + static_chart(panel, title, NARROW, css="narrow"))


def _dimmed(slots: Mapping[str, Style]) -> str:
    """The rules that dim every deployment in static figures while names of the legend are pressed, but for those."""
    its = [f".s{each.slot}" for each in slots.values()]
    chosen = ",".join(f'[data-chosen~="{slot[2:]}"] .ch {slot}' for slot in its)
    return f"[data-chosen] .ch :is({','.join(its)}){{opacity:.14}}{chosen}{{opacity:1}}\n" if its else ""
