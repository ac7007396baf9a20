"""Splits a load among several client processes, when one core cannot handle all its streams or events.

Each process is a new interpreter (`python -m enginebench.loadgen.workers FD FD`). It gets its part of the load through a pipe, opens its
connections, sends 'ready', and starts at the time that the parent sends to all. All processes share the monotonic clock.
"""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe, wait
from time import monotonic_ns
from typing import Any, cast

from enginebench.loadgen.client import Client, OnProgress
from enginebench.loadgen.client_process import run_part
from enginebench.loadgen.dispatch import sessions_of, starts
from enginebench.loadgen.request import LoadSpec, Progress, WireRequest, WorkerResult
from enginebench.loadgen.saturation import SaturationWatch

_HEADSTART_NS = 20_000_000
"""Time between sending the start time and the start."""
_GRACE_S = 10.0


class ClientLost(Exception):  # noqa: N818  # named like LaunchFailed
    """A client process ended before its part of the load had ended."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a client process was killed by signal {-code}" if code < 0 else f"a client process ended with exit code {code}")


def run_parts(spec: LoadSpec, on_progress: OnProgress | None, processes: int) -> list[WorkerResult]:
    """Send the load from several processes. An exception of on_progress ends the load and is raised.

    Saturation is detected here, from the totals of all processes.
    """
    parts = _parts(replace(spec, dispersion=None), processes)
    watch = SaturationWatch(spec.dispersion) if spec.dispersion is not None else None
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker() for _ in parts)
        for worker, part in zip(workers, parts, strict=True):
            worker.send_spec(part)  # the processes start up in parallel
        for worker in workers:
            worker.expect_ready()
        start_ns = monotonic_ns() + _HEADSTART_NS
        for worker in workers:
            worker.command(start_ns)
        return _gather(workers, on_progress, watch)
    finally:
        for worker in workers:
            worker.end()


def _gather(workers: Sequence[_Worker], on_progress: OnProgress | None, watch: SaturationWatch | None) -> list[WorkerResult]:
    """Report progress until every process has returned its result. Ctrl-C and an exception of on_progress stop all processes."""
    error: BaseException | None = None
    verdict: str | None = None
    while waiting := {worker.results: worker for worker in workers if worker.result is None and not worker.exited}:
        try:
            for pipe in wait(list(waiting)):
                worker = waiting[cast("Connection", pipe)]
                worker.read_message()
                if worker.result is not None and worker.result.stopped:  # a part of a load is not the load: stop the others
                    for other in workers:
                        other.stop(worker.result.stopped)
            progress = _total([worker.progress for worker in workers if worker.progress is not None])
            if watch is not None and verdict is None and all(worker.progress is not None for worker in workers):
                verdict = watch.observe(progress.elapsed_s, progress.arrived, progress.departed)
                if verdict is not None:
                    for worker in workers:
                        worker.stop(verdict)
            if on_progress is not None and error is None:
                on_progress(progress)
        except BaseException as failure:  # noqa: BLE001 -- raised below, once the processes have stopped
            error = error or failure
            for worker in workers:
                worker.stop("interrupted")
    if error is not None and not isinstance(error, KeyboardInterrupt):
        raise error
    results = [worker.result for worker in workers if worker.result is not None]
    return [replace(result, saturated=verdict is not None and result.stopped == verdict) for result in results]


class _Worker:
    def __init__(self) -> None:
        self.result: WorkerResult | None = None
        self.progress: Progress | None = None
        self.exited = False
        """The process ended without a result."""
        commands, self.commands = Pipe(duplex=False)
        self.results, results = Pipe(duplex=False)
        with commands, results:
            fds = commands.fileno(), results.fileno()
            self._process = subprocess.Popen([sys.executable, "-m", __name__, *map(str, fds)], pass_fds=fds)

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
            raise ClientLost(self._process.wait()) from None

    def expect_ready(self) -> None:
        if (received := self._receive()) != "ready":
            raise RuntimeError(f"expected 'ready' from a client process, received {received!r}")

    def read_message(self) -> None:
        received = self._receive()
        if isinstance(received, WorkerResult):
            self.result = received
        else:
            self.progress = received

    def _receive(self) -> Any:
        try:
            return self.results.recv()
        except (EOFError, ConnectionResetError):
            self.exited = True
            raise ClientLost(self._process.wait()) from None

    def stop(self, reason: str) -> None:
        with suppress(OSError):
            self.commands.send(reason)

    def end(self) -> None:
        """Wait for the process to exit; kill it if it does not."""
        self.commands.close()
        self.results.close()
        try:
            self._process.wait(_GRACE_S if self.result is not None else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _parts(spec: LoadSpec, processes: int) -> list[LoadSpec]:
    """Distribute sessions and streams over the processes in turn. Stream starts interleave between processes."""
    requests: list[list[WireRequest]] = [[] for _ in range(processes)]
    for number, session in enumerate(sessions_of(spec.requests)):
        requests[number % processes] += session
    streams = [spec.concurrency // processes + (number < spec.concurrency % processes) for number in range(processes)]
    start_times = starts(spec.concurrency, spec.ramp_ns)
    return [
        replace(spec, requests=part, concurrency=count, starts_ns=start_times[number::processes])
        for number, (part, count) in enumerate(zip(requests, streams, strict=True))
    ]


def _total(parts: Sequence[Progress]) -> Progress:
    """Totals over the processes; TTFT and TPOT of the first process that has them."""
    counts = ("requests", "sent", "ended", "failed", "events", "arrived", "departed")
    totals = {name: sum(getattr(part, name) for part in parts) for name in counts}
    pace_s = next((part.pace_s for part in parts if part.pace_s is not None), None)
    return Progress(**totals, elapsed_s=max((part.elapsed_s for part in parts), default=0.0), pace_s=pace_s)


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
