"""Fetches some paths of a server once per second and stores the replies, in its own process so that client time stamps are not disturbed.

A program (`COMMAND`); `loop` says how it is told what to do. Uses only the standard library. Does not know: engines, counters.

Configuration: host, port, tls, prefix, headers, paths. Output: one line of JSON, then the compressed bodies. The JSON has cpu_s, and for
each reading its time on the monotonic clock and for each path the status (0: no reply) and the length of the compressed body.
"""

import http.client
import json
import time
import zlib
from typing import Any, TypeAlias

from enginebench.telemetry.loop import Readings, serve

_PATH = __file__.removesuffix("/enginebench/telemetry/scraper.py")
COMMAND = ("-I", "-S", "-c", f"import sys; sys.path.insert(0, {_PATH!r}); from enginebench.telemetry.scraper import main; main()")
"""Arguments of a Python interpreter that runs it without the environment's packages, whose search takes longer than all else."""
TIMEOUT_S = 2.0
MAX_BODY = 8 * 2**20

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


class Replies(Readings):
    """The replies of one server."""

    most = 1000

    def __init__(self, config: dict[str, Any]) -> None:
        self._server, self._paths = Server(config), config["paths"]
        self._before_s = 0.0
        self.readings: list[tuple[int, list[CompressedReply]]] = []
        """When the last reply was there, and the replies."""

    def read(self) -> None:
        replies = [self._server.get(path) for path in self._paths]
        self.readings.append((time.monotonic_ns(), replies))

    def begun(self) -> None:
        self._before_s = time.process_time()

    def thin(self) -> None:
        self.readings = self.readings[::2]

    def output(self) -> bytes:
        cpu_s = time.process_time() - self._before_s
        index = [[at, [[status, len(body)] for status, body in replies]] for at, replies in self.readings]
        head = json.dumps({"cpu_s": cpu_s, "readings": index}).encode()
        return head + b"\n" + b"".join(body for _, replies in self.readings for _, body in replies)


def main() -> None:
    serve(Replies)
