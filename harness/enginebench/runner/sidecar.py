"""A process that takes readings while a load runs (`enginebench.telemetry.scraper`, `enginebench.telemetry.sampler`).

One line of JSON on its stdin configures it; an empty line starts it, and it writes `ready` to its stdout after the first reading; when its
stdin closes it writes its readings to its stdout.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from enginebench.domain import JSON

TIMEOUT_S = 10.0
"""For the first reading, and for the output. A server that hangs costs the scraper `scraper.TIMEOUT_S` per path."""


class Sidecar:
    """A started process. Its output is optional for a cell: if anything goes wrong the output is empty, and nothing is raised."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start a Python interpreter with these arguments, without waiting for it."""
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            start_new_session=True,  # the terminal's Ctrl-C is for the harness
        )  # fmt: skip
        self._begun = False

    def configure(self, config: Mapping[str, JSON]) -> None:
        """Send the configuration, without waiting. Through a pipe, because it may contain a key."""
        self._send(json.dumps(config).encode())

    def begin(self) -> None:
        """Start the readings, and return after the first one, so that start-up does not disturb the load."""
        if self._process is None or self._process.stdout is None:
            return
        self._begun = True
        self._send(b"")
        if not _received(self._process.stdout.fileno(), b"ready\n", TIMEOUT_S):
            self.end()

    def _send(self, line: bytes) -> None:
        """Write a line to its stdin; ignored if the process has exited."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line + b"\n")

    def collect(self) -> bytes:
        """Its output; empty if it never began or is not done in time."""
        if self._process is None or not self._begun:
            return b""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.communicate(timeout=TIMEOUT_S)[0]
        return b""

    def end(self) -> None:
        """Kill it. A second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _received(fd: int, expected: bytes, timeout_s: float) -> bool:
    """Whether exactly these bytes came through the pipe in time."""
    data, until = b"", time.monotonic() + timeout_s
    while len(data) < len(expected) and select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
        if not (more := os.read(fd, len(expected) - len(data))):
            break
        data += more
    return data == expected
