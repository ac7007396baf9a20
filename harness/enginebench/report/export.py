"""An analysis as Markdown for people, as tidy CSV for data frames, and as versioned JSON for programs. CSV and JSON are in SI units."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.analysis.comparison import pair_keys, row_facts, run_facts
from enginebench.analysis.labels import load_text
from enginebench.analysis.likeness import origin
from enginebench.domain import JSON, plain, plain_object
from enginebench.domain.formatting import printable, printable_json
from enginebench.metrics.registry import unit_of
from enginebench.metrics.statistics import Estimate
from enginebench.records.counters import acceptance
from enginebench.report.columns import estimate_data, full_text, repeats_text
from enginebench.report.sections import all_sections
from enginebench.report.sections.comparison_table import ComparisonTable, Line, ModelRows, comparison_table
from enginebench.validity import Verdict

REPORT_SCHEMA = 1
"""Version of `to_json`. Raise it when a reader of the old form would misread the new one."""

_SPECIAL = re.compile(r"([\\`*\[\]<>|~])")


# -- Markdown ------------------------------------------------------------------------------------------------------------


def to_markdown(analysis: Analysis) -> str:
    """The report as GitHub-flavoured Markdown: the verdict, results of sections, one table per model, footnotes."""
    table = comparison_table(analysis)
    sections = [section for section in all_sections() if section.applies(analysis)]
    parts = [f"**{escape_markdown(analysis.sentence)}**", escape_markdown(table.caption)]
    for summary in (summary for section in sections for summary in section.summaries(analysis)):
        lines = [f"- {escape_markdown(line)}" for line in summary.lines]
        parts.append("\n".join([f"{escape_markdown(summary.heading)}:\n", *lines]))
    for model in table.models:
        if len(table.models) > 1:
            parts.append(f"### {escape_markdown(model.model)}")
        parts.append("\n".join(_markdown_table(table, model)))
    parts.append("\n".join(f"- {escape_markdown(name)}: {escape_markdown(facts)}" for name, facts in table.legend.items()))
    notes = [f"- \\[{i}\\] {escape_markdown(note)}" for i, note in enumerate(table.notes, start=1)]
    notes += [f"- `-`: {escape_markdown('; '.join(table.missing))}"] if table.missing else []
    notes += [f"- {escape_markdown(note)}" for section in sections for note in section.notes(analysis)]
    notes += [f"- {escape_markdown(caveat)}" for caveat in analysis.caveats]
    notes += [f"- \\[low-high\\]: {escape_markdown(table.intervals)}"] if table.intervals else []
    notes.append(f"- Medians over n restarts; bold: the highest {table.ranked} of that load, and those that cannot be told apart from it.")
    return "\n\n".join(part for part in (*parts, "\n".join(notes)) if part) + "\n"


def escape_markdown(text: str) -> str:
    """The text as literal Markdown on one line: no markup, no HTML, no cell separator, no control characters."""
    return _SPECIAL.sub(r"\\\1", printable(" ".join(text.split())))


def _markdown_table(table: ComparisonTable, model: ModelRows) -> Iterator[str]:
    yield _markdown_row([*map(escape_markdown, table.headings), *(column.heading for column in table.figures), "n", ""])
    yield _markdown_row([":--", *["--:"] * (len(table.headings) - 1 + len(table.figures) + 1), ":--"])
    for line in model.lines:
        yield _markdown_row(list(_markdown_cells(table, line)))


def _markdown_cells(table: ComparisonTable, line: Line) -> Iterator[str]:
    yield from map(escape_markdown, line.labels)
    for column in table.figures:
        text = full_text(line.row.figures.get(column.figure), column)
        yield f"**{text}**" if line.best == column.figure else text
    yield repeats_text(line.row)
    marks = "".join(f"\\[{n}\\]" for n in line.notes)
    yield f"{', '.join(line.tags)} {marks}".strip()


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


# -- CSV -----------------------------------------------------------------------------------------------------------------


def to_csv(analysis: Analysis) -> str:
    """Tidy CSV: one line per deployment, load and figure, in SI units; a row that did not run has one line without a figure."""
    import pandas as pd

    fields = ["deployment", *analysis.columns, "load", "output_tokens", "requests", "status", "verdict", "reasons", "window"]
    columns = [*dict.fromkeys(fields), "figure", "unit", "value", "low", "high", "interval", "n"]
    lines = [line for row in analysis.rows for line in _tidy(row)]
    frame = pd.DataFrame(lines, columns=columns).astype({"n": "Int64"}).map(lambda each: printable(each) if isinstance(each, str) else each)
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def _tidy(row: Row) -> Iterator[dict[str, JSON]]:
    head: dict[str, JSON] = {
        "load": row.load.level_text, "output_tokens": row.load.output_tokens, "requests": row.load.requests, **row.labels,
        "deployment": row.name, "status": row.status, "verdict": _verdict(row.verdict), "attached": row.attached,
        "reasons": " | ".join(row.reasons),
        "window": " | ".join(dict.fromkeys(cell.window.state for cell in row.cells if cell.window is not None)),
    }  # fmt: skip
    known = {name: found for name, found in row.figures.items() if found}
    for name, found in known.items():
        yield {**head, "figure": name, "unit": unit_of(name), **estimate_data(found)}
    if not known:
        yield head


# -- JSON ----------------------------------------------------------------------------------------------------------------


def to_json(analysis: Analysis) -> str:
    """Everything in the analysis, in SI units, and the data of every section. `schema` is REPORT_SCHEMA.

    ValueError if a section uses the key of another one.
    """
    run = analysis.run
    document: dict[str, JSON] = {
        "schema": REPORT_SCHEMA,
        "enginebench": run.enginebench,
        "run": {
            "name": run.name,
            "created_at": run.created_at,
            "plan_id": run.plan_id,
            "machine": plain(run.machine),
            "inputs": plain(run.inputs),
        },
        "sentence": analysis.sentence,
        "conclusion": plain(analysis.conclusion),
        "caveats": list(analysis.caveats),
        "counts": plain(analysis.counts),
        "columns": list(analysis.columns),
        "slo": plain(analysis.slo),
        "rows": [_row(row, analysis) for row in analysis.rows],
        "facts": plain(run_facts(analysis)),
    }
    for section in all_sections():
        for key, value in section.data(analysis).items():
            if key in document:
                raise ValueError(f"section '{section.id}': the key '{key}' is already in the JSON document")
            document[key] = value
    return printable_json(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def _row(row: Row, analysis: Analysis) -> JSON:
    same, engine = pair_keys(row)
    return {
        "deployment": row.name, "load": load_text(row.load), "pair": {"same": same, "engine": engine},
        "labels": plain(row.labels), "status": row.status, "verdict": _verdict(row.verdict),
        "attached": row.attached, "ranked": row.ranked,
        "reasons": list(row.reasons), "facts": plain(row_facts(row, analysis)),
        "imported_from": its.tool if (its := origin(row)) is not None else None,
        "random_weights": any(cell.record.traits.random_weights for cell in row.cells),
        "figures": {name: _figure(name, found) for name, found in row.figures.items() if found},
        "asked": {"deployment": row.deployment.shown, "load": plain(row.load)}, "cells": [_cell(cell) for cell in row.cells],
    }  # fmt: skip


def _figure(name: str, found: Estimate) -> JSON:
    return {"unit": unit_of(name), **estimate_data(found), "values": list(found.values)}


def _cell(cell: CellResult) -> JSON:
    record = cell.record
    cache: JSON = {"asked": record.load.prefix_cache, "proved_by": cell.cache.by, "cached_tokens": cell.cache.cached}
    return {
        "id": record.id, "launch": record.launch_id, "repeat": record.repeat, "status": record.status, "reason": record.reason,
        "verdict": _verdict(cell.verdict),
        "reasons": [
            {"check": r.check.id, "severity": r.severity, "detail": r.detail, "meaning": r.check.meaning, "advice": r.check.advice}
            for r in cell.reasons
        ],
        "not_checkable": plain(cell.not_checkable), "itl_exact": cell.one_token_per_event, "tokens_counted_by": cell.tokens,
        "window": {**plain_object(cell.window), "length_s": cell.window.length_s} if cell.window else None,
        "withheld": plain(cell.withheld), "stated_by": record.stated.source if record.stated is not None else None,
        "imported": plain(record.imported),
        "figures": plain(cell.figures), "expected": cell.expected.to_dict() if cell.expected else None,
        "client": plain(record.client.health), "counters": plain(record.counters.totals),
        "gauges": plain(cell.gauges), "hardware": plain(cell.hardware),
        "prefix_cache": cache if cell.ran else None, "speculative_acceptance": acceptance(record.counters.totals),
    }  # fmt: skip


def _verdict(verdict: Verdict) -> JSON:
    """null if it did not run."""
    return None if verdict == "not run" else verdict
