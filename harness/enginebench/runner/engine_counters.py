"""Watches the engine's own counters over a load, from a process of its own, and reads the replies when the load is over.

What is fetched is what the adapter asked for in the reading just before. Knows no counter by its spelling (the adapter does), and
not how a reply is fetched (`enginebench.runtime.scraper` does).
"""

from __future__ import annotations

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
from enginebench.runner.served import Served
from enginebench.runner.sidecar import Sidecar
from enginebench.runtime import scraper

EVERY_S = 1.0


@dataclass(frozen=True)
class Reading:
    """The replies of one moment. at_ns: when the last of them was there."""

    at_ns: int
    replies: Mapping[str, tuple[int, bytes]]

    def get(self, path: str) -> Reply:
        """The reply that was kept; to a path that was not fetched nobody answers."""
        status, body = self.replies.get(path, (0, b""))
        return Reply(status, zlib.decompress(body) if body else b"")


class Watch:
    """Counters around and during one load: `with Watch(engine, adapter) as watch: engine.run(...)`.

    An engine without counters, or one that is not behind HTTP, costs no process and has an empty series.
    """

    def __init__(self, engine: Engine, adapter: Adapter, every_s: float = EVERY_S) -> None:
        self._engine, self._adapter, self._every_s = engine, adapter, every_s
        self._before: Mapping[str, float] = {}
        self._paths: tuple[str, ...] = ()
        self._sidecar: Sidecar | None = None
        self._readings: Sequence[Reading] = ()
        self._cpu_s = 0.0

    def __enter__(self) -> Self:
        if not isinstance(self._engine, Served):
            self._before = self._engine.counters()
            return self
        asked: dict[str, None] = {}
        self._before = self._adapter.counters(_noting(self._engine.get, asked))
        self._paths = tuple(asked)
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
        """What the engine's totals rose by since before the load."""
        after = self._engine.counters()
        return {name: after[name] - self._before[name] for name in TOTALS if name in after and name in self._before}

    def series(self) -> CounterSeries:
        """The counters over the load, each reading as the adapter reads it."""
        told = [(reading.at_ns, _told(self._adapter, reading)) for reading in self._readings]
        told = [(at, values) for at, values in told if values]
        names = [name for name in (*TOTALS, *GAUGES) if any(name in values for _, values in told)]
        return CounterSeries(tuple(at for at, _ in told), {n: tuple(values.get(n) for _, values in told) for n in names}, self._cpu_s)

    def _start(self, served: Served) -> None:
        """Start the process and wait for its first reading, so that nothing of its start falls into the load."""
        target = served.target
        orders: dict[str, JSON] = {
            "host": target.host, "port": target.port, "tls": target.tls, "headers": dict(target.headers),
            "prefix": served.prefix, "paths": list(self._paths), "every_s": self._every_s,
        }  # fmt: skip
        self._sidecar = Sidecar(("-I", "-S", scraper.__file__))
        self._sidecar.order(orders)
        self._sidecar.begin()

    def _collect(self, said: bytes) -> None:
        head, _, bodies = said.partition(b"\n")
        if not head:
            return
        index = json.loads(head)
        self._cpu_s = float(index["cpu_s"])
        self._readings = list(_readings(index["readings"], bodies, self._paths))


def _noting(get: Get, asked: dict[str, None]) -> Get:
    """The same `Get`, which notes in `asked` what was asked for."""

    def noted(path: str) -> Reply:
        asked[path] = None
        return get(path)

    return noted


def _readings(index: Sequence[tuple[int, Sequence[tuple[int, int]]]], bodies: bytes, paths: Sequence[str]) -> Iterator[Reading]:
    at = 0
    for when, answers in index:
        replies: dict[str, tuple[int, bytes]] = {}
        for path, (status, length) in zip(paths, answers, strict=True):
            replies[path] = status, bodies[at : at + length]
            at += length
        yield Reading(when, replies)


def _told(adapter: Adapter, reading: Reading) -> Mapping[str, float]:
    """One reading under neutral names; empty where the reply cannot be read."""
    try:
        told = adapter.counters(reading.get)
    except Exception:  # noqa: BLE001  # an odd reply under load must not cost the cell that was measured
        return {}
    return {name: float(value) for name, value in told.items() if (name in TOTALS or name in GAUGES) and math.isfinite(value)}
