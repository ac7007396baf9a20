"""Reads GPUs, this machine and the engine about once per second, in its own process so that the client is not disturbed.

A program: `python -m enginebench.telemetry.sampler`; `loop` says how it is told what to do. Device libraries are imported before the
configuration is read, because a load waits for everything after it.

Configuration: gpus: whether to read this machine's GPUs; processes: name -> pid whose descendants are the engine; containers: name -> id;
attached: port of an attached server of this machine. Output: one line of JSON, a list of `enginebench.records.subject.Subject`.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from enginebench.telemetry.amd import AmdGpu, amd_gpus
from enginebench.telemetry.engines import Attached, Container, Processes
from enginebench.telemetry.loop import Readings, serve
from enginebench.telemetry.machine import ThisMachine
from enginebench.telemetry.nvidia import NvidiaGpu, nvidia_gpus
from enginebench.telemetry.source import Values, try_read

Source: TypeAlias = Processes | Container | NvidiaGpu | AmdGpu | ThisMachine
"""One subject that can be read. Each has a kind, a name and facts; its `read` does not raise."""


class Track:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.readings: list[tuple[int, Values]] = []
        self.cpu_s = 0.0

    def read(self) -> None:
        """Add a reading. Its time is the middle between query and reply."""
        began, cpu = time.monotonic_ns(), time.process_time()
        values = self.source.read()
        self.readings.append(((began + time.monotonic_ns()) // 2, values))
        self.cpu_s += time.process_time() - cpu

    def subject(self) -> dict[str, Any]:
        """The readings as JSON. Values that the source never provided are left out."""
        names = dict.fromkeys(name for _, values in self.readings for name, value in values.items() if value is not None)
        values = {name: [_rounded(values.get(name)) for _, values in self.readings] for name in names}
        series = {"at_ns": [at for at, _ in self.readings], "values": values, "cpu_s": round(self.cpu_s, 4)}
        return {"kind": self.source.kind, "name": self.source.name, "facts": dict(self.source.facts), "series": series}


def _rounded(value: float | None) -> float | None:
    """To six decimals, which keeps the record small."""
    return value if value is None or isinstance(value, int) else round(value, 6)


def sources(config: Mapping[str, Any]) -> Iterator[Source]:
    """The configured sources. The engine comes first, so that a GPU's processes are compared with the engine's of the same reading."""
    engines: list[Processes | Container] = [Processes(name, pid) for name, pid in config["processes"].items()]
    engines += [Attached("engine", config["attached"])] if config.get("attached") else []
    if config["containers"]:
        client = _daemon()
        engines += [Container(name, ident, client) for name, ident in config["containers"].items()] if client else []
    yield from engines
    if config["gpus"]:

        def engine_pids() -> frozenset[int]:
            return frozenset().union(*(engine.pids for engine in engines))

        yield from nvidia_gpus(engine_pids)
        yield from amd_gpus(engine_pids)
    yield ThisMachine(bench=os.getppid())


def _daemon() -> Any:
    from enginebench.runtime.container.client import connect
    from enginebench.runtime.exit_status import LaunchFailed

    return try_read(lambda: connect(timeout_s=2.0), LaunchFailed)


class Tracks(Readings):
    """The readings of several sources, side by side."""

    most = 600

    def __init__(self, tracks: Sequence[Track]) -> None:
        self.tracks = tracks

    def read(self) -> None:
        for track in self.tracks:
            track.read()

    def begun(self) -> None:
        for track in self.tracks:
            track.cpu_s = 0.0

    def thin(self) -> None:
        for track in self.tracks:
            track.readings = track.readings[::2]

    def output(self) -> bytes:
        self.read()  # once more, so that the last part of the load is in it
        return json.dumps([track.subject() for track in self.tracks]).encode() + b"\n"


if __name__ == "__main__":
    serve(lambda config: Tracks([Track(source) for source in sources(config)]))
