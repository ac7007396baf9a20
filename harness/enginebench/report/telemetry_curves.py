"""A cell's telemetry as curves over its load: its GPUs together, and the CPU cores that the engine used. Pure; knows no page."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from enginebench.metrics.hardware import used_gpus
from enginebench.records.counters import CounterSeries
from enginebench.records.subject import Subject

if TYPE_CHECKING:
    from enginebench.records.cell import CellRecord

GIB = 2**30


def curves(record: CellRecord) -> Mapping[str, CounterSeries]:
    """The known ones of 'utilisation' (mean of the cell's GPUs), 'watts', 'memory_gib' (sums over its GPUs) and 'cores' (the engine's).

    Each series holds one value, under its own name. 'cores' is the rise of the CPU time since the previous reading / the time between.
    """
    gpus = used_gpus(record)
    engine = [subject for subject in record.telemetry if subject.kind in ("processes", "container")]
    found = {
        "utilisation": _combined(gpus, "utilisation", lambda values: sum(values) / len(values)),
        "watts": _combined(gpus, "watts", sum),
        "memory_gib": _combined(gpus, "memory_bytes", lambda values: sum(values) / GIB),
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
