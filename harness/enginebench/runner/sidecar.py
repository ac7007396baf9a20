"""A program that watches while a load runs, in a process of its own: started with its orders, told to begin, asked what it saw, ended.

The contract: one line of JSON on its stdin, and it gets ready; an empty line, and it begins, and says `ready` on its stdout once the
first reading is there; the end of its stdin asks for the rest of its stdout. Knows nothing of what is watched
(`enginebench.runtime.scraper`, `enginebench.telemetry.sampler`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from enginebench.domain import JSON

PATIENCE_S = 10.0
"""For the first reading, and for what was seen: a server that hangs costs `watch.TIMEOUT_S` for each path."""


class Sidecar:
    """A started watcher. A cell stands without what it saw: whatever goes wrong with it is an empty answer, never an error."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start the interpreter with these arguments, and wait for nothing."""
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # the terminal's Ctrl-C is for the harness
        )
        self._begun = False

    def order(self, orders: Mapping[str, JSON]) -> None:
        """Say what is to be watched, and wait for nothing; orders go through a pipe, as they may hold a key."""
        self._tell(json.dumps(orders).encode())

    def begin(self) -> None:
        """Have it read for the first time, and return when it has, so that nothing of its start falls into the load."""
        if self._process is None or self._process.stdout is None:
            return
        self._begun = True
        self._tell(b"")
        if not _heard(self._process.stdout.fileno(), b"ready\n", PATIENCE_S):
            self.end()

    def _tell(self, line: bytes) -> None:
        """A line on its stdin, if it is still there."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line + b"\n")

    def collect(self) -> bytes:
        """What it saw; empty when it never began, has nothing to say, or not in time."""
        if self._process is None or not self._begun:
            return b""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.communicate(timeout=PATIENCE_S)[0]
        return b""

    def end(self) -> None:
        """Kill it. Again does nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _heard(fd: int, word: bytes, timeout_s: float) -> bool:
    """Whether the pipe said just this within the time."""
    said, until = b"", time.monotonic() + timeout_s
    while len(said) < len(word) and select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
        if not (data := os.read(fd, len(word) - len(said))):
            break
        said += data
    return said == word
