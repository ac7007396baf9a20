"""The outcome of a tuning as text: default and tuned side by side, what mattered, what to copy."""

from __future__ import annotations

import json
from collections.abc import Iterator

from enginebench.analysis.analysis import Analysis
from enginebench.analysis.labels import deployment_titles
from enginebench.analysis.tuning import Tuned, spec_of, tuned_of
from enginebench.domain import JSON, plain_object
from enginebench.domain.formatting import counted, duration, number, percent, relative_change
from enginebench.domain.ids import text_of
from enginebench.metrics.registry import find
from enginebench.metrics.statistics import CONFIDENCE, Estimate
from enginebench.report.layout import aligned, columns_of, joined, labelled

_MOST_EFFECTS = 5
_VERDICTS = {
    "better": "surely better", "worse": "surely worse: keep the default", "equal": "equal in practice: keep the default",
    "not told apart": "not told apart",
}  # fmt: skip


def tuning_text(analysis: Analysis, width: int | None = None) -> str:
    """For a terminal. '' for a run that is no tuning."""
    spec, width = spec_of(analysis.run.scenario), columns_of(width)
    if spec is None:
        return ""
    found = tuned_of(analysis)
    names = deployment_titles(spec.bases)
    head = ["deployment", f"default ({unit_of(spec.figure)[0]})", "tuned", "gain", "restarts"]
    rows = [head, *([names[text_of(its.base)], *row_of(its, spec.figure)] for its in found)]
    blocks = [list(aligned(rows, width, left=1))]
    named = ((its, names[text_of(its.base)]) for its in found)
    blocks += [[line for label, text in lines_of(its, name) for line in labelled(label, text, width, 10)] for its, name in named]
    return joined(blocks)


def unit_of(figure: str) -> tuple[str, float]:
    """'output tok/s' and the factor to it."""
    found = find(figure)
    if found is None:
        return figure, 1.0
    unit, factor = found[0].display()
    return f"{found[0].header}{f' p{found[1]:g}' if found[1] is not None else ''} {unit}", factor


def row_of(its: Tuned, figure: str) -> list[str]:
    """Default, tuned, gain, restarts."""
    factor = unit_of(figure)[1]
    if its.gain is None or its.gain.relative is None:
        return [_value(its.default, factor), _value(its.tuned, factor), its.verdict, ""]
    n = f"{its.default.n if its.default else 0} + {its.tuned.n if its.tuned else 0}"
    return [_value(its.default, factor), _value(its.tuned, factor), relative_change(its.gain.relative, its.gain.low, its.gain.high), n]


def lines_of(its: Tuned, name: str) -> Iterator[tuple[str, str]]:
    """Label -> text."""
    p = f", p = {its.gain.p:.2g}" if its.gain is not None and its.gain.p is not None else ""
    failed = f", {its.failed} failed" if its.failed else ""
    cost = f"{counted(its.candidates, 'candidate')}, {counted(its.restarts, 'restart')}, {duration(its.spent_s)} of engine time{failed}"
    unsure = its.gain is not None and 0 < its.gain.coverage < CONFIDENCE
    few = f"; the interval holds the gain in {percent(its.gain.coverage, 2)} of such runs: more --budget" if its.gain and unsure else ""
    yield "result", f"{name}: {_VERDICTS.get(its.verdict, its.verdict)}{p}{few} ({cost})"
    if its.settings:
        yield "options", yaml_of(its.settings)
    mattered = [f"{each.name} {percent(each.gain, 2)} ({_text(each.best)})" for each in its.effects[:_MOST_EFFECTS] if each.gain >= 0.005]
    if mattered:
        yield "mattered", ", ".join(mattered)
    if its.command and its.verdict == "better":
        yield "command", its.command


def yaml_of(settings: object) -> str:
    """'{threads: 2, ubatch: 1024}', to be copied into a scenario."""
    items = dict(settings) if isinstance(settings, dict) else {}
    return "{" + ", ".join(f"{name}: {_text(value)}" for name, value in items.items()) + "}"


def tuning_data(analysis: Analysis) -> list[JSON]:
    return [plain_object(its) for its in tuned_of(analysis)]


def _text(value: JSON) -> str:
    return "as it was" if value is None else value if isinstance(value, str) and value.isidentifier() else json.dumps(value)


def _value(found: Estimate | None, factor: float) -> str:
    return "-" if found is None else number(found.value * factor)
