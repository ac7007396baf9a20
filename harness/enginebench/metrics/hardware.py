"""Telemetry of the machine over a cell's window: power, memory, throttling, other users of the GPUs, CPU time.

Pure arithmetic over `enginebench.records.subject.Subject`. It reads no device, and judges nothing (`enginebench.validity` does).
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enginebench.records.counters import CounterSeries
from enginebench.records.subject import Subject
from enginebench.records.throttle import Throttle

if TYPE_CHECKING:
    from enginebench.records.cell import CellRecord
    from enginebench.records.window import Window

COVERED = 0.5
"""Share of the window that readings must cover for a mean over it."""


@dataclass(frozen=True)
class Hardware:
    """The machine over the window; None: unknown."""

    devices: tuple[str, ...] = ()
    """The GPUs that the cell ran on."""
    watts: float | None = None
    """Mean power of these GPUs together."""
    peak_memory_bytes: float | None = None
    """Of the fullest of these GPUs."""
    utilisation: float | None = None
    """Mean over these GPUs."""
    throttled: Mapping[str, float] = field(default_factory=dict)
    """Reason -> share of the readings, on the GPU where it is largest."""
    capped: tuple[str, ...] = ()
    """GPUs whose power limit is below their default."""
    shared: tuple[str, ...] = ()
    """GPUs that other processes used."""
    cores: float | None = None
    """CPU seconds of the engine per second."""
    quota: Mapping[str, float] = field(default_factory=dict)
    """Container -> share of its scheduler periods in which it was throttled."""
    steal: float | None = None
    """Share of all cores' time that the hypervisor took."""
    busy: float | None = None
    """Share of all cores' time that was used, by whomever."""
    foreign: float | None = None
    """Share of all cores' time that neither the engine nor bench used: (busy - engine - bench) / capacity."""
    iowait: float | None = None
    """CPUs that were idle because a disk was waited for, on average."""
    disk_reads: float | None = None
    """Bytes per second that the engine read from disks."""
    clock_step_s: float | None = None
    """The most that the wall clock moved against the monotonic one from one reading to the next."""
    overheated: float | None = None
    """How often a core lowered its clock because of heat."""


def hardware_of(record: CellRecord, window: Window) -> Hardware:
    """The telemetry of a cell; all unknown for cells without telemetry."""
    span = window.start_ns, window.end_ns
    gpus = used_gpus(record)
    engine = [subject for subject in record.telemetry if subject.kind in ("processes", "container")]
    within = [gpu.series.within(span) for gpu in gpus]
    quotas = {subject.name: _share(subject.series, "throttled_periods", "periods", span) for subject in engine}
    host = next((subject.series for subject in record.telemetry if subject.kind == "host"), CounterSeries())
    cores = _sum([_rate(subject.series, "cpu_s", span) for subject in engine])
    return Hardware(
        devices=tuple(gpu.name for gpu in gpus),
        watts=mean_watts(record, window),
        peak_memory_bytes=max((value for series in within for value in series.known("memory_bytes")), default=None),
        utilisation=busy / len(gpus) if (busy := _sum([_mean(gpu.series, "utilisation", span) for gpu in gpus])) is not None else None,
        throttled=_throttled(within),
        capped=tuple(gpu.name for gpu in gpus if _capped(gpu)),
        shared=tuple(gpu.name for gpu, series in zip(gpus, within, strict=True) if _shared(series)),
        cores=cores,
        quota={name: share for name, share in quotas.items() if share is not None},
        steal=_share(host, "steal_s", "capacity_s", span),
        overheated=_rise(host, "thermal_throttles", span),
        busy=_share(host, "busy_s", "capacity_s", span),
        foreign=_foreign(record, host, cores, span),
        iowait=_rate(host, "iowait_s", span),
        disk_reads=_sum([_rate(subject.series, "read_bytes", span) for subject in engine]),
        clock_step_s=max((abs(after - before) for before, after in itertools.pairwise(host.known("clock_s"))), default=None),
    )


def client_hardware(telemetry: Sequence[Subject], window: Window) -> Hardware:
    """The machine of a client on another host, where there is no engine."""
    span = window.start_ns, window.end_ns
    host = next((subject.series for subject in telemetry if subject.kind == "host"), CounterSeries())
    busy, capacity, bench = (_rate(host, name, span) for name in ("busy_s", "capacity_s", "bench_s"))
    return Hardware(
        steal=_share(host, "steal_s", "capacity_s", span),
        busy=_share(host, "busy_s", "capacity_s", span),
        foreign=max(0.0, busy - bench) / capacity if busy is not None and bench is not None and capacity else None,
        overheated=_rise(host, "thermal_throttles", span),
    )


def engine_is_traced(record: CellRecord) -> bool:
    """Whether telemetry saw all of the engine's CPU time on this machine. A proxy that was attached to is not the engine."""
    engine = [subject for subject in record.telemetry if subject.kind in ("processes", "container")]
    return bool(engine) and not any(each.facts.get("forwards") or each.facts.get("visible") is False for each in engine)


