"""What cannot run here, in a few lines of 80 columns: what is missing, what would do, what can be seen now."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from textwrap import wrap

import enginebench
from enginebench.cli.shared import Overrides, command_line
from enginebench.domain.formatting import counted

_WIDTH = 80
_LABEL = 10
_LINES = 3
"""For what is missing and what would do, of five: the others are the title and what can be seen now."""
_ORDER = ("node", "devices", "engine", "secret", "image", "daemon", "disk")


def refusal(title: str, found: enginebench.Preflight, see: Sequence[str]) -> list[str]:
    """At most five lines. see: commands that work without what is missing."""
    lacking = _packed([each.what for each in found.missing], _LINES - 1)
    fixes = _packed(list(would_do(found)), _LINES - len(lacking), cut=False)
    rows = [*_labelled("missing", lacking), *_labelled("would do", fixes), *_labelled("see now", [" · ".join(see)])]
    return [f"{title}: cannot run here", *rows]


def conclusion(plan: enginebench.Plan, found: enginebench.Preflight) -> str:
    """The first line of a plan: 'Runs here: 312 of 360 cells; the others are skipped, see below.'"""
    first, *others = [each.what for each in found.missing] or [""]
    lacks = f"{first}{f', and {len(others)} more' if others else ''}"
    if not found.cells:
        return "Nothing would run: every cell is skipped, see below."
    if found.refused:
        return f"Cannot run here: {lacks}."
    able = found.cells - len(found.skipped)
    cells = counted(able, "cell") if able == len(plan.cells) else f"{able:,} of {counted(len(plan.cells), 'cell')}"
    if found.skipped:
        return f"Runs here in part: {cells}; for the others: {lacks}."
    return f"Runs here: {cells}{'; the others are skipped, see below' if able < len(plan.cells) else ''}."


def missing_here(found: enginebench.Preflight) -> list[str]:
    """What ends a plan: that nothing of it can run here, and what would do; else one line for each thing that a part of it lacks."""
    if found.refused:
        lines = _labelled("missing", _packed([each.what for each in found.missing], len(found.missing)))
        return ["cannot run here", *lines, *_labelled("would do", _packed(list(would_do(found)), _LINES))]
    return [f"missing here: {line}" for line in found.warnings]


def see_now(scenario: str, overrides: Overrides, plan: enginebench.Plan, found: enginebench.Preflight) -> list[str]:
    """Commands that need nothing of what is missing: the plan, and the ceiling of its first model that is known."""
    ceiling = ["bench", "ceiling", found.model, "--hardware", plan.scenario.hardware or "h100"] if found.model else ["bench", "ceiling"]
    shown = command_line("plan", scenario, overrides)
    room = len(f"{shown} · {shlex.join(ceiling)}") <= _WIDTH - _LABEL
    return [shown, shlex.join(ceiling) if room else "bench ceiling"]


def would_do(found: enginebench.Preflight) -> Iterator[str]:
    """What to type, the likeliest first."""
    fixes = sorted((each for each in found.missing if each.fix), key=lambda each: _ORDER.index(each.kind))
    yield from dict.fromkeys(each.fix for each in fixes if each.kind in ("node", "devices", "engine", "secret"))
    if found.parts_differ:
        yield "--only ..."
    if any(each.kind in ("devices", "engine", "image", "daemon") for each in found.missing):
        yield "runtime: attach"
    yield from dict.fromkeys(each.fix for each in fixes if each.kind not in ("node", "devices", "engine", "secret"))


def _labelled(label: str, lines: Sequence[str]) -> list[str]:
    return [f"{label if i == 0 else '':<{_LABEL}}{line}" for i, line in enumerate(lines)]


def _packed(items: Sequence[str], most: int, *, cut: bool = True) -> list[str]:
    """The items in at most so many lines; what has no room is counted (cut), or left out."""
    lines: list[str] = []
    for i, item in enumerate(items):
        parts = wrap(item, _WIDTH - _LABEL, break_long_words=False, break_on_hyphens=False) if cut else [item]
        if lines and len(f"{lines[-1]} · {item}") <= _WIDTH - _LABEL:
            lines[-1] = f"{lines[-1]} · {item}"
        elif len(lines) + len(parts) <= most or not lines:
            lines += parts[:most]
        else:
            lines[-1] += f" · {len(items) - i} more" if cut else ""
            break
    return lines
