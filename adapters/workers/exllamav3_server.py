"""A thin OpenAI server on loopback over any `Backend`: /v1/completions and /v1/chat/completions, streamed or whole.

Every event carries the ids of its tokens, so that a client can count them. /health is 503 until the model is loaded; /metrics is Prometheus
text, /enginebench the configuration in force. The request of a client that disconnects is cancelled. Knows neither the engine nor the
format of requests. No keys, no TLS: not for other machines. Standard library only.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from weakref import WeakSet

from exllamav3_scheduler import Backend, Piece, Scheduler
from exllamav3_spelling import FIELDS, Answer, ask, read
from worker_http import JSON, Client, Refused, Reply, Request, as_json

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
        self._scheduler = Scheduler(load, self._from_thread(self._hand_on), self._from_thread(self.end))
        self._pieces: dict[int, asyncio.Queue[Piece]] = {}
        self._numbers = count(1)
        self._clients: WeakSet[Client] = WeakSet()
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and start loading; returns the port. Raises OSError when the address is in use."""

        def client() -> Client:
            self._clients.add(made := Client(self._answer))
            return made

        self._listener = await self.loop.create_server(client, host, port, backlog=BACKLOG)
        self._scheduler.start()
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> bool:
        """Cut every connection and end the engine. False: it is busy for long, and only the end of the process ends it."""
        if self._listener is not None:
            self._listener.close()
        for client in tuple(self._clients):
            client.transport.abort()
        return await self.loop.run_in_executor(None, self._scheduler.stop, STOP_PATIENCE_S)

    def end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)

    async def _answer(self, request: Request, reply: Reply) -> None:
        path = request.path.partition(b"?")[0].decode("latin-1")
        if request.method == b"GET":
            reply.say(200, *self._get(path))
            return
        if path not in FIELDS:
            raise Refused(f"no route POST {path}", 404)
        backend = self._loaded()
        fields = read(path, request.body, self.model)
        asked, number = ask(fields, backend), next(self._numbers)
        answer, pieces = Answer(reply, fields, number, self.model), self._pieces.setdefault(number, asyncio.Queue())
        self._scheduler.submit(number, asked)
        try:
            while not answer.ended:
                answer.take(await pieces.get())
        finally:
            del self._pieces[number]
            self._scheduler.cancel(number)  # the client has disconnected; ignored for a finished request

    def _get(self, path: str) -> tuple[bytes, bytes]:
        if path == "/v1/models":
            return as_json({"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "exllamav3"}]}), JSON
        if path not in ("/health", "/metrics", "/enginebench"):
            raise Refused(f"no route GET {path}", 404)
        backend = self._loaded()
        if path == "/metrics":
            return "".join(f"exllamav3_{name} {value!r}\n" for name, value in backend.gauges().items()).encode(), b"text/plain"
        return as_json({"status": "ok"} if path == "/health" else {"model": self.model, **backend.about()}), JSON

    def _loaded(self) -> Backend:
        if self._scheduler.backend is None:
            raise Refused("the model is loading", 503)
        return self._scheduler.backend

    def _from_thread(self, take: Callable[..., None]) -> Callable[..., None]:
        """The function for the engine's thread: it runs in the event loop."""

        def call(*arguments: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all connections
                self.loop.call_soon_threadsafe(take, *arguments)

        return call

    def _hand_on(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.request in self._pieces:  # else its client has disconnected
                self._pieces[piece.request].put_nowait(piece)


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