def _foreign(record: CellRecord, host: CounterSeries, cores: float | None, span: tuple[int, int]) -> float | None:
    """None where the engine's part is unknown. Runs from before `bench_s` was stored know only the load generator's part of bench."""
    busy, capacity, bench = (_rate(host, name, span) for name in ("busy_s", "capacity_s", "bench_s"))
    if bench is None:
        start, end = record.delivery.window_ns or span
        client = record.client.health.get("cpu_s")
        bench = client / max(1e-9, (end - start) / 1e9) if isinstance(client, int | float) else None
    if busy is None or not capacity or bench is None or cores is None or not engine_is_traced(record):
        return None
    return max(0.0, busy - cores - bench) / capacity


def mean_watts(record: CellRecord, window: Window) -> float | None:
    """Mean power in W over the window, of all GPUs of the cell together; None where it is unknown.

    From a GPU's energy counter: (energy at the end - energy at the start) / length, interpolated between the readings around each edge. For
    a GPU without one: the mean of its power readings over time.
    """
    span = window.start_ns, window.end_ns
    rates = [_rate(gpu.series, "energy_j", span) for gpu in used_gpus(record)]
    means = [_mean(gpu.series, "watts", span) for gpu in used_gpus(record)]
    return _sum([mean if rate is None else rate for rate, mean in zip(rates, means, strict=True)])


def used_gpus(record: CellRecord) -> tuple[Subject, ...]:
    """The GPUs that the cell ran on: those with a compute process of the engine while the load ran.

    If the engine's processes were found on none (another process namespace): all GPUs, if the deployment uses that many and each was busy.
    Otherwise none, because their power may be that of other processes.
    """
    gpus = tuple(subject for subject in record.telemetry if subject.kind == "gpu")
    ours = tuple(gpu for gpu in gpus if any(gpu.series.known("ours")))
    if ours:
        return ours
    return gpus if record.traits.gpus == len(gpus) and all(any(gpu.series.known("utilisation")) for gpu in gpus) else ()


def _throttled(devices: Sequence[CounterSeries]) -> dict[str, float]:
    """Reason -> share of the readings, on the GPU where it is largest."""
    out: dict[str, float] = {}
    for reason in Throttle:
        masks = [series.known("throttle") for series in devices]
        shares = [sum(bool(int(mask) & reason) for mask in known) / len(known) for known in masks if known]
        if any(shares):
            out[reason.words] = max(shares)
    return out


def _capped(gpu: Subject) -> bool:
    limit, default = (gpu.facts.get(name) for name in ("limit_watts", "default_limit_watts"))
    return isinstance(limit, int | float) and isinstance(default, int | float) and limit < default


def _shared(series: CounterSeries) -> bool:
    """Processes that cannot be looked up count as other users only if the engine's own can be looked up."""
    unknown = series.known("unseen") if any(series.known("ours")) else []
    return any(series.known("others")) or any(unknown)


# -- over time -----------------------------------------------------------------------------------------------------------


def _points(series: CounterSeries, name: str) -> list[tuple[int, float]]:
    return [(at, value) for at, value in zip(series.at_ns, series.values.get(name, ()), strict=False) if value is not None]


def _change(points: Sequence[tuple[int, float]], span: tuple[int, int]) -> tuple[float, float] | None:
    """(rise of a total, length in s) of the part of the span that its readings cover; None if they cover too little."""
    if len(points) < 2:
        return None
    start, end = max(span[0], points[0][0]), min(span[1], points[-1][0])
    if end <= start or end - start < COVERED * (span[1] - span[0]):
        return None
    return _at(points, end) - _at(points, start), (end - start) / 1e9


def _at(points: Sequence[tuple[int, float]], when: int) -> float:
    """A total at a time between two readings, by linear interpolation."""
    i = min(max(1, bisect_right(points, when, key=lambda point: point[0])), len(points) - 1)
    (t0, v0), (t1, v1) = points[i - 1], points[i]
    return v0 + (v1 - v0) * (when - t0) / (t1 - t0)


def _rise(series: CounterSeries, name: str, span: tuple[int, int]) -> float | None:
    """The rise of a total; None also where it fell, for example because a driver was reloaded."""
    change = _change(_points(series, name), span)
    return change[0] if change is not None and change[0] >= 0 else None


def _rate(series: CounterSeries, name: str, span: tuple[int, int]) -> float | None:
    change = _change(_points(series, name), span)
    return change[0] / change[1] if change is not None and change[0] >= 0 else None


def _mean(series: CounterSeries, name: str, span: tuple[int, int]) -> float | None:
    """Mean of a gauge over time: its integral by the trapezoidal rule / length."""
    points = _points(series, name)
    areas = [(v0 + v1) / 2 * (t1 - t0) / 1e9 for (t0, v0), (t1, v1) in itertools.pairwise(points)]
    change = _change(list(zip((at for at, _ in points), itertools.accumulate(areas, initial=0.0), strict=False)), span)
    return change[0] / change[1] if change is not None else None


def _share(series: CounterSeries, part: str, whole: str, span: tuple[int, int]) -> float | None:
    of, all_of_it = _rise(series, part, span), _rise(series, whole, span)
    return of / all_of_it if of is not None and all_of_it else None


def _sum(values: Sequence[float | None]) -> float | None:
    """None if there are no values or one is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
