"""The HTML page: one file that opens offline and asks the network for nothing, with every plot, table and provenance in it.

Only assembles: content comes from layout, plots, distributions and provenance, form from reports/templates. Strings from a run are
hostile until escaped: jinja2 escapes the page, `script_json` the data block, `traces` what Plotly reads. A content security policy
allows exactly the two scripts that are meant to run, by their hash, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from enginebench.analysis.analysis import Analysis, Row, verdict_sentence
from enginebench.domain import JSON
from enginebench.machine.folders import resource_dir
from enginebench.metrics.registry import metrics
from enginebench.records.files import write_atomically
from enginebench.records.run_folder import Run
from enginebench.report import plotly_traces as traces
from enginebench.report import plots
from enginebench.report.columns import GOODPUT, THROUGHPUT, TPOT, TTFT, Column, interval_text, repeats_text, value_text, why_missing
from enginebench.report.sample_summary import read_samples
from enginebench.report.sections.comparison_table import lay_out
from enginebench.report.sections.engine_internals import inside
from enginebench.report.sections.fairness import fairness
from enginebench.report.sections.highest_load import findings
from enginebench.report.sections.provenance import provenance
from enginebench.validity import VERDICTS, Check, all_checks

_KEYS = (
    ("Highest output throughput", THROUGHPUT),
    ("Highest goodput", GOODPUT),
    ("Lowest time to first token (p50)", TTFT),
    ("Lowest time per output token (p50)", TPOT),
)


@dataclass(frozen=True)
class Definition:
    """A metric as the page explains it."""

    label: str
    formula: str


@dataclass(frozen=True)
class KeyNumber:
    """The best figure of one kind: what, how much, and whose."""

    title: str
    value: str
    unit: str
    interval: str
    whose: str


def write_html(run: Run, analysis: Analysis, path: Path) -> Path:
    """Write the page atomically and return `path`. Reads the samples of every cell once."""
    write_atomically(path, render_html(run, analysis))
    return path


def render_html(run: Run, analysis: Analysis) -> str:
    """The page as text."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    templates = resource_dir("reports/templates")
    script = (templates / "report.js").read_text(encoding="utf-8")
    plotly = _inside_script(get_plotlyjs())
    reading = read_samples(run, analysis)
    deployments = plots.deployments(analysis)
    within = inside(analysis, reading, {name: i for i, name in enumerate(deployments)})
    sections = (*plots.sections(analysis, reading), *([within] if within.panels else []))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"bytes": _bytes, "prose": _prose}
    environment.globals |= {
        "value_text": value_text,
        "interval_text": interval_text,
        "repeats_text": repeats_text,
        "why_missing": why_missing,
    }
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        run=analysis.run,
        layout=lay_out(analysis),
        verdicts=_verdicts(analysis),
        key_numbers=_key_numbers(analysis),
        deployments=deployments,
        sections=sections,
        findings=findings(analysis),
        fairness=fairness(analysis),
        symbols=traces.SYMBOLS,
        dashes=traces.DASHES,
        provenance=provenance(analysis, reading),
        definitions=list(definitions()),
        checks=[(check, _not_checkable(check, analysis)) for check in all_checks()],
        verdict_meanings=VERDICTS,
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),  # noqa: S704  # ours
        plots_json=Markup(script_json(_specs(sections))),  # noqa: S704  # script_json escapes
        plotly_js=Markup(plotly),  # noqa: S704  # the library
        report_js=Markup(script),  # noqa: S704  # ours
        policy=_policy(plotly, script),
    )


def script_json(value: JSON) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def definitions() -> Iterator[Definition]:
    """Every metric with its definition, the docstring of the function that computes it."""
    for metric in metrics().values():
        yield Definition(metric.title, metric.definition)


def _prose(text: str) -> str:
    """Advice is written for a terminal; a page needs no backticks."""
    return text.replace("`", "")


def _specs(sections: tuple[plots.PlotSection, ...]) -> JSON:
    return [{"data": list(panel.traces), "layout": dict(panel.layout)} for section in sections for panel in section.panels]


def _verdicts(analysis: Analysis) -> list[tuple[str, str]]:
    """(model, sentence): one model each, so that the page can set them apart."""
    models = list(dict.fromkeys(row.deployment.model for row in analysis.rows))
    if len(models) < 2:
        return [("", analysis.sentence)]
    return [(model, verdict_sentence(tuple(row for row in analysis.rows if row.deployment.model == model))) for model in models]


def _not_checkable(check: Check, analysis: Analysis) -> str:
    """In how many cells the check could not run, and for lack of what; empty where it ran in all."""
    ran = [cell for row in analysis.rows for cell in row.cells if cell.ran]
    lacking = [cell.not_checkable[check.id] for cell in ran if check.id in cell.not_checkable]
    return f"not checkable in {len(lacking)} of {len(ran)} cells: no {' or '.join(dict.fromkeys(lacking))}" if lacking else ""


def _key_numbers(analysis: Analysis) -> Mapping[str, list[KeyNumber]]:
    """Per model: the highest throughput and goodput and the lowest latencies among the rows that may be compared, or of its only one."""
    models = dict.fromkeys(row.deployment.model for row in analysis.rows)
    out: dict[str, list[KeyNumber]] = {}
    for model in models:
        sound = [row for row in analysis.rows if row.deployment.model == model and row.sound]
        rows = [row for row in sound if row.ranked or len({row.name for row in sound}) == 1]
        found = [number for title, column in _KEYS if (number := _key_number(title, column, rows))]
        if found:
            out[model] = found
    return out


def _key_number(title: str, column: Column, rows: list[Row]) -> KeyNumber | None:
    values = {i: found.value for i, row in enumerate(rows) if (found := row.figures.get(column.figure))}
    if not values:
        return None
    row = rows[(max if column in (THROUGHPUT, GOODPUT) else min)(values, key=values.__getitem__)]
    whose = f"{row.name} · {row.load.level_text} · {row.load.shape_text}"
    found = row.figures[column.figure]
    return KeyNumber(title, value_text(found, column), column.unit, interval_text(found, column, "\N{EN DASH}"), whose)


def _bytes(value: float) -> str:
    """2**30 -> '1 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def _inside_script(source: str) -> str:
    """A library's source so that no string in it can end the script element; carriage returns would change the hash."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")


def _policy(*scripts: str) -> str:
    """The content security policy: these scripts by hash, inline styles (Plotly makes some), and nothing from anywhere else."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
