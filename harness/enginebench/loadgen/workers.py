"""A load shared among several client processes, when one core is not enough for its streams or events.

Each process is a fresh interpreter that gets its part of the load through a pipe, opens its connections, says so, and begins at
the instant that all are told; the monotonic clock is the same in all of them. `python -m enginebench.loadgen.workers
FD FD` is such a process. Does not know: what a load measures.
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
"""From telling the processes when to begin until then."""
_GRACE_S = 10.0


def run_parts(spec: LoadSpec, on_progress: OnProgress | None, processes: int) -> list[WorkerResult]:
    """Send the load from so many processes. An exception of on_progress ends the load and is raised.

    That a server cannot keep up shows in what all of them have sent, so it is looked for here and not in each.
    """
    parts = _parts(replace(spec, dispersion=None), processes)
    watch = SaturationWatch(spec.dispersion) if spec.dispersion is not None else None
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker() for _ in parts)
        for worker, part in zip(workers, parts, strict=True):
            worker.order(part)  # they start up side by side meanwhile
        for worker in workers:
            worker.expect("ready")
        start_ns = monotonic_ns() + _HEADSTART_NS
        for worker in workers:
            worker.begin(start_ns)
        return _gather(workers, on_progress, watch)
    finally:
        for worker in workers:
            worker.end()


def _gather(workers: Sequence[_Worker], on_progress: OnProgress | None, watch: SaturationWatch | None) -> list[WorkerResult]:
    """Wait for every share, passing progress on; Ctrl-C and a failing on_progress tell the processes to stop."""
    error: BaseException | None = None
    verdict: str | None = None
    while waiting := {worker.results: worker for worker in workers if worker.share is None and not worker.lost}:
        try:
            for pipe in wait(list(waiting)):
                worker = waiting[cast("Connection", pipe)]
                worker.hear()
                if worker.share is not None and worker.share.stopped:  # half a load is no load
                    for other in workers:
                        other.stop(worker.share.stopped)
            told = _sum([worker.progress for worker in workers if worker.progress is not None])
            if watch is not None and verdict is None and all(worker.progress is not None for worker in workers):
                verdict = watch.observe(told.elapsed_s, told.arrived, told.departed)
                if verdict is not None:
                    for worker in workers:
                        worker.stop(verdict)
            if on_progress is not None and error is None:
                on_progress(told)
        except BaseException as failure:  # noqa: BLE001 -- raised below, once the processes have stopped
            error = error or failure
            for worker in workers:
                worker.stop("interrupted")
    if error is not None and not isinstance(error, KeyboardInterrupt):
        raise error
    shares = [worker.share for worker in workers if worker.share is not None]
    return [replace(share, saturated=verdict is not None and share.stopped == verdict) for share in shares]


class _Worker:
    """One client process, seen from the parent. Orders go in and results come out through a pipe each."""

    def __init__(self) -> None:
        self.share: WorkerResult | None = None
        self.progress: Progress | None = None
        self.lost = False
        """It ended without a word."""
        orders, self.orders = Pipe(duplex=False)
        self.results, results = Pipe(duplex=False)
        with orders, results:
            fds = orders.fileno(), results.fileno()
            self._process = subprocess.Popen([sys.executable, "-m", __name__, *map(str, fds)], pass_fds=fds)

    def order(self, spec: LoadSpec) -> None:
        """Hand over the part of the load."""
        module = sys.modules[type(spec.dialect).__module__]
        try:
            self.orders.send((module.__name__, getattr(module, "__file__", None)))
            self.orders.send(spec)
        except BrokenPipeError:
            raise RuntimeError(f"a client process ended with exit code {self._process.wait()}") from None

    def expect(self, word: str) -> None:
        """Wait for this message."""
        heard = self._receive()
        if heard != word:
            raise RuntimeError(f"a client process said {heard!r} where {word!r} was expected")

    def begin(self, start_ns: int) -> None:
        """Tell when to begin."""
        self.orders.send(start_ns)

    def hear(self) -> None:
        """Take one message: progress, or the share."""
        heard = self._receive()
        if isinstance(heard, WorkerResult):
            self.share = heard
        else:
            self.progress = heard

    def _receive(self) -> Any:
        try:
            return self.results.recv()
        except EOFError:
            self.lost = True
            raise RuntimeError(f"a client process ended with exit code {self._process.wait()}") from None

    def stop(self, reason: str) -> None:
        """Ask for what there is so far."""
        with suppress(OSError):
            self.orders.send(reason)

    def end(self) -> None:
        """The process has done its work, or must go."""
        self.orders.close()
        self.results.close()
        try:
            self._process.wait(_GRACE_S if self.share is not None else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _parts(spec: LoadSpec, processes: int) -> list[LoadSpec]:
    """The load dealt out session by session, and its streams with it, whose starts take turns."""
    hands: list[list[WireRequest]] = [[] for _ in range(processes)]
    for number, session in enumerate(sessions_of(spec.requests)):
        hands[number % processes] += session
    streams = [spec.concurrency // processes + (number < spec.concurrency % processes) for number in range(processes)]
    instants = starts(spec.concurrency, spec.ramp_ns)
    return [
        replace(spec, requests=hand, concurrency=count, starts_ns=instants[number::processes])
        for number, (hand, count) in enumerate(zip(hands, streams, strict=True))
    ]


def _sum(parts: Sequence[Progress]) -> Progress:
    """Totals over the processes; the pace of one of them."""
    counts = ("requests", "sent", "ended", "failed", "events", "arrived", "departed")
    totals = {name: sum(getattr(part, name) for part in parts) for name in counts}
    paced = next((part for part in parts if part.ttft_s is not None), None)
    return Progress(
        **totals,
        elapsed_s=max((part.elapsed_s for part in parts), default=0.0),
        ttft_s=paced.ttft_s if paced else None,
        tpot_s=paced.tpot_s if paced else None,
    )


# -- inside a client process ---------------------------------------------------------------------------------------------


def _serve(orders: Connection, results: Connection) -> None:
    """Send the load that is ordered, and give back what became of it."""
    name, file = orders.recv()
    if name not in sys.modules and importlib.util.find_spec(name.partition(".")[0]) is None and file is not None:
        _load_by_path(name, file)  # the dialect of an adapter that is a file and no installed module
    spec: LoadSpec = orders.recv()

    async def await_start(client: Client) -> int:
        results.send("ready")
        start_ns: int = orders.recv()
        loop = asyncio.get_running_loop()

        def heed() -> None:
            """Any word from now on is why to stop; the parent's end is one, too."""
            loop.remove_reader(orders.fileno())
            try:
                client.stop(orders.recv())
            except (EOFError, OSError):
                client.stop("interrupted")

        loop.add_reader(orders.fileno(), heed)  # (the loop makes this pipe non-blocking, so results have one of their own)
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent passes it on
    with suppress(EOFError, BrokenPipeError):  # the parent is gone: nobody wants an answer
        _serve(Connection(int(sys.argv[1]), writable=False), Connection(int(sys.argv[2]), readable=False))
