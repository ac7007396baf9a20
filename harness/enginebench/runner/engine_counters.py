"""Reads the engine's own counters before, during and after a load.

While it runs, another process fetches the replies once a second (`enginebench.runtime.scraper`); the adapter parses them afterwards.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from enginebench.adapter import GAUGES, TOTALS, Adapter, Get, Reply
from enginebench.domain import JSON
from enginebench.records.counters import CounterSeries
from enginebench.runner.engine import Engine
from enginebench.runner.http_engine import HttpEngine
from enginebench.runner.sidecar import Sidecar
from enginebench.runtime import scraper

EVERY_S = 1.0


@dataclass(frozen=True)
class Reading:
    """The replies of one round of requests."""

    at_ns: int
    """When the last reply was complete."""
    replies: Mapping[str, tuple[int, bytes]]
    """Path -> status and compressed body."""

    def get(self, path: str) -> Reply:
        """The stored reply; status 0 for a path that was not fetched."""
        status, body = self.replies.get(path, (0, b""))
        return Reply(status, zlib.decompress(body) if body else b"")


class CounterWatch:
    """Counters around and during one load: `with CounterWatch(engine, adapter) as watch: engine.run(...)`.
    For an engine without counters or without HTTP no process is started, and the series is empty."""

    def __init__(self, engine: Engine, adapter: Adapter, every_s: float = EVERY_S) -> None:
        self._engine, self._adapter, self._every_s = engine, adapter, every_s
        self._before: Mapping[str, float] = {}
        self._paths: tuple[str, ...] = ()
        self._sidecar: Sidecar | None = None
        self._readings: Sequence[Reading] = ()
        self._cpu_s = 0.0

    def __enter__(self) -> Self:
        if not isinstance(self._engine, HttpEngine):
            self._before = self._engine.counters()
            return self
        paths: dict[str, None] = {}
        self._before = self._adapter.counters(_recording(self._engine.get, paths))
        self._paths = tuple(paths)
        if self._before and self._paths:
            self._start(self._engine)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._sidecar is None:
            return
        try:
            if kind is None:
                self._collect(self._sidecar.collect())
        finally:
            self._sidecar.end()

    def totals(self) -> Mapping[str, float]:
        """The increase of the engine's totals since before the load."""
        after = self._engine.counters()
        return {name: after[name] - self._before[name] for name in TOTALS if name in after and name in self._before}

    def series(self) -> CounterSeries:
        """The counters during the load."""
        readings = [(reading.at_ns, _counters(self._adapter, reading)) for reading in self._readings]
        readings = [(at, values) for at, values in readings if values]
        names = [name for name in (*TOTALS, *GAUGES) if any(name in values for _, values in readings)]
        series = {name: tuple(values.get(name) for _, values in readings) for name in names}
        return CounterSeries(tuple(at for at, _ in readings), series, self._cpu_s)

    def _start(self, engine: HttpEngine) -> None:
        """Start the process and wait for its first reading, so that its start-up does not disturb the load."""
        target = engine.target
        config: dict[str, JSON] = {
            "host": target.host, "port": target.port, "tls": target.tls, "headers": dict(target.headers),
            "prefix": engine.prefix, "paths": list(self._paths), "every_s": self._every_s,
        }  # fmt: skip
        self._sidecar = Sidecar(("-I", "-S", scraper.__file__))
        self._sidecar.configure(config)
        self._sidecar.begin()

    def _collect(self, output: bytes) -> None:
        head, _, bodies = output.partition(b"\n")
        if not head:
            return
        index = json.loads(head)
        self._cpu_s = float(index["cpu_s"])
        self._readings = list(_readings(index["readings"], bodies, self._paths))


def _recording(get: Get, paths: dict[str, None]) -> Get:
    """The same `Get`, which adds every requested path to `paths`."""

    def recording(path: str) -> Reply:
        paths[path] = None
        return get(path)

    return recording


def _readings(index: Sequence[tuple[int, Sequence[tuple[int, int]]]], bodies: bytes, paths: Sequence[str]) -> Iterator[Reading]:
    at = 0
    for at_ns, answers in index:
        replies: dict[str, tuple[int, bytes]] = {}
        for path, (status, length) in zip(paths, answers, strict=True):
            replies[path] = status, bodies[at : at + length]
            at += length
        yield Reading(at_ns, replies)


def _counters(adapter: Adapter, reading: Reading) -> Mapping[str, float]:
    """One reading under neutral names; empty if the replies cannot be parsed."""
    try:
        found = adapter.counters(reading.get)
    except Exception:  # noqa: BLE001  # a malformed reply under load must not cost a cell that was measured
        return {}
    return {name: float(value) for name, value in found.items() if (name in TOTALS or name in GAUGES) and math.isfinite(value)}
