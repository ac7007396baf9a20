"""The loop of a process that takes readings while a load runs (`enginebench.runner.sidecar` starts it). Imports the standard library only.

stdin: one line of JSON, `every_s` and what the readings need, then an empty line, which starts them. End of file ends the program.
stdout: `ready` after the first reading, and all readings at the end.
"""

import contextlib
import json
import os
import select
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

NICENESS = 10
"""Lower priority than the engine and the client."""


class Readings(ABC):
    """What is read, and what was read so far."""

    most: int
    """With more readings than this, every other one is dropped and the interval doubles, which bounds memory and records."""

    @abstractmethod
    def read(self) -> None:
        """Take one."""

    @abstractmethod
    def begun(self) -> None:
        """The first one is taken: what comes now costs CPU time during the load."""

    @abstractmethod
    def thin(self) -> None:
        """Drop every other one."""

    @abstractmethod
    def output(self) -> bytes:
        """All of them, when the load has ended."""


def serve(readings_of: Callable[[dict[str, Any]], Readings]) -> None:
    """The whole program. readings_of: from the configuration; what it takes is not taken from the load."""
    config = json.loads(sys.stdin.buffer.readline())
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    its = readings_of(config)
    sys.stdin.buffer.readline()
    take(its, float(config["every_s"]))
    with contextlib.suppress(BrokenPipeError):  # the harness has ended
        sys.stdout.buffer.write(its.output())
        sys.stdout.buffer.flush()
    os._exit(0)  # skip the flush at exit, which would fail again on a closed pipe


def take(its: Readings, every_s: float) -> None:
    """Read until stdin ends. A late reading is skipped, not repeated."""
    its.read()
    its.begun()
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    readings, due = 1, time.monotonic() + every_s
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        its.read()
        readings += 1
        if readings >= its.most:
            readings, every_s = (readings + 1) // 2, 2 * every_s
            its.thin()
        due = max(due + every_s, time.monotonic())
