"""Fetches some paths of a server once per second and stores the replies, in its own process so that client time stamps are not disturbed.

A program, not a module to import: `python -I -S scraper.py`. Uses only the standard library. Does not know: enginebench, engines, counters.

stdin: one line of JSON (host, port, tls, prefix, headers, paths, every_s), then an empty line, which starts the readings. End of file ends
the program.
stdout: `ready` after the first reading. At the end one line of JSON, then the compressed bodies. The JSON has cpu_s, and for each reading
its time on the monotonic clock and for each path the status (0: no reply) and the length of the compressed body.
"""

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
MAX_BODY = 8 * 2**20
MAX_READINGS = 1000
"""Above this, every other reading is dropped and the interval doubles, which bounds memory."""
NICENESS = 10
"""Lower priority than the engine and the client."""

CompressedReply: TypeAlias = tuple[int, bytes]
"""Status and compressed body."""


class Server:
    """One server over a keep-alive connection: opening one per second would add load to the server."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> CompressedReply:
        """GET a path. The server may have closed an idle connection, so a failure on a kept one is retried on a new one."""
        kept = self._connection is not None
        try:
            return self._get(path)
        except (OSError, http.client.HTTPException):
            self._close()
            return self.get(path) if kept else (0, b"")

    def _get(self, path: str) -> CompressedReply:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._config["tls"] else http.client.HTTPConnection
            self._connection = kind(self._config["host"], self._config["port"], timeout=TIMEOUT_S)
        self._connection.request("GET", self._config["prefix"] + path, headers=self._config["headers"])
        response = self._connection.getresponse()
        body = response.read(MAX_BODY)
        if not response.isclosed():  # the body is longer
            self._close()
        return response.status, zlib.compress(body, 1)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


Reading: TypeAlias = tuple[int, list[CompressedReply]]


def read(server: Server, paths: Sequence[str]) -> Reading:
    """Fetch all paths once. Returns the time of the last reply and the replies."""
    replies = [server.get(path) for path in paths]
    return time.monotonic_ns(), replies


def watch(config: dict[str, Any]) -> tuple[list[Reading], float]:
    """Read until stdin ends. A late reading is skipped, not repeated. Returns the readings and the CPU time since the first one, in s
    (everything before it happens before the load)."""
    server, every = Server(config), float(config["every_s"])
    readings = [read(server, config["paths"])]
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    before = time.process_time()
    due = time.monotonic() + every
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        readings.append(read(server, config["paths"]))
        if len(readings) >= MAX_READINGS:
            readings, every = readings[::2], 2 * every
        due = max(due + every, time.monotonic())
    return readings, time.process_time() - before


def main() -> None:
    """Read the configuration, collect readings, write them."""
    config = json.loads(sys.stdin.buffer.readline())
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    sys.stdin.buffer.readline()
    readings, cpu_s = watch(config)
    index = [[at, [[status, len(body)] for status, body in replies]] for at, replies in readings]
    with contextlib.suppress(BrokenPipeError):  # the harness has ended
        sys.stdout.buffer.write(json.dumps({"cpu_s": cpu_s, "readings": index}).encode() + b"\n")
        sys.stdout.buffer.write(b"".join(body for _, replies in readings for _, body in replies))
        sys.stdout.buffer.flush()
    os._exit(0)  # skip the flush at exit, which would fail again on a closed pipe


if __name__ == "__main__":
    main()
