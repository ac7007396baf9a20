"""The answer of a run as one SVG: for a README, a chat or a slide. Sentences, trust, the leaders, one chart, what it holds for.

It decides nothing, and follows the colour scheme of the page around it. SVG does not wrap text, so widths are estimated here. All texts
are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from enginebench.analysis.analysis import Analysis
from enginebench.domain.formatting import counted, printable
from enginebench.records.run_folder import Run
from enginebench.report.answer import Answer, answer
from enginebench.report.blocks import Panel, Plots
from enginebench.report.section import Context
from enginebench.report.sections import all_sections
from enginebench.report.sections.grid import GridCell, GridView, grid_views
from enginebench.report.static_chart import static_chart
from enginebench.report.styles import hues, read_template

WIDTH, _EDGE, _CHART = 880, 24, 400
_MOST_MODELS, _MOST_CONTEXTS, _MOST_LEVELS, _MOST_FACTS = 4, 6, 8, 4
_ROW = 58
_BOLD = 1.13
"""Width of bold text against that of the usual weight."""
_NARROW, _WIDE = frozenset("iljtfrI.,:;|!'()[]- "), frozenset("mwMW%")


@dataclass
class _Sheet:
    """Elements, and how far down they reach."""

    y: float = 0.0
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, words: str, css: str, at: float | None = None) -> None:
        y = self.y if at is None else at
        self.parts.append(f'<text class="{css}" x="{x:g}" y="{y:g}">{html.escape(printable(words))}</text>')

    def lines(self, x: float, words: str, css: str, *, px: float, width: float, step: float) -> None:
        """Wrapped text; y moves to its last line."""
        for line in balanced(words, width, px):
            self.y += step
            self.text(x, line, css)


def render_picture(run: Run, analysis: Analysis) -> str:
    """The SVG document."""
    context, its = Context(run, analysis), answer(analysis)
    sheet = _Sheet(_EDGE + 8)
    title = analysis.run.scenario.get("title")
    sheet.text(_EDGE, " · ".join(filter(None, ("enginebench", analysis.run.name, str(title) if title else ""))), "k")
    _sentences(sheet, its)
    _trust(sheet, analysis)
    top = sheet.y + 26
    panel = _panel(context)
    views = grid_views(analysis, {name: style.slot for name, style in context.slots.items()})
    room = WIDTH - 2 * _EDGE - (_CHART + 24 if panel is not None else 0)
    sheet.y = top
    _grids(sheet, views, context, room)
    if panel is not None:
        chart = static_chart(panel, panel.title, _CHART, 240)
        sheet.text(WIDTH - _EDGE - _CHART, panel.title, "h", at=top + 12)
        sheet.parts.append(f'<g transform="translate({WIDTH - _EDGE - _CHART} {top + 20:g})">{chart}</g>')
        sheet.y = max(sheet.y, top + 262)
    _facts(sheet, its)
    style = read_template("chart.css") + hues(context.slots) + read_template("picture.css")
    size = f'viewBox="0 0 {WIDTH} {sheet.y:g}" width="{WIDTH}" height="{sheet.y:g}"'
    name = html.escape(printable(" ".join(text for _, text in its.headings)), quote=True)
    ground = f'<rect class="ground" width="{WIDTH}" height="{sheet.y:g}" rx="6"/>'
    body = "\n".join([ground, *sheet.parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{name}">\n<style>{style}</style>\n{body}\n</svg>\n'


def _sentences(sheet: _Sheet, its: Answer) -> None:
    several = len(its.headings) > 1
    sheet.y += 2
    for model, sentence in its.headings[:_MOST_MODELS]:
        if model:
            sheet.y += 24
            sheet.text(_EDGE, model, "k")
        px = 18 if several else 22
        sheet.lines(_EDGE, sentence, "a2" if several else "a1", px=_BOLD * px, width=WIDTH - 2 * _EDGE, step=round(1.3 * px))
    if (more := len(its.headings) - _MOST_MODELS) > 0:
        sheet.y += 22
        sheet.text(_EDGE, f"and {counted(more, 'more model')}", "k")


_DISC = {"good": '<circle class="f" r="5.6"/>', "partly": '<path class="f" d="M0-5.6a5.6 5.6 0 0 0 0 11.2z"/>', "indicative only": ""}


def _trust(sheet: _Sheet, analysis: Analysis) -> None:
    """The badge of the page: a disc that is full, half or empty, the word, and the commonest cause with its fix."""
    trust = analysis.conclusion.trust
    sheet.y += 20
    at, label = sheet.y + 14, f"trust: {trust.level}"
    sheet.parts.append(f'<g class="disc" transform="translate({_EDGE + 6} {at - 4.5:g})"><circle r="5.6"/>{_DISC[trust.level]}</g>')
    sheet.text(_EDGE + 18, label, "h", at=at)
    x = _EDGE + 18 + text_width(label, _BOLD * 13) + 16
    sheet.y = at - 18
    sheet.lines(x, trust.text.removeprefix(f"{trust.level}: ").replace("`", ""), "t", px=13, width=WIDTH - _EDGE - x, step=18)


def _panel(context: Context) -> Panel | None:
    """Throughput over the load, for the context with the most points; None where no load has two levels."""
    section = next(each for each in all_sections() if each.id == "throughput")
    plots = [block for block in section.blocks(context) if isinstance(block, Plots)] if section.applies(context.analysis) else []
    panels = [panel for block in plots for panel in block.panels if _levels(panel) > 1]
    return max(panels, key=lambda panel: sum(len(_xs(trace)) for trace in panel.traces), default=None)


def _levels(panel: Panel) -> int:
    return len({str(x) for trace in panel.traces for x in _xs(trace)})


def _xs(trace: object) -> list[object]:
    found = trace.get("x") if isinstance(trace, dict) else None
    return found if isinstance(found, list) else []


def _grids(sheet: _Sheet, views: Sequence[GridView], context: Context, room: float) -> None:
    """The leader and its lead at each context and level; what has no room is counted."""
    left = _MOST_CONTEXTS
    for view in views:
        rows = list(zip(view.contexts, view.cells, strict=True))[:left]
        if not rows:
            break
        left -= len(rows)
        if view.title:
            sheet.text(_EDGE, view.title, "h", at=sheet.y + 12)
            sheet.y += 20
        levels = view.levels[:_MOST_LEVELS]
        first = 16 + max(text_width(each, 13) for each in view.contexts)
        width = min((room - first) / len(levels), 190)
        for i, level in enumerate(levels):
            sheet.text(_EDGE + first + i * width + 10, level, "k", at=sheet.y + 12)
        sheet.y += 18
        for name, cells in rows:
            sheet.text(_EDGE, name, "k", at=sheet.y + 20)
            for i, cell in enumerate(cells[:_MOST_LEVELS]):
                sheet.parts += _cell(cell, context, _EDGE + first + i * width, sheet.y, width - 3)
            sheet.y += _ROW + 3
        sheet.y += 10
    if (more := sum(len(view.contexts) for view in views) - (_MOST_CONTEXTS - left)) > 0:
        sheet.text(_EDGE, f"and {counted(more, 'more context')} in the report", "k", at=sheet.y + 8)
        sheet.y += 16


def _cell(cell: GridCell | None, context: Context, x: float, y: float, width: float) -> Iterator[str]:
    if cell is None:
        return
    css = f"s{context.slots[cell.leaders[0]].slot}" if len(cell.leaders) == 1 else "sn"
    yield f'<g class="cell {css} {cell.css}"><rect x="{x:g}" y="{y:g}" width="{width:g}" height="{_ROW}"/>'
    yield f'<path class="bar" d="M{x + 2:g} {y:g}v{_ROW}"/></g>'
    more = f" + {len(cell.leaders) - 1}" if len(cell.leaders) > 1 else ""
    lines = (
        (f"{', '.join(cell.leaders[:1])}{more}", "n", 17, _BOLD * 12.5),
        (cell.says, "p" if cell.says.startswith("+") else "p q", 35, _BOLD * 15),
        (f"{'suspect · ' if cell.suspect else ''}{cell.small}", "v", 51, 12.0),
    )  # fmt: skip
    for text, css, at, px in lines:
        line = f'<text class="{css}" x="{x + 10:g}" y="{y + at:g}">{html.escape(printable(_cut(text, width - 14, px)))}</text>'
        yield line if text else ""


def _facts(sheet: _Sheet, its: Answer) -> None:
    """What the answer holds for, in columns."""
    sheet.y += 18
    sheet.parts.append(f'<path class="rule" d="M{_EDGE} {sheet.y:g}H{WIDTH - _EDGE}"/>')
    top, x = sheet.y + 20, float(_EDGE)
    wanted = [max(text_width(line, 12.5) for line in (name, *lines)) + 20 for name, lines in its.facts.items()]
    room = (WIDTH - 2 * _EDGE) / max(sum(wanted), 1)
    for (name, lines), width in zip(its.facts.items(), wanted, strict=True):
        sheet.text(x, name, "k", at=top)
        for j, line in enumerate(lines[:_MOST_FACTS], start=1):
            sheet.text(x, _cut(line, width * min(room, 1) - 10, 12.5), "t", at=top + 18 * j)
        x += width * room
    sheet.y = top + 18 * max((min(len(lines), _MOST_FACTS) for lines in its.facts.values()), default=0) + _EDGE - 4


# -- text ----------------------------------------------------------------------------------------------------------------


def text_width(text: str, px: float) -> float:
    """The width of a line in DejaVu Sans, roughly: the widest font of those that the style names or falls back to."""
    return px * sum(0.37 if c in _NARROW else 0.95 if c in _WIDE else 0.7 if c.isupper() else 0.615 for c in text)


def wrapped(text: str, width: float, px: float) -> list[str]:
    """The text in lines of at most this width, broken between words."""
    out: list[str] = []
    for word in text.split():
        if out and text_width(f"{out[-1]} {word}", px) <= width:
            out[-1] = f"{out[-1]} {word}"
        else:
            out.append(word)
    return out


def balanced(text: str, width: float, px: float) -> list[str]:
    """The same number of lines, as even as they can be: no word stands alone in the last one."""
    lines = wrapped(text, width, px)
    narrower = (wrapped(text, width * share / 20, px) for share in range(10, 20))
    return next((found for found in narrower if len(found) == len(lines)), lines)


def _cut(text: str, width: float, px: float) -> str:
    """As much of the text as fits."""
    if text_width(text, px) <= width:
        return text
    while text and text_width(f"{text}…", px) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
