"""A cell's telemetry as curves over its load: its GPUs together, and the processors that the engine kept busy. Pure; knows no page."""

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
    """'utilisation' (mean of the cell's GPUs), 'watts' (all of them), 'memory_gib' (all of them), 'cores' (the engine's): those known.

    Each series has the one value under its own name. 'cores' is what the processor time rose by since the reading before / the time.
    """
    gpus = used_gpus(record)
    engine = [subject for subject in record.telemetry if subject.kind in ("processes", "container")]
    found = {
        "utilisation": _together(gpus, "utilisation", lambda values: sum(values) / len(values)),
        "watts": _together(gpus, "watts", sum),
        "memory_gib": _together(gpus, "memory_bytes", lambda values: sum(values) / GIB),
        "cores": _slope(_together(engine, "cpu_s", sum)),
    }
    return {
        name: CounterSeries(tuple(at for at, _ in points), {name: tuple(value for _, value in points)})
        for name, points in found.items()
        if any(value is not None for _, value in points)
    }


Points = list[tuple[int, float | None]]


def _together(subjects: Sequence[Subject], name: str, fold: Callable[[list[float]], float]) -> Points:
    """One value of all subjects at each reading; None where one of them did not say. They are read one after another, in milliseconds."""
    if not subjects:
        return []
    empty: Iterable[None] = itertools.repeat(None)
    columns = zip(*(subject.series.values.get(name, empty) for subject in subjects), strict=False)
    whole = ([value for value in row if value is not None] for row in columns)
    return [(at, fold(row) if len(row) == len(subjects) else None) for at, row in zip(subjects[0].series.at_ns, whole, strict=False)]


def _slope(points: Points) -> Points:
    """Rise per second since the reading before; None where one of the two is not known, or a total fell."""
    out: Points = []
    for (before, low), (at, high) in itertools.pairwise(points):
        rise = high - low if low is not None and high is not None else -1.0
        out.append((at, rise * 1e9 / (at - before) if rise >= 0 and at > before else None))
    return out
