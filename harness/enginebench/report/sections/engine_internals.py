"""What happened inside the engines and the machine while a load ran: throughput, batch, queue, KV cache, GPUs and processors, over time.

One load at a time, one trace per deployment, of the first repeat that counts. Knows no page, and no engine's own names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.domain import JSON
from enginebench.records.counters import CounterSeries
from enginebench.report.plotly_traces import Trace, axis, over_time
from enginebench.report.plots import Panel, PlotSection, panel_groups
from enginebench.report.sample_summary import Reading
from enginebench.report.telemetry_curves import curves

_FEWEST = 3
"""Readings that make a curve."""
_MOST = 200
"""Points of one curve."""

_GAUGES = (
    ("requests in the batch; dotted: in the queue", "requests", (("running", "solid"), ("waiting", "dot"))),
    ("KV cache in use", "share of the KV cache", (("kv_use", "solid"),)),
)
"""Title, axis and curves of each panel beside the throughput, from what the engine says."""

_MACHINE = (
    ("GPU utilisation", "share of time", "utilisation"),
    ("GPU power", "W, all GPUs of the deployment", "watts"),
    ("GPU memory in use", "GiB, all GPUs of the deployment", "memory_gib"),
    ("processors that the engine keeps busy", "cores", "cores"),
)
"""Title, axis and curve of each panel from the machine's telemetry."""


def inside(analysis: Analysis, reading: Reading, slots: Mapping[str, int]) -> PlotSection:
    """The section; it has no panels where no load lasted for a few readings. slots: name -> colour."""
    panels: list[Panel] = []
    for title, rows in panel_groups(analysis):
        for load in sorted({row.load for row in rows}, key=lambda load: load.level):
            told = [(row, cell) for row in rows if row.load == load and (cell := _speaks(row)) is not None]
            for what, of, traces in _curves(told, reading, slots):
                layout: dict[str, JSON] = {"xaxis": axis("s since the first request"), "yaxis": axis(of, rangemode="tozero")}
                panels.append(Panel(f"{title} · {load.level_text} · {what}", traces, layout, load))
    caption = (
        "Read once a second, by processes of their own, from the engine's counters and from the machine. "
        "The first repeat that counts of each deployment."
    )
    return PlotSection("inside", "Inside", "Inside the engines, over time", caption, tuple(panels))


def _speaks(row: Row) -> CellResult | None:
    """The first repeat with a series; one that is invalid only where all are."""
    told = [
        cell for cell in row.cells if cell.record.delivery.window_ns and any(len(found.at_ns) >= _FEWEST for found in _all_series(cell))
    ]
    return next((cell for cell in told if cell.verdict != "invalid"), told[0] if told else None)


def _all_series(cell: CellResult) -> Iterator[CounterSeries]:
    yield _loaded(cell, cell.record.counters.series)
    yield from (_loaded(cell, series) for series in curves(cell.record).values())


def _loaded(cell: CellResult, series: CounterSeries) -> CounterSeries:
    """The readings from the first request to the last answer."""
    return series.within(cell.record.delivery.window_ns or (0, 0))


def _curves(told: Sequence[tuple[Row, CellResult]], reading: Reading, slots: Mapping[str, int]) -> list[tuple[str, str, tuple[Trace, ...]]]:
    """Panels of one load: title, axis, traces."""
    paces = [(row, pace) for row, cell in told if (pace := reading.paces.get(cell.record.id))]
    made = [("output tok/s", "tok/s", tuple(over_time(row, pace.at_s, pace.tokens_per_s, slots[row.name]) for row, pace in paces))]
    for what, of, names in _GAUGES:
        traces = tuple(
            over_time(row, *_thinned(cell, series, name), slots[row.name], dash=dash)
            for row, cell in told
            for name, dash in names
            if (series := _loaded(cell, cell.record.counters.series)).known(name)
        )
        made.append((what, of, traces))
    machine = [(row, cell, curves(cell.record)) for row, cell in told]
    for what, of, name in _MACHINE:
        traces = tuple(
            over_time(row, *_thinned(cell, series, name), slots[row.name])
            for row, cell, found in machine
            if name in found and (series := _loaded(cell, found[name])).known(name)
        )
        made.append((what, of, traces))
    return [(what, of, traces) for what, of, traces in made if traces]


def _thinned(cell: CellResult, series: CounterSeries, name: str) -> tuple[list[float], list[float | None]]:
    """Seconds since the first request, and the value then; every so many readings where there are too many."""
    start, _ = cell.record.delivery.window_ns or (0, 0)
    step = max(1, -(-len(series.at_ns) // _MOST))
    return [(at - start) / 1e9 for at in series.at_ns[::step]], list(series.values[name][::step])
