"""An analysis as Markdown for people, as tidy CSV for data frames, and as versioned JSON for programs.

CSV and JSON carry SI units and every figure, whatever a table shows. Returns text; knows no file and no terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.domain import JSON, plain, plain_object
from enginebench.domain.text import printable
from enginebench.metrics.registry import unit_of
from enginebench.metrics.statistics import Estimate
from enginebench.records.counters import acceptance
from enginebench.records.launch import LaunchRecord
from enginebench.report.columns import full_text, repeats_text
from enginebench.report.sections.comparison_table import Layout, Line, Section, lay_out
from enginebench.report.sections.fairness import Card, fairness
from enginebench.report.sections.highest_load import Finding, Findings, findings
from enginebench.validity import Verdict

REPORT_SCHEMA = 1
"""Version of `to_json`. Raise it when a reader of the old form would misread the new one."""

_SPECIAL = re.compile(r"([\\`*\[\]<>|~])")


# -- Markdown ------------------------------------------------------------------------------------------------------------


def to_markdown(analysis: Analysis) -> str:
    """The comparison as GitHub-flavoured Markdown: the sentence, one table per model, footnotes."""
    layout = lay_out(analysis)
    parts = [f"**{escape_markdown(analysis.sentence)}**", escape_markdown(layout.caption)]
    parts += [_markdown_findings(group) for group in findings(analysis)]
    for section in layout.sections:
        if len(layout.sections) > 1:
            parts.append(f"### {escape_markdown(section.model)}")
        parts.append("\n".join(_markdown_table(layout, section)))
    parts.append("\n".join(f"- {escape_markdown(name)}: {escape_markdown(facts)}" for name, facts in layout.legend.items()))
    notes = [f"- \\[{i}\\] {escape_markdown(note)}" for i, note in enumerate(layout.notes, start=1)]
    notes += [f"- `-`: {escape_markdown('; '.join(layout.missing))}"] if layout.missing else []
    notes += [f"- fairness: {escape_markdown(asymmetry)}" for asymmetry in fairness(analysis).asymmetries]
    notes += [f"- {escape_markdown(remark)}" for remark in analysis.caveats]
    notes += [f"- \\[low-high\\]: {escape_markdown(layout.intervals)}"] if layout.intervals else []
    notes.append(f"- Medians over n restarts; bold: the highest {layout.ranked} of that load, and those that cannot be told apart from it.")
    return "\n\n".join(part for part in (*parts, "\n".join(notes)) if part) + "\n"


def _markdown_findings(group: Findings) -> str:
    head = f"Highest load within the SLO on {escape_markdown(group.model)} ({escape_markdown(group.slo)}), {escape_markdown(group.title)}:"
    return "\n".join([head, "", *(f"- {escape_markdown(finding.sentence)}" for finding in group.found)])


def escape_markdown(text: str) -> str:
    """The text as literal Markdown on one line: no markup, no HTML, no table cell of its own, nothing that steers a terminal."""
    return _SPECIAL.sub(r"\\\1", printable(" ".join(text.split())))


def _markdown_table(layout: Layout, section: Section) -> Iterator[str]:
    yield _markdown_row([*map(escape_markdown, layout.headings), *(column.heading for column in layout.figures), "n", ""])
    yield _markdown_row([":--", *["--:"] * (len(layout.headings) - 1 + len(layout.figures) + 1), ":--"])
    for line in section.lines:
        yield _markdown_row(list(_markdown_cells(layout, line)))


def _markdown_cells(layout: Layout, line: Line) -> Iterator[str]:
    yield from map(escape_markdown, line.labels)
    for column in layout.figures:
        text = full_text(line.row.figures.get(column.figure), column)
        yield f"**{text}**" if line.best == column.figure else text
    yield repeats_text(line.row)
    marks = "".join(f"\\[{n}\\]" for n in line.notes)
    yield f"{'' if line.state == 'valid' else line.state} {marks}".strip()


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


# -- CSV -----------------------------------------------------------------------------------------------------------------


def to_csv(analysis: Analysis) -> str:
    """Tidy CSV: a line per deployment, load and figure, in SI units; a row that never ran has one line without a figure."""
    import pandas as pd

    fields = ["deployment", *analysis.columns, "load", "output_tokens", "requests", "status", "verdict", "reasons", "window"]
    columns = [*dict.fromkeys(fields), "figure", "unit", "value", "low", "high", "interval", "n"]
    lines = [line for row in analysis.rows for line in _tidy(row)]
    frame = pd.DataFrame(lines, columns=columns).astype({"n": "Int64"})
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def _tidy(row: Row) -> Iterator[dict[str, JSON]]:
    head: dict[str, JSON] = {
        "load": row.load.level_text,
        "output_tokens": row.load.output_tokens,
        "requests": row.load.requests,
        **row.labels,
        "deployment": row.name,
        "status": row.status,
        "verdict": _verdict(row.verdict),
        "reasons": printable(" | ".join(row.reasons)),
        "window": " | ".join(dict.fromkeys(cell.window.state for cell in row.cells if cell.window is not None)),
    }
    known = {name: found for name, found in row.figures.items() if found}
    for name, found in known.items():
        yield {**head, "figure": name, "unit": unit_of(name), **_estimate(found)}
    if not known:
        yield head


def _estimate(found: Estimate) -> dict[str, JSON]:
    return {"value": found.value, "low": found.low, "high": found.high, "interval": found.interval, "n": found.n}


# -- JSON ----------------------------------------------------------------------------------------------------------------


def to_json(analysis: Analysis) -> str:
    """Everything the analysis knows, in SI units: rows, their cells, launches, parity. `schema` is REPORT_SCHEMA."""
    run = analysis.run
    document: dict[str, JSON] = {
        "schema": REPORT_SCHEMA,
        "enginebench": run.enginebench,
        "run": {"name": run.name, "created_at": run.created_at, "plan_id": run.plan_id, "machine": plain(run.machine)},
        "sentence": analysis.sentence,
        "caveats": list(analysis.caveats),
        "counts": plain(analysis.counts),
        "columns": list(analysis.columns),
        "slo": plain(analysis.slo),
        "findings": [_finding(finding) for group in findings(analysis) for finding in group.found],
        "fairness": _card(fairness(analysis)),
        "rows": [_row(row) for row in analysis.rows],
        "launches": [_launch(launch) for launch in analysis.launches.values()],
        "parity": [{**plain_object(parity), "identical": parity.identical} for parity in analysis.parity],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finding(finding: Finding) -> JSON:
    return {
        "deployment": finding.name,
        "model": finding.model,
        "load": plain(finding.load),
        "search": {name: plain(getattr(finding.search, name)) for name in ("over", "start", "stop", "precision", "follows")},
        "level": _estimate(finding.level) if finding.level else None,
        "goodput": _estimate(finding.goodput) if finding.goodput else None,
        "endings": list(finding.endings),
        "cells": finding.cells,
        "doubts": list(finding.doubts),
    }


def _card(card: Card) -> JSON:
    """Deployment by deployment: each aspect with what was asked, what the engine says, and whether that is a difference."""
    return {
        "asymmetries": list(card.asymmetries),
        "deployments": [
            {
                "deployment": column.name,
                "model": column.model,
                "engine": column.engine,
                "facts": {name: plain(fact) for name, fact in column.facts.items()},
                "notes": list(column.notes),
            }
            for column in card.columns
        ],
    }


def _row(row: Row) -> JSON:
    return {
        "deployment": row.name,
        "labels": plain(row.labels),
        "status": row.status,
        "verdict": _verdict(row.verdict),
        "ranked": row.ranked,
        "reasons": list(row.reasons),
        "figures": {name: {"unit": unit_of(name), **_estimate(found)} for name, found in row.figures.items() if found},
        "asked": {"deployment": plain(row.deployment), "load": plain(row.load)},
        "cells": [_cell(cell) for cell in row.cells],
    }


def _cell(cell: CellResult) -> JSON:
    record = cell.record
    return {
        "id": record.id,
        "launch": record.launch_id,
        "repeat": record.repeat,
        "status": record.status,
        "reason": record.reason,
        "verdict": _verdict(cell.verdict),
        "reasons": [
            {"check": r.check.id, "severity": r.severity, "detail": r.detail, "meaning": r.check.meaning, "advice": r.check.advice}
            for r in cell.reasons
        ],
        "not_checkable": plain(cell.not_checkable),
        "itl_exact": cell.one_token_per_event,
        "tokens_counted_by": cell.tokens,
        "window": {**plain_object(cell.window), "length_s": cell.window.length_s} if cell.window else None,
        "withheld": plain(cell.withheld),
        "stated_by": record.stated.source if record.stated is not None else None,
        "figures": plain(cell.figures),
        "client": plain(record.client.health),
        "counters": plain(record.counters.totals),
        "gauges": plain(cell.gauges),
        "hardware": plain(cell.hardware),
        "prefix_cache": {"asked": record.load.prefix_cache, "proved_by": cell.cache.by, "cached_tokens": cell.cache.cached}
        if cell.ran
        else None,
        "speculative_acceptance": acceptance(record.counters.totals),
    }


def _verdict(verdict: Verdict) -> JSON:
    """null for what did not run, as exports have always had it."""
    return None if verdict == "not run" else verdict


def _launch(launch: LaunchRecord) -> JSON:
    startup = launch.startup
    return {
        "engine": launch.deployment.engine,
        "model": launch.deployment.model,
        "id": launch.id,
        "repeat": launch.repeat,
        "started_at": launch.started_at,
        "variant": launch.variant,
        "version": launch.version,
        "start_s": startup.start_s,
        "stop_s": startup.stop_s,
        "identity": startup.identity,
        "notes": list(startup.notes),
        "differences": plain(launch.configuration.differences),
        "ended": launch.ended,
    }
