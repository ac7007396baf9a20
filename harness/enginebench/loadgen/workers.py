"""Client processes of this machine, for loads with more streams or events than one core can handle.

Each process is a new interpreter (`python -m enginebench.loadgen.workers FD FD`). It gets its part of the load through a pipe, opens its
connections, sends 'ready', and starts at the time that the parent sends to all. All processes share the monotonic clock.
"""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

from enginebench.loadgen.client import Client, OnProgress
from enginebench.loadgen.client_process import run_part
from enginebench.loadgen.request import LoadSpec, WorkerResult
from enginebench.loadgen.sharing import ClientLost, Principal, Worker, share_load

_GRACE_S = 10.0


def run_parts(spec: LoadSpec, on_progress: OnProgress | None, processes: int, principal: Principal | None = None) -> list[WorkerResult]:
    """Send the load from several processes. An exception of on_progress ends the load and is raised."""
    workers: list[ClientProcess] = []
    try:
        workers.extend(ClientProcess() for _ in range(processes))
        return share_load(spec, on_progress, workers, principal)
    finally:
        for worker in workers:
            worker.end()


class ClientProcess(Worker):
    """A client process of this machine."""

    def __init__(self) -> None:
        super().__init__()
        commands, self.commands = Pipe(duplex=False)
        self.replies, replies = Pipe(duplex=False)
        with commands, replies:
            fds = commands.fileno(), replies.fileno()
            self._process = subprocess.Popen([sys.executable, "-m", __name__, *map(str, fds)], pass_fds=fds)

    def fileno(self) -> int:
        return self.replies.fileno()

    def send_spec(self, spec: LoadSpec) -> None:
        name = type(spec.dialect).__module__
        module = sys.modules.get(".".join(name.split(".")[:2]), sys.modules[name])  # of an adapter that is a folder: the folder's own
        self.command((module.__name__, getattr(module, "__file__", None)))
        self.command(spec)

    def command(self, what: object) -> None:
        """Send it something that it cannot do without. Raises ClientLost if the process has ended."""
        try:
            self.commands.send(what)
        except (BrokenPipeError, ConnectionResetError):
            raise self._lost() from None

    def expect_ready(self) -> None:
        if (received := self._receive()) != "ready":
            raise RuntimeError(f"expected 'ready' from a client process, received {received!r}")

    def start(self, start_ns: int) -> None:
        self.command(start_ns)

    def read_message(self) -> None:
        received = self._receive()
        if isinstance(received, WorkerResult):
            self.results = [received]
        else:
            self.progress = received

    def _receive(self) -> Any:
        try:
            return self.replies.recv()
        except (EOFError, ConnectionResetError):
            self.exited = True
            raise self._lost() from None

    def _lost(self) -> ClientLost:
        code = self._process.wait()
        return ClientLost(f"a client process was killed by signal {-code}" if code < 0 else f"a client process ended with exit code {code}")

    def stop(self, reason: str) -> None:
        with suppress(OSError):
            self.commands.send(reason)

    def end(self) -> None:
        """Wait for the process to exit; kill it if it does not. A second call does nothing."""
        self.commands.close()
        self.replies.close()
        try:
            self._process.wait(_GRACE_S if self.results is not None else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# -- inside a client process ---------------------------------------------------------------------------------------------


def _serve(commands: Connection, results: Connection) -> None:
    name, file = commands.recv()
    if name not in sys.modules and importlib.util.find_spec(name.partition(".")[0]) is None and file is not None:
        _load_by_path(name, file)  # the dialect of an adapter that is a file, not an installed module
    spec: LoadSpec = commands.recv()

    async def await_start(client: Client) -> int:
        results.send("ready")
        start_ns: int = commands.recv()
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_reader(commands.fileno())
            try:
                client.stop(commands.recv())
            except (EOFError, OSError):
                client.stop("interrupted")

        loop.add_reader(commands.fileno(), stop)  # (the loop makes this pipe non-blocking, so results use another one)
        return start_ns

    results.send(run_part(spec, results.send, await_start))


def _load_by_path(name: str, file: str) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent forwards it
    with suppress(EOFError, BrokenPipeError):  # the parent has exited
        _serve(Connection(int(sys.argv[1]), writable=False), Connection(int(sys.argv[2]), readable=False))
