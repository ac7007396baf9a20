"""The section on provenance: each server start with its command, configuration and cells.

Turns records into text. Escapes nothing (the template does) and judges nothing.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.analysis.labels import load_text
from enginebench.domain import JSON, plain, plain_object
from enginebench.domain.formatting import counted, flat, number, percent, stored
from enginebench.records.cell import ClientHost
from enginebench.records.counters import acceptance
from enginebench.records.launch import LaunchRecord
from enginebench.records.window import Window
from enginebench.report.blocks import Block, Custom
from enginebench.report.sample_summary import SampleSummary
from enginebench.report.section import Context, Section

_LOG_LINES = 40
_LOG_WIDTH = 300
_MOST_CELLS = 150
"""Of a run with more cells, those that are valid or suspect are counted and not listed: the page would be too large."""
_PORT = re.compile(r"\b\d{4,5}\b")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


def provenance(analysis: Analysis, samples: SampleSummary) -> list[dict[str, Any]]:
    """Every deployment in the order of the run, with its server starts and their cells, as the template names them."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in analysis.rows:
        groups.setdefault((row.deployment.model, row.name), []).append(row)
    return [_deployment(rows, analysis, samples) for rows in groups.values()]


def _deployment(rows: list[Row], analysis: Analysis, samples: SampleSummary) -> dict[str, Any]:
    starts: dict[str, list[CellResult]] = {}
    for cell in sorted((cell for row in rows for cell in row.cells), key=lambda cell: cell.record.repeat):
        starts.setdefault(cell.record.launch_id, []).append(cell)
    all_cells = sum(len(row.cells) for row in analysis.rows) <= _MOST_CELLS
    first = next((analysis.launches[key] for key in starts if key in analysis.launches), None)
    return {
        "name": rows[0].name,
        "model": rows[0].deployment.model,
        "requested": outline(rows[0].deployment.shown),
        "summary": f"{counted(len(starts), 'server start')}, {counted(sum(map(len, starts.values())), 'cell')}",
        "launches": [_launch(key, cells, analysis.launches.get(key), first, samples, all_cells=all_cells) for key, cells in starts.items()],
    }


def _launch(
    key: str, cells: list[CellResult], launch: LaunchRecord | None, first: LaunchRecord | None, samples: SampleSummary, *, all_cells: bool
) -> dict[str, Any]:
    """A server start; of what the first one also had, only the facts that change from start to start."""
    title = f"Repeat {cells[0].record.repeat}{'' if launch else ': no server was started'}"
    listed = [cell for cell in cells if all_cells or not cell.ran or cell.verdict == "invalid"]
    left = Counter(cell.verdict for cell in cells if cell not in listed)
    unlisted = " and ".join(f"{count} {verdict}" for verdict, count in left.items())
    start = {"id": key, "title": title, "cells": list(_cells(listed, samples)), "unlisted": unlisted, "same": [], "partial": False}
    if launch is None:
        return start
    told = _told(launch)
    if first is None or launch is first:
        return start | {"facts": _facts(launch), **told}
    before = _told(first)
    same = [name for name in told if _alike(told[name], before[name])]
    kept = {name: _NOTHING[name] if name in same else value for name, value in told.items()}
    if kept["resolved"]:  # of a long configuration, identifiers and times change at every start
        kept["resolved"], kept["partial"] = _changed(before["resolved"], kept["resolved"]), bool(before["resolved"])
    return start | {"facts": _facts(launch, first), **kept, "same": [_CALLED[name] for name in same if told[name]]}


def _changed(before: str, now: str) -> str:
    """The lines of `now` that are new or changed."""
    return "\n".join(line[2:] for line in difflib.ndiff(before.splitlines(), now.splitlines()) if line.startswith("+ "))


_CALLED = {"differences": "reported differences", "notes": "notes", "commands": "command", "resolved": "configuration"}
_NOTHING: Mapping[str, Any] = {"differences": (), "notes": (), "commands": (), "resolved": ""}


def _told(launch: LaunchRecord) -> dict[str, Any]:
    resolved = launch.configuration.resolved
    return {
        "differences": [{k: stored(v) for k, v in plain_object(difference).items()} for difference in launch.configuration.differences],
        "notes": launch.startup.notes,
        "commands": list(_commands(launch)),
        "resolved": outline(plain_object(resolved)) if resolved else "",
    }


def _alike(a: object, b: object) -> bool:
    """Whether two values are the same but for ports, which every start has of its own."""
    return _PORT.sub("", str(a)) == _PORT.sub("", str(b))


def _commands(launch: LaunchRecord) -> Iterator[dict[str, Any]]:
    """Additional servers first, then the main one, as they were started; an attached server has no command."""
    for name, argv, env in launch.startup.command.commands if launch.startup.command else ():
        hidden = {key: "(hidden)" if _SECRET.search(key) else value for key, value in env.items()}
        yield {"server": name, "env": hidden, "line": shlex.join(argv)}


def _facts(launch: LaunchRecord, first: LaunchRecord | None = None) -> dict[str, str]:
    """first: a start whose facts are not repeated."""
    startup, known = launch.startup, _facts(first) if first is not None else {}
    facts = {
        "variant": launch.variant,
        "version": launch.version,
        "started": launch.started_at,
        "ready after": None if startup.start_s is None else f"{number(startup.start_s)} s",
        "stopped in": None if startup.stop_s is None else f"{number(startup.stop_s)} s",
        "identity": startup.identity,
        "ended": launch.ended,
    }
    return {name: value for name, value in facts.items() if value and value != known.get(name)}


