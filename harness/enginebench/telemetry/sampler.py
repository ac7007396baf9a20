"""Reads GPUs, this machine and the engine about once per second, in its own process so that the client is not disturbed.

A program: `python -m enginebench.telemetry.sampler`. Device libraries are imported before the configuration is read, because a load waits
for everything after it.

stdin: one line of JSON, then an empty line, which starts the readings. End of file leads to a last reading and ends the program. The JSON:
every_s; gpus: whether to read this machine's GPUs; processes: name -> pid whose descendants are the engine; containers: name -> id;
attached: port of an attached server of this machine.
stdout: `ready` after the first reading; at the end one line of JSON, a list of `enginebench.records.subject.Subject`.
"""

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from enginebench.telemetry.amd import AmdGpu, amd_gpus
from enginebench.telemetry.engines import Attached, Container, Processes
from enginebench.telemetry.machine import ThisMachine
from enginebench.telemetry.nvidia import NvidiaGpu, nvidia_gpus
from enginebench.telemetry.source import Values, try_read

Source: TypeAlias = Processes | Container | NvidiaGpu | AmdGpu | ThisMachine
"""One subject that can be read. Each has a kind, a name and facts; its `read` does not raise."""
MAX_READINGS = 600
"""Above this, every other reading is dropped and the interval doubles, which bounds the size of the record."""
NICENESS = 10
"""Lower priority than the engine and the client."""


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


def watch(tracks: Sequence[Track], every_s: float) -> None:
    """Read until stdin ends, then once more. A late reading is skipped, not repeated."""
    due = time.monotonic() + every_s
    readings = 1
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        for track in tracks:
            track.read()
        readings += 1
        if readings >= MAX_READINGS:
            readings, every_s = (readings + 1) // 2, 2 * every_s
            for track in tracks:
                track.readings = track.readings[::2]
        due = max(due + every_s, time.monotonic())
    for track in tracks:
        track.read()


def main() -> None:
    config = json.loads(sys.stdin.buffer.readline())
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    tracks = [Track(source) for source in sources(config)]
    sys.stdin.buffer.readline()
    for track in tracks:
        track.read()
        track.cpu_s = 0.0  # this reading precedes the load
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    watch(tracks, float(config["every_s"]))
    with contextlib.suppress(BrokenPipeError):  # the harness has ended
        sys.stdout.buffer.write(json.dumps([track.subject() for track in tracks]).encode() + b"\n")
        sys.stdout.buffer.flush()
    os._exit(0)  # skip the flush at exit, which would fail again on a closed pipe


if __name__ == "__main__":
    main()
