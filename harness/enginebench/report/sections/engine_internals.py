"""The section that plots what happened in the engines and the machine while a load ran: throughput, batch, queue, KV cache, GPUs, CPU.

One load at a time, one trace per deployment, from its first valid repeat. Counters have neutral names; no engine is known here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from enginebench.analysis.analysis import CellResult, Row
from enginebench.domain import JSON
from enginebench.domain.formatting import counted
from enginebench.metrics.hardware import used_gpus
from enginebench.records.cell import CellRecord
from enginebench.records.counters import CounterSeries
from enginebench.records.subject import Subject
from enginebench.report.blocks import Block, Panel, Plots
from enginebench.report.plotly_traces import Trace, axis, over_time, panel_groups
from enginebench.report.section import Context, Section, time_series

_FEWEST = 3
_MOST = 60

_GAUGES = (
    ("requests in the batch; dotted: in the queue", "requests", (("running", "solid"), ("waiting", "dot"))),
    ("KV cache in use", "share of the KV cache", (("kv_use", "solid"),)),
)
"""Title, axis and curves of each panel from the engine's gauges."""

_MACHINE = (
    ("GPU utilisation", "share of time", "utilisation"),
    ("GPU power", "W, all GPUs of the deployment", "watts"),
    ("GPU memory in use", "GiB, all GPUs of the deployment", "memory_gib"),
    ("CPU cores in use by the engine", "cores", "cores"),
)
"""Title, axis and curve of each panel from the machine's telemetry."""

_CAPTION = (
    "Read once a second by separate processes, from the engine's counters and from the machine. The first valid repeat of each deployment."
)


def _blocks(context: Context) -> Iterator[Block]:
    if panels := tuple(_panels(context)):
        yield Plots(_CAPTION, panels, tuple(context.slots))


def _panels(context: Context) -> Iterator[Panel]:
    for title, rows in panel_groups(context.analysis):
        for load in sorted({row.load for row in rows}, key=lambda load: load.level):
            chosen = [(row, cell) for row in rows if row.load == load and (cell := _chosen(row)) is not None]
            for what, unit, traces in _curves(chosen, context):
                layout: dict[str, JSON] = {"xaxis": axis("s since the first request"), "yaxis": axis(unit, rangemode="tozero")}
                yield Panel(f"{title} · {load.level_text} · {what}", traces, layout, load)


def _chosen(row: Row) -> CellResult | None:
    """The first repeat with a time series that is not invalid; the first with a series if all are invalid."""
    cells = [
        cell for cell in row.cells if cell.record.delivery.window_ns and any(len(found.at_ns) >= _FEWEST for found in _all_series(cell))
    ]
    return next((cell for cell in cells if cell.verdict != "invalid"), cells[0] if cells else None)


def _all_series(cell: CellResult) -> Iterator[CounterSeries]:
    yield _under_load(cell, cell.record.counters.series)
    yield from (_under_load(cell, series) for series in curves(cell.record).values())


def _under_load(cell: CellResult, series: CounterSeries) -> CounterSeries:
    """The readings from the first request to the last reply."""
    return series.within(cell.record.delivery.window_ns or (0, 0))


def _curves(chosen: Sequence[tuple[Row, CellResult]], context: Context) -> list[tuple[str, str, tuple[Trace, ...]]]:
    slots = context.slots
    paces = [(row, pace) for row, cell in chosen if (pace := context.samples.paces.get(cell.record.id))]
    made = [("output tok/s", "tok/s", tuple(over_time(row, pace.at_s, pace.tokens_per_s, slots[row.name]) for row, pace in paces))]
    for what, unit, names in _GAUGES:
        traces = tuple(
            over_time(row, *_thinned(cell, series, name), slots[row.name], dash=dash)
            for row, cell in chosen
            for name, dash in names
            if (series := _under_load(cell, cell.record.counters.series)).known(name)
        )
        made.append((what, unit, traces))
    machine = [(row, cell, curves(cell.record)) for row, cell in chosen]
    for what, unit, name in _MACHINE:
        traces = tuple(
            over_time(row, *_thinned(cell, series, name), slots[row.name])
            for row, cell, found in machine
            if name in found and (series := _under_load(cell, found[name])).known(name)
        )
        made.append((what, unit, traces))
    return [(what, unit, traces) for what, unit, traces in made if traces]


def _thinned(cell: CellResult, series: CounterSeries, name: str) -> tuple[list[float], list[float | None]]:
    """Seconds since the first request, and the value at that time; every n-th reading if there are too many."""
    start, _ = cell.record.delivery.window_ns or (0, 0)
    step = max(1, -(-len(series.at_ns) // _MOST))
    return [(at - start) / 1e9 for at in series.at_ns[::step]], list(series.values[name][::step])


# -- telemetry ------------------------------------------------------------------------------------------------------------------


def curves(record: CellRecord) -> Mapping[str, CounterSeries]:
    """The known ones of 'utilisation' (mean of the cell's GPUs), 'watts', 'memory_gib' (sums over its GPUs) and 'cores' (the engine's).

    Each series holds one value, under its own name. 'cores' is the rise of the CPU time since the previous reading / the time between.
    """
    gpus = used_gpus(record)
    engine = [subject for subject in record.telemetry if subject.kind in ("processes", "container")]
    found = {
        "utilisation": _combined(gpus, "utilisation", lambda values: sum(values) / len(values)),
        "watts": _combined(gpus, "watts", sum),
        "memory_gib": _combined(gpus, "memory_bytes", lambda values: sum(values) / 2**30),
        "cores": _slope(_combined(engine, "cpu_s", sum)),
    }
    return {
        name: CounterSeries(tuple(at for at, _ in points), {name: tuple(value for _, value in points)})
        for name, points in found.items()
        if any(value is not None for _, value in points)
    }


Points = list[tuple[int, float | None]]


def _combined(subjects: Sequence[Subject], name: str, fold: Callable[[list[float]], float]) -> Points:
    """One value of all subjects per reading; None if one of them did not report it. They are read within milliseconds of each other."""
    if not subjects:
        return []
    empty: Iterable[None] = itertools.repeat(None)
    columns = zip(*(subject.series.values.get(name, empty) for subject in subjects), strict=False)
    whole = ([value for value in row if value is not None] for row in columns)
    return [(at, fold(row) if len(row) == len(subjects) else None) for at, row in zip(subjects[0].series.at_ns, whole, strict=False)]


def _slope(points: Points) -> Points:
    """Rise per second since the previous reading; None if one of the two is unknown or a total fell."""
    out: Points = []
    for (before, low), (at, high) in itertools.pairwise(points):
        rise = high - low if low is not None and high is not None else -1.0
        out.append((at, rise * 1e9 / (at - before) if rise >= 0 and at > before else None))
    return out


def _finding(context: Context) -> str:
    """In how many cells with such a gauge requests waited inside the engine."""
    gauges = [
        gauge for row in context.analysis.rows for cell in row.cells if cell.ran and (gauge := cell.gauges.get("waiting")) is not None
    ]
    waited = sum(gauge.mean >= _WAITS for gauge in gauges)
    if not gauges:
        return ""
    return (
        f"Requests waited inside the engine in {waited} of {counted(len(gauges), 'cell')}"
        if waited
        else "No requests waited inside the engines"
    )


_WAITS = 0.5
"""Mean of waiting requests from which a queue is said to be there."""
SECTION = Section(
    "engine-internals", "Inside the engines, over time", _blocks, label="Engine internals", needs=(time_series,), folded=True,
    finding=_finding,
)  # fmt: skip
