"""Reads GPUs, this machine and the engine about once a second while a load runs, as a process of its own: the client must not feel it.

A program: `python -m enginebench.telemetry.sampler`. Knows what to read, not what it means. What it may need of this machine's devices is
imported before the orders come: a load waits for what is done after them.

stdin: one line of JSON (every_s; gpus: whether this machine's are to be read; processes: name -> pid whose descendants are the engine;
containers: name -> id), then an empty one, at which it begins; its end, in whatever way it comes, brings a last reading and the end of
the program.
stdout: `ready` when the first reading is there; at the end one line of JSON, a list of subjects as `enginebench.telemetry.Subject`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from enginebench.telemetry.amd import amd_gpus
from enginebench.telemetry.engines import Container, Processes
from enginebench.telemetry.machine import ThisMachine
from enginebench.telemetry.nvidia import nvidia_gpus
from enginebench.telemetry.source import Source, Values

MOST_READINGS = 600
"""Beyond this every other reading is dropped and the pause doubles: a record of an hour is no longer than one of a quarter."""
NICENESS = 10
"""The engine and the client come first."""


class Track:
    """A source with what it has said so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.readings: list[tuple[int, Values]] = []
        self.cpu_s = 0.0

    def read(self) -> None:
        """Once more; the stamp is halfway between question and answer."""
        began, cpu = time.monotonic_ns(), time.process_time()
        values = self.source.read()
        self.readings.append(((began + time.monotonic_ns()) // 2, values))
        self.cpu_s += time.process_time() - cpu

    def subject(self) -> dict[str, Any]:
        """As JSON. A value that the source never gave has no series."""
        names = dict.fromkeys(name for _, values in self.readings for name, value in values.items() if value is not None)
        series = {name: [_brief(values.get(name)) for _, values in self.readings] for name in names}
        told = {"at_ns": [at for at, _ in self.readings], "values": series, "cpu_s": round(self.cpu_s, 4)}
        return {"kind": self.source.kind, "name": self.source.name, "facts": dict(self.source.facts), "series": told}


def _brief(value: float | None) -> float | None:
    """To a microsecond or a millionth: the rest is noise that the record would carry."""
    return value if value is None or isinstance(value, int) else round(value, 6)


def sources(orders: Mapping[str, Any]) -> Iterator[Source]:
    """What the orders ask for: the engine first, so that a GPU's processes are compared with those of the same moment."""
    engines: list[Processes | Container] = [Processes(name, pid) for name, pid in orders["processes"].items()]
    if orders["containers"]:
        client = _daemon()
        engines += [Container(name, ident, client) for name, ident in orders["containers"].items()] if client else []
    yield from engines
    if orders["gpus"]:

        def ours() -> frozenset[int]:
            return frozenset().union(*(engine.pids for engine in engines))

        yield from nvidia_gpus(ours)
        yield from amd_gpus(ours)
    yield ThisMachine()


def _daemon() -> Any:
    from enginebench.runtime.container.client import connect
    from enginebench.runtime.exit_status import LaunchFailed

    try:
        return connect(timeout_s=2.0)
    except LaunchFailed:
        return None


def watch(tracks: Sequence[Track], every_s: float) -> None:
    """Read until stdin ends, and then once more; a reading that comes too late is left out, never made up for."""
    due = time.monotonic() + every_s
    readings = 1
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        for track in tracks:
            track.read()
        readings += 1
        if readings >= MOST_READINGS:
            readings, every_s = (readings + 1) // 2, 2 * every_s
            for track in tracks:
                track.readings = track.readings[::2]
        due = max(due + every_s, time.monotonic())
    for track in tracks:
        track.read()


def main() -> None:
    """Take the orders, watch, hand over what was seen."""
    orders = json.loads(sys.stdin.buffer.readline())
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    tracks = [Track(source) for source in sources(orders)]
    sys.stdin.buffer.readline()
    for track in tracks:
        track.read()
        track.cpu_s = 0.0  # this reading comes before the load
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    watch(tracks, float(orders["every_s"]))
    with contextlib.suppress(BrokenPipeError):  # whoever wanted it is gone
        sys.stdout.buffer.write(json.dumps([track.subject() for track in tracks]).encode() + b"\n")
        sys.stdout.buffer.flush()
    os._exit(0)  # a flush at exit would complain of the closed pipe once more


if __name__ == "__main__":
    main()
