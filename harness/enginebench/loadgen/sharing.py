"""Shares one load among several clients, processes of this machine or other hosts, and gathers what they return.

Every client gets its part of the load, opens its connections, says that it is ready, and starts at the instant that all are told. Does not
know: how a client is reached, or what a load means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from time import monotonic_ns
from typing import Protocol

from enginebench.loadgen.client import OnProgress
from enginebench.loadgen.dispatch import sessions_of, starts
from enginebench.loadgen.request import LoadSpec, Progress, WireRequest, WorkerResult
from enginebench.loadgen.saturation import SaturationWatch

HEADSTART_NS = 20_000_000
"""Time between sending the start time to a process of this machine and the start."""
_TURN_S = 1.0
"""How often it is looked whether a client has been silent for too long."""


class ClientLost(Exception):  # noqa: N818  # named like LaunchFailed
    """A client ended, or could not be reached, before its part of the load had ended."""


class Worker(ABC):
    """A client that sends a part of a load."""

    def __init__(self) -> None:
        self.results: Sequence[WorkerResult] | None = None
        """Of each of its processes; None until its part has ended."""
        self.progress: Progress | None = None
        self.exited = False
        """It ended without a result."""

    @property
    def headstart_ns(self) -> int:
        """Time that it takes to tell it when to start."""
        return HEADSTART_NS

    @abstractmethod
    def fileno(self) -> int:
        """What becomes readable when it has sent a message."""

    @abstractmethod
    def send_spec(self, spec: LoadSpec) -> None: ...

    @abstractmethod
    def expect_ready(self) -> None:
        """Wait until its connections are open. Raises ClientLost."""

    @abstractmethod
    def start(self, start_ns: int) -> None:
        """Tell it when to start, on the clock of this process. Raises ClientLost."""

    @abstractmethod
    def read_message(self) -> None:
        """Read its progress or its results. Raises ClientLost."""

    def check(self) -> None:  # noqa: B027  # the pipe of a process of this machine says when that has ended
        """Raises ClientLost if it has been silent for too long."""

    @abstractmethod
    def stop(self, reason: str) -> None:
        """Ask it to end the load. Raises nothing."""

    @abstractmethod
    def end(self) -> None:
        """It is not needed any more."""


class Principal(Protocol):
    """Whoever the load is sent for, if that is not this process: says when to start and when to stop."""

    @property
    def present(self) -> bool: ...
    def fileno(self) -> int: ...
    def await_start(self) -> int:
        """Say that all is ready, and wait for the instant of the start."""

    def read_message(self) -> str | None:
        """Why to stop; None: go on."""

    def turn(self) -> None:
        """Called about once a second at least."""


def share_load(
    spec: LoadSpec, on_progress: OnProgress | None, workers: Sequence[Worker], principal: Principal | None = None
) -> list[WorkerResult]:
    """Send the load from these clients. An exception of on_progress ends the load and is raised.

    Saturation is detected here, from the totals of all clients.
    """
    watch = SaturationWatch(spec.dispersion) if spec.dispersion is not None else None
    try:
        for worker, part in zip(workers, parts_of(replace(spec, dispersion=None), len(workers)), strict=True):
            worker.send_spec(part)  # they start up in parallel
        for worker in workers:
            worker.expect_ready()
        headstart_ns = max(worker.headstart_ns for worker in workers)
        start_ns = monotonic_ns() + headstart_ns if principal is None else principal.await_start()
        for worker in workers:
            worker.start(start_ns)
        return _gather(workers, on_progress, watch, principal)
    finally:
        for worker in workers:
            worker.end()


def _gather(
    workers: Sequence[Worker], on_progress: OnProgress | None, watch: SaturationWatch | None, principal: Principal | None
) -> list[WorkerResult]:
    """Report progress until every client has returned its results. Ctrl-C and an exception of on_progress stop all of them."""
    error: BaseException | None = None
    verdict: str | None = None
    while waiting := [worker for worker in workers if worker.results is None and not worker.exited]:
        try:
            if reason := _turn(waiting, principal):  # a part of a load is not the load: stop the others
                _stop(workers, reason)
            progress = _total([worker.progress for worker in workers if worker.progress is not None])
            if watch is not None and verdict is None and all(worker.progress is not None for worker in workers):
                verdict = watch.observe(progress.elapsed_s, progress.arrived, progress.departed)
                if verdict is not None:
                    _stop(workers, verdict)
            if on_progress is not None and error is None and progress.requests:
                on_progress(progress)
        except BaseException as failure:  # noqa: BLE001 -- raised below, once all have stopped
            error = error or failure
            _stop(workers, "interrupted")
    results = [result for worker in workers for result in worker.results or ()]
    if error is not None and not (isinstance(error, KeyboardInterrupt) and results):
        raise error
    return [replace(result, saturated=verdict is not None and result.stopped == verdict) for result in results]


def _turn(waiting: Sequence[Worker], principal: Principal | None) -> str | None:
    """Read what has come, or wait for a moment. Returns why a client has stopped, or all must."""
    here = principal if principal is not None and principal.present else None
    ready: Sequence[object] = wait([*waiting, here] if here is not None else waiting, _TURN_S)  # type: ignore[arg-type, list-item]  # all have a fileno
    reason = None
    for worker in waiting:
        if worker in ready:
            worker.read_message()
            reason = reason or next((result.stopped for result in worker.results or () if result.stopped), None)
        worker.check()
    if here is not None:
        reason = (here.read_message() if here in ready else None) or reason
        here.turn()
    return reason


def _stop(workers: Sequence[Worker], reason: str) -> None:
    for worker in workers:
        worker.stop(reason)


def parts_of(spec: LoadSpec, count: int) -> list[LoadSpec]:
    """Distribute sessions and streams over the clients in turn. Stream starts interleave between clients."""
    requests: list[list[WireRequest]] = [[] for _ in range(count)]
    for number, session in enumerate(sessions_of(spec.requests)):
        requests[number % count] += session
    streams = [spec.concurrency // count + (number < spec.concurrency % count) for number in range(count)]
    start_times = spec.starts_ns or starts(spec.concurrency, spec.ramp_ns)
    return [
        replace(spec, requests=part, concurrency=share, starts_ns=start_times[number::count])
        for number, (part, share) in enumerate(zip(requests, streams, strict=True))
    ]


def _total(parts: Sequence[Progress]) -> Progress:
    """Totals over the clients; TTFT and TPOT of the first one that has them."""
    counts = ("requests", "sent", "ended", "failed", "events", "arrived", "departed")
    totals = {name: sum(getattr(part, name) for part in parts) for name in counts}
    pace_s = next((part.pace_s for part in parts if part.pace_s is not None), None)
    return Progress(**totals, elapsed_s=max((part.elapsed_s for part in parts), default=0.0), pace_s=pace_s)
