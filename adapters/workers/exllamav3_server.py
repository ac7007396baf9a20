"""A thin OpenAI server on loopback over any `Backend`: /v1/completions and /v1/chat/completions, streamed or whole.

Every event carries the ids of its tokens, so that a client can count them. /health is 503 until the model is loaded; /metrics is Prometheus
text, /enginebench the configuration in force. The requests of a client that disconnects are cancelled. Knows neither the engine nor the
format of requests. No keys, no TLS: not for other machines. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from itertools import count

from exllamav3_http import Connection, Request
from exllamav3_scheduler import Backend, Piece, Scheduler
from exllamav3_spelling import FIELDS, JSON, Answer, Refused, as_json, ask, failure, read

STOP_PATIENCE_S = 3.0
BACKLOG = 4096
"""Connections that may wait to be accepted: a load opens all of its connections at once."""


class Server:
    """The requests in flight over one scheduler. ended: the exit code, once the engine has failed."""

    def __init__(self, load: Callable[[], Backend], model: str) -> None:
        """Called in a running event loop."""
        self.model = model
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self.loop.create_future()
        self._scheduler = Scheduler(load, self._from_thread, self._engine_failed)
        self._answers: dict[int, Answer] = {}
        self._numbers = count(1)
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and start loading; returns the port. Raises OSError when the address is in use."""
        self._listener = await self.loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG)
        self._scheduler.start()
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> bool:
        """Cut every connection and end the engine. False: it is busy for long, and only the end of the process ends it."""
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._connections):
            connection.abort()
        return await self.loop.run_in_executor(None, self._scheduler.stop, STOP_PATIENCE_S)

    # -- from connections ----------------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """A client has disconnected: cancel its requests."""
        self._connections.discard(connection)
        for number in [number for number, answer in self._answers.items() if answer.connection is connection]:
            del self._answers[number]
            self._scheduler.cancel(number)

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer now, or later: a generation is answered piece by piece."""
        try:
            if request.method == "GET":
                connection.reply(200, *self._get(request.path))
            else:
                self._generate(connection, request)
        except Refused as error:
            connection.reply(error.status, failure(str(error)), JSON)

    def _get(self, path: str) -> tuple[bytes, str]:
        if path == "/v1/models":
            return as_json({"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "exllamav3"}]}), JSON
        if path not in ("/health", "/metrics", "/enginebench"):
            raise Refused(f"no route GET {path}", 404)
        backend = self._loaded()
        if path == "/metrics":
            return "".join(f"exllamav3_{name} {value!r}\n" for name, value in backend.gauges().items()).encode(), "text/plain"
        return as_json({"status": "ok"} if path == "/health" else {"model": self.model, **backend.about()}), JSON

    def _generate(self, connection: Connection, request: Request) -> None:
        if request.method != "POST" or request.path not in FIELDS:
            raise Refused(f"no route {request.method} {request.path}", 404)
        backend = self._loaded()
        fields = read(request.path, request.body, self.model)
        request_ask = ask(fields, backend)
        number = next(self._numbers)
        self._answers[number] = Answer(connection, fields, number, self.model)
        self._scheduler.submit(number, request_ask)

    def _loaded(self) -> Backend:
        if self._scheduler.backend is None:
            raise Refused("the model is loading", 503)
        return self._scheduler.backend

    # -- from the engine's thread --------------------------------------------------------------------------------------------

    def _from_thread(self, pieces: list[Piece]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all connections
            self.loop.call_soon_threadsafe(self._hand_on, pieces)

    def _hand_on(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            answer = self._answers.get(piece.request)
            if answer is None:
                continue  # its client has disconnected
            if piece.finish:
                del self._answers[piece.request]
            answer.take(piece)

    def _engine_failed(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.end, 1)

    def end(self, code: int) -> None:
        """Make `serve` return this code."""
        if not self.ended.done():
            self.ended.set_result(code)


def serve(load: Callable[[], Backend], *, model: str, host: str, port: int) -> int:
    """Serve until SIGTERM, SIGINT or a failure of the engine; returns the exit code. During a model load it ends the process instead."""
    return asyncio.run(_serve(load, model, host, port))


async def _serve(load: Callable[[], Backend], model: str, host: str, port: int) -> int:
    server = Server(load, model)
    for number in (signal.SIGTERM, signal.SIGINT):
        server.loop.add_signal_handler(number, server.end, 0)
    port = await server.start(host, port)
    print(f"listening on http://{host}:{port}, loading", file=sys.stderr, flush=True)
    code = await server.ended
    if not await server.stop():
        os._exit(code)
    return code
