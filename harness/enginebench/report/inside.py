"""What happened inside the engines while a load ran: throughput, requests in the batch and in the queue, and the KV cache, over time.

One load at a time, one trace per deployment, of the first repeat that counts. Knows no page, and no engine's own names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enginebench.analysis import Analysis, CellResult, Row
from enginebench.counters import CounterSeries
from enginebench.nouns import JSON
from enginebench.report.distributions import Reading
from enginebench.report.plots import Panel, PlotSection, panel_groups
from enginebench.report.traces import Trace, axis, over_time

_FEWEST = 3
"""Readings that make a curve."""
_MOST = 200
"""Points of one curve."""

_GAUGES = (
    ("requests in the batch; dotted: in the queue", "requests", (("running", "solid"), ("waiting", "dot"))),
    ("KV cache in use", "share of the KV cache", (("kv_use", "solid"),)),
)
"""Title, axis and curves of each panel beside the throughput."""


def inside(analysis: Analysis, reading: Reading, slots: Mapping[str, int]) -> PlotSection:
    """The section; it has no panels where no engine has counters, or no load lasted for a few readings. slots: name -> colour."""
    panels: list[Panel] = []
    for title, rows in panel_groups(analysis):
        for load in sorted({row.load for row in rows}, key=lambda load: load.level):
            told = [(row, cell) for row in rows if row.load == load and (cell := _speaks(row)) is not None]
            for what, of, traces in _curves(told, reading, slots):
                layout: dict[str, JSON] = {"xaxis": axis("s since the first request"), "yaxis": axis(of, rangemode="tozero")}
                panels.append(Panel(f"{title} · {load.level_text} · {what}", traces, layout, load))
    caption = "Read from the engine's own counters once a second by a process of its own. The first repeat that counts of each deployment."
    return PlotSection("inside", "Inside", "Inside the engines, over time", caption, tuple(panels))


def _speaks(row: Row) -> CellResult | None:
    """The first repeat with a series; one that is invalid only where all are."""
    told = [cell for cell in row.cells if cell.record.window_ns and len(_series(cell).at_ns) >= _FEWEST]
    return next((cell for cell in told if cell.verdict != "invalid"), told[0] if told else None)


def _series(cell: CellResult) -> CounterSeries:
    """Its readings from the first request to the last answer."""
    return cell.record.series.within(cell.record.window_ns or (0, 0))


def _curves(told: Sequence[tuple[Row, CellResult]], reading: Reading, slots: Mapping[str, int]) -> list[tuple[str, str, tuple[Trace, ...]]]:
    """Panels of one load: title, axis, traces."""
    paces = [(row, pace) for row, cell in told if (pace := reading.paces.get(cell.record.id))]
    made = [("output tok/s", "tok/s", tuple(over_time(row, pace.at_s, pace.tokens_per_s, slots[row.name]) for row, pace in paces))]
    for what, of, names in _GAUGES:
        traces = tuple(
            over_time(row, *_thinned(cell, name), slots[row.name], dash=dash)
            for row, cell in told
            for name, dash in names
            if _series(cell).known(name)
        )
        made.append((what, of, traces))
    return [(what, of, traces) for what, of, traces in made if traces]


def _thinned(cell: CellResult, name: str) -> tuple[list[float], list[float | None]]:
    """Seconds since the first request, and what the engine said then; every so many readings where there are too many."""
    series, (start, _) = _series(cell), cell.record.window_ns or (0, 0)
    step = max(1, -(-len(series.at_ns) // _MOST))
    return [(at - start) / 1e9 for at in series.at_ns[::step]], list(series.values[name][::step])
