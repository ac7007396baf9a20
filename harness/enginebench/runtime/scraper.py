"""Fetches a few paths of a server once a second and keeps the replies, as a process of its own: the client's stamps must not feel it.

Knows nothing of enginebench, engines or counters. It is a program, not a module to import: `python -I -S watch.py`, and it needs
only the standard library.

stdin: one line of JSON (host, port, tls, prefix, headers, paths, every_s), then an empty one, at which it begins; its end, in whatever
way it comes, ends the program.
stdout: `ready` when the first reading is there; at the end one line of JSON (cpu_s, and for each reading its time on the monotonic
clock and for each path the status, 0 for nobody answered, and the length of the compressed body), then the bodies themselves.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import sys
import time
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

TIMEOUT_S = 2.0
MOST_BODY = 8 * 2**20
MOST_READINGS = 1000
"""Beyond this every other reading is dropped and the pause doubles, so that an hour costs no more memory than a quarter of one."""
NICENESS = 10
"""The engine and the client come first."""

Answer: TypeAlias = tuple[int, bytes]
"""Status and compressed body."""


class Server:
    """One server, over a connection that is kept: a new one each second would be work for the server that no user causes."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self._orders = orders
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> Answer:
        """GET a path. A connection that has been idle may be closed by the server, so a kept one is tried once more as a new one."""
        kept = self._connection is not None
        try:
            return self._get(path)
        except (OSError, http.client.HTTPException):
            self._close()
            return self.get(path) if kept else (0, b"")

    def _get(self, path: str) -> Answer:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._orders["tls"] else http.client.HTTPConnection
            self._connection = kind(self._orders["host"], self._orders["port"], timeout=TIMEOUT_S)
        self._connection.request("GET", self._orders["prefix"] + path, headers=self._orders["headers"])
        response = self._connection.getresponse()
        body = response.read(MOST_BODY)
        if not response.isclosed():  # there was more than that
            self._close()
        return response.status, zlib.compress(body, 1)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


Reading: TypeAlias = tuple[int, list[Answer]]


def read(server: Server, paths: Sequence[str]) -> Reading:
    """All paths once, and when the last reply was there."""
    answers = [server.get(path) for path in paths]
    return time.monotonic_ns(), answers


def watch(orders: dict[str, Any]) -> tuple[list[Reading], float]:
    """Read until stdin ends; a reading that comes too late is left out, never made up for. With the processor time that took, in s,
    from the first reading on: what comes before it comes before the load."""
    server, every = Server(orders), float(orders["every_s"])
    readings = [read(server, orders["paths"])]
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    before = time.process_time()
    due = time.monotonic() + every
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        readings.append(read(server, orders["paths"]))
        if len(readings) >= MOST_READINGS:
            readings, every = readings[::2], 2 * every
        due = max(due + every, time.monotonic())
    return readings, time.process_time() - before


def main() -> None:
    """Take the orders, watch, hand the replies over."""
    orders = json.loads(sys.stdin.buffer.readline())
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    sys.stdin.buffer.readline()
    readings, cpu_s = watch(orders)
    index = [[at, [[status, len(body)] for status, body in answers]] for at, answers in readings]
    with contextlib.suppress(BrokenPipeError):  # whoever wanted them is gone
        sys.stdout.buffer.write(json.dumps({"cpu_s": cpu_s, "readings": index}).encode() + b"\n")
        sys.stdout.buffer.write(b"".join(body for _, answers in readings for _, body in answers))
        sys.stdout.buffer.flush()
    os._exit(0)  # a flush at exit would complain of the closed pipe once more


if __name__ == "__main__":
    main()