def _cells(cells: list[CellResult], samples: SampleSummary) -> Iterator[dict[str, Any]]:
    """The cells of a start. What several of them share (why they failed, the end of the log) is shown at the first."""
    said: set[str | None] = set()
    for cell in cells:
        view, reason = _cell(cell, samples.outcomes.get(cell.record.id)), None if cell.ran else cell.record.reason
        again: dict[str, Any] = {"reasons": []} if reason is not None and reason in said else {}
        brief = [each.check.meaning if str(each) in said else str(each) for each in cell.reasons] if cell.reasons and not again else None
        shorter: dict[str, Any] = {"reasons": [*brief, *view["reasons"][len(brief) :]]} if brief else {}
        yield view | shorter | again | ({"log_tail": ""} if view["log_tail"] in said else {})
        said |= {reason, view["log_tail"], *map(str, cell.reasons)}


def _cell(cell: CellResult, outcome: Mapping[str, int] | None) -> dict[str, Any]:
    record = cell.record
    return {
        "id": record.id,
        "load": load_text(record.load),
        "state": cell.verdict if cell.ran else record.status,
        "outcomes": ", ".join(f"{n:,} {kind}" for kind, n in outcome.items()) if outcome else "-",
        "window": _window(cell.window) if cell.window else "-",
        "tokens": cell.tokens,
        "client": ", ".join([*_pairs(record.client.health), *map(_client_host, record.client.hosts)]),
        "counters": ", ".join(_counters(cell)),
        "cache": (cell.cache.text if record.load.prefix_cache == "cold" else _cache(cell)) if cell.ran else "-",
        "reasons": [*map(str, cell.reasons), *([record.reason + (f" (log: {cell.log})" if cell.log else "")] if record.reason else [])],
        "log_tail": "\n".join(line[:_LOG_WIDTH] for line in record.log_tail[-_LOG_LINES:]),
    }


def _client_host(host: ClientHost) -> str:
    """'192.168.1.11:7777 sent 4 streams, its clock +3,000.000 ms within 0.02 ms, drift +0.001 ms'."""
    part = counted(host.streams, "stream") if host.streams else counted(host.requests, "request")
    return f"{host.name} sent {part}, its clock {host.offset_ms:+,.3f} ms within {number(host.error_ms)} ms, drift {host.drift_ms:+,.3f} ms"


def _cache(cell: CellResult) -> str:
    """'warm by design, 2,048 of 4,096 prompt tokens cached, by counters'."""
    asked = "warm by design" if cell.record.load.prefix_cache == "warm" else "allowed to be warm"
    return f"{asked}, {cell.cache.text}" if cell.cache.by is not None and cell.cache.cached else asked


def _window(window: Window) -> str:
    """'9.80 s, steady; cut off: 1.20 s at the start, 0.400 s at the end'."""
    cut = [f"{number(seconds)} s at the {end}" for end, seconds in (("start", window.head_s), ("end", window.tail_s)) if seconds > 0]
    return f"{number(window.length_s)} s, {window.state}" + (f"; cut off: {', '.join(cut)}" if cut else "")


def _counters(cell: CellResult) -> Iterator[str]:
    """The engine's totals over the cell, its gauges over the window, and the share of draft tokens that were accepted."""
    yield from _pairs(cell.record.counters.totals)
    for name, gauge in cell.gauges.items():
        yield f"{name.replace('_', ' ')} {number(gauge.mean)} (mean), {number(gauge.max)} (max)"
    if (share := acceptance(cell.record.counters.totals)) is not None:
        yield f"{percent(share)} of draft tokens accepted"
    if cell.record.counters.problem:
        yield cell.record.counters.problem


def _pairs(values: Mapping[str, JSON] | Mapping[str, float]) -> Iterator[str]:
    for name, value in values.items():
        yield f"{name.replace('_', ' ')} {stored(value)}"


def outline(value: Mapping[str, JSON]) -> str:
    """'container.shm: 16GiB' in a line for each value that is set; JSON takes three times as much of the page."""
    return "\n".join(f"{name}: {text}" for name, text in flat(value).items())


# -- section -------------------------------------------------------------------------------------------------------------


def _blocks(context: Context) -> Iterator[Block]:
    deployments = provenance(context.analysis, context.samples)
    yield Custom("provenance.html.j2", {"deployments": deployments, "several_models": len(context.models) > 1})


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    return {"launches": [_launch_data(launch) for launch in analysis.launches.values()]}


def _launch_data(launch: LaunchRecord) -> JSON:
    startup = launch.startup
    return {
        "engine": launch.deployment.engine, "model": launch.deployment.model, "id": launch.id, "repeat": launch.repeat,
        "started_at": launch.started_at, "variant": launch.variant, "version": launch.version, "start_s": startup.start_s,
        "stop_s": startup.stop_s, "identity": startup.identity, "notes": list(startup.notes),
        "differences": plain(launch.configuration.differences), "ended": launch.ended,
    }  # fmt: skip


SECTION = Section("provenance", "Provenance: every server start", _blocks, label="Provenance", data=_data)
