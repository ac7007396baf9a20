"""Reads the engine's own counters before, during and after a load.

While it runs, another process fetches the replies once a second (`enginebench.telemetry.scraper`); the adapter parses them afterwards.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Self

from enginebench.adapter import GAUGES, TOTALS, Adapter, Get, Reply
from enginebench.dialects.engine_state import COUNTED
from enginebench.domain import JSON
from enginebench.records.counters import CounterSeries
from enginebench.runner.engine import Engine
from enginebench.runner.http_engine import HttpEngine
from enginebench.runner.sidecar import Sidecar
from enginebench.telemetry import scraper

EVERY_S = 1.0


class CounterWatch:
    """Counters around and during one load: `with CounterWatch(engine, adapter) as watch: engine.run(...)`.
    For an engine without counters or without HTTP no process is started, and the series is empty."""

    def __init__(self, engine: Engine, adapter: Adapter, every_s: float = EVERY_S) -> None:
        self._engine, self._adapter, self._every_s = engine, adapter, every_s
        self._before: Mapping[str, float] = {}
        self._paths: tuple[str, ...] = ()
        self._sidecar: Sidecar | None = None
        self._output = b""
        self.problem: str | None = None
        """Why counters could not be read."""

    def __enter__(self) -> Self:
        """Read once, and wait for the first reading of the other process, so that its start-up does not disturb the load."""
        engine, paths = self._engine, dict[str, None]()

        def recording(path: str) -> Reply:
            paths[path] = None
            return engine.get(path)

        self._before = self._read(recording)
        self._paths = tuple(paths)
        if isinstance(engine, HttpEngine) and self._before:
            target = engine.target
            config: dict[str, JSON] = {
                "host": target.host, "port": target.port, "tls": target.tls, "headers": dict(target.headers),
                "prefix": engine.prefix, "paths": list(self._paths), "every_s": self._every_s,
            }  # fmt: skip
            self._sidecar = Sidecar(scraper.COMMAND)
            self._sidecar.configure(config)
            self._sidecar.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._sidecar is not None:
            try:
                self._output = self._sidecar.collect() if kind is None else b""
            finally:
                self._sidecar.end()

    def totals(self) -> Mapping[str, float]:
        """The increase of the engine's totals since before the load."""
        after = self._read(self._engine.get) if self._before else {}
        # Engines name a position of speculation only once a token there was accepted.
        unnamed = {name: 0.0 for name in after if name not in TOTALS} if "accepted_tokens" in self._before else {}
        before = {**unnamed, **self._before}
        return {name: after[name] - before[name] for name in COUNTED if name in after and name in before}

    def series(self) -> CounterSeries:
        """The counters during the load."""
        head, _, bodies = self._output.partition(b"\n")
        if not head:
            return CounterSeries()
        index = json.loads(head)
        found = [(at, self._read(get)) for at, get in _readings(index["readings"], bodies, self._paths)]
        found = [(at, values) for at, values in found if values]
        names = [name for name in (*TOTALS, *GAUGES) if any(name in values for _, values in found)]
        series = {name: tuple(values.get(name) for _, values in found) for name in names}
        return CounterSeries(tuple(at for at, _ in found), series, float(index["cpu_s"]))

    def _read(self, get: Get) -> Mapping[str, float]:
        """One reading under neutral names; empty if the adapter fails, whose counters then are all that is lost."""
        try:
            found = {name: float(value) for name, value in self._adapter.counters(get).items() if name in COUNTED or name in GAUGES}
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self.problem = f"the adapter's counters() failed: {type(error).__name__}: {error}"[:300]
            return {}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def _readings(index: Sequence[tuple[int, Sequence[tuple[int, int]]]], bodies: bytes, paths: Sequence[str]) -> Iterator[tuple[int, Get]]:
    """When each round of requests was complete, and its replies; status 0 for a path that was not fetched."""
    at = 0
    for at_ns, answers in index:
        replies: dict[str, Reply] = {}
        for path, (status, length) in zip(paths, answers, strict=True):
            body = bodies[at : at + length]
            replies[path] = Reply(status, zlib.decompress(body) if body else b"")
            at += length
        yield at_ns, partial(_reply, replies)


def _reply(replies: Mapping[str, Reply], path: str) -> Reply:
    return replies.get(path, Reply(0))
