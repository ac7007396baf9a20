"""docs/dialects.md: what other tools' metrics mean and what they become, from the declarations of the importers, and tool against truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from enginebench.records.importer import Importer
from enginebench.runner.imports import all_importers

MEASURED = Path(__file__).parents[1] / "benchmarks" / "dialects_measured.jsonl"
"""One line for each run of a tool against truthserver, by benchmarks/dialects.py."""


def dialects() -> str:
    from physics_pages import GENERATED

    out = [
        GENERATED + "# What other tools' figures mean",
        "`bench import` maps the metrics of other tools by definition, not by name. A figure becomes one of [ours](metrics.md) only if it means "
        "the same. What has no equal is kept under its own name and never compared. Where a figure means nearly the same, *what is unlike* says "
        "how it differs, and `bench compare` refuses to compare it with figures that do not differ in that way. Where a file has single requests, "
        "they become samples: then every figure is computed as for a run of `bench run`, and the tool's own figures are used only for what the "
        "samples cannot give.",
        "Not every tool has run here: the files by which the importers of trtllm-bench, InferenceX, llm-d and MLPerf Endpoints are tested were made "
        "with the keys and formulas of their code, GenAI-Perf ran against a stand-in for the client that it starts, and SGLang's Python client "
        "did not run (its Rust client did). The files of all others were written by the tools.",
        _truth(),
        *(_tool(each) for each in all_importers()),
    ]
    return "\n\n".join(filter(None, out)) + "\n"


def _tool(tool: Importer) -> str:
    rows = [
        f"| {term.concept} | {_code(term.theirs)} | {term.means} | {_code(term.becomes) if term.becomes else '-'} | {term.differs or '-'} |"
        for term in tool.dialect.terms
    ]
    forms = "".join(f"- *{form.name}*: {form.text.replace('has ', 'has ', 1)}\n" for form in tool.forms)
    known = "".join(f"- {caveat.sentence}{_scope(caveat.from_streams, caveat.before)}\n" for caveat in tool.dialect.caveats)
    faults = f"\n\nKnown faults, attached to the runs that they apply to:\n\n{known}" if known else ""
    table = "| concept | theirs | what it means | becomes | what is unlike |\n|---|---|---|---|---|\n" + "\n".join(rows)
    return f"## {tool.tool}\n\nRecognised by what the first object or line of a file has:\n\n{forms}\n{table}{faults}".rstrip()


def _scope(streams: int, before: str) -> str:
    parts = [f"from {streams:,} streams"] if streams else []
    parts += [f"before version {before}"] if before else []
    return f" [{', '.join(parts)}]" if parts else ""


def _code(name: str) -> str:
    return "-" if name == "-" else f"`{name}`"


def _truth() -> str:
    if not MEASURED.exists():
        return ""
    runs: list[dict[str, Any]] = [json.loads(line) for line in MEASURED.read_text().splitlines()]
    rows = [
        f"| {run['tool']} {run['version']} | {run['server']} | `{name}` | {_figure(its['truth'])} | {_figure(its['tool'])} | {_figure(its['imported'])} |"
        for run in runs
        for name, its in run["figures"].items()
    ]
    loads = ", ".join(sorted({run["load"] for run in runs}))
    return (
        f"## Tool against truth\n\nMeasured with `benchmarks/dialects.py` ({loads}): each tool against `benchmarks/truthserver`, which logs when it "
        "had read each request and when it sent each token, and against the fake engine, whose pace is known. *Truth* is computed from that log with "
        "the definition of the metric here, or is the pace; *tool* is what the tool's own file states (in the metric's unit); *imported* is what "
        "`bench import` makes of the file. Where *tool* and *imported* differ, the file has single requests, from which the figure is computed by our "
        "definition: another percentile method, the time until the last token instead of the end of the response, and, for inference-perf against "
        "the fake engine, the server's count of tokens instead of the tool's tokenizer, which splits the fake engine's words.\n\n"
        "| tool | server | figure | truth | tool | imported |\n|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
