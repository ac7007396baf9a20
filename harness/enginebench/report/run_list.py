"""The runs of a folder in a terminal, two lines each in 80 columns, and as data. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from enginebench.analysis.run_index import RunIndex
from enginebench.analysis.stored_run import StoredRun
from enginebench.domain import JSON
from enginebench.domain.formatting import counted, printable
from enginebench.report.layout import columns_of

LIST_SCHEMA = 1
"""Version of `index_to_dict`. Raise it when a reader of the old form would misread the new one."""


def index_to_text(index: RunIndex, *, width: int | None = None) -> str:
    """Newest first: name, start (UTC), cells, trust; below it scenario, size, engines, models and machine. width: as `columns_of`."""
    width = columns_of(width)
    lines = [_head(index)]
    for run in index.runs:
        lines += [_first(run, width), _cut(f"  {_second(run)}", width)]
    return "\n".join(printable(line, "\n").rstrip() for line in lines) + "\n"


def _head(index: RunIndex) -> str:
    if not index.runs:
        return f"no runs in {index.folder}; make one: bench run quickstart"
    states = [run.state for run in index.runs]
    parts = [f"{states.count(state)} {state}" for state in ("complete", "incomplete", "damaged") if states.count(state)]
    return f"{counted(len(index.runs), 'run')} in {index.folder}, newest first: {', '.join(parts)}"


def _first(run: StoredRun, width: int) -> str:
    """On two lines where a long name leaves too little room: a name that is cut cannot be typed."""
    facts = "damaged" if run.state == "damaged" else "  ".join(filter(None, (when(run.started_at), cells_of(run.counts), run.trust)))
    room = width - len(facts) - 2
    name = printable(run.id)
    return f"{name:<{room}}  {facts}" if len(name) <= room else f"{_cut(name, width)}\n{_cut(f'  {facts}', width)}"


def _second(run: StoredRun) -> str:
    if run.state == "damaged":
        return run.problem
    size = " x ".join(map(str, (run.deployments, run.loads, *([run.repeats] if run.repeats > 1 else []))))
    engines = ", ".join(" ".join([engine, "/".join(versions)]).strip() for engine, versions in run.engines.items())
    return " · ".join(filter(None, (run.scenario, size if run.deployments else "", engines, ", ".join(run.models), run.machine)))


def cells_of(counts: Mapping[str, int]) -> str:
    """'32/32 ok', or '30/32 ok, 2 failed'."""
    bad = [f"{count} {status}" for status, count in counts.items() if count and status != "ok"]
    return ", ".join([f"{counts.get('ok', 0)}/{sum(counts.values())} ok", *bad])


def when(text: str) -> str:
    """'2026-11-30 12:00' in UTC; the text itself if it is no time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return text


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def index_to_dict(index: RunIndex) -> JSON:
    """What `bench list --json` prints."""
    return {
        "schema": LIST_SCHEMA,
        "folder": str(index.folder).encode(errors="replace").decode(),
        "runs": [_data(run) for run in index.runs],
    }


def _data(run: StoredRun) -> JSON:
    data: dict[str, JSON] = {name: value for name, value in asdict(run).items() if name != "weights"}
    return {**data, "path": str(run.path).encode(errors="replace").decode()}
