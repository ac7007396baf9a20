"""A host's part of one load, and a load that is shared by hosts. Does not know: how messages travel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic_ns
from typing import Final, TypeVar

from enginebench.domain import JSON
from enginebench.loadgen.client import OnProgress
from enginebench.loadgen.clock import Clock, Reading
from enginebench.loadgen.dispatch import sessions_of
from enginebench.loadgen.health import health_of
from enginebench.loadgen.remote.channel import LOST, SILENCE_S, Channel, Message
from enginebench.loadgen.remote.codec import pack_spec, unpack_progress, unpack_result
from enginebench.loadgen.remote.host import ClientHost, is_local
from enginebench.loadgen.request import HostShare, LoadSpec, Target, WorkerResult
from enginebench.loadgen.sharing import HEADSTART_NS, ClientLost, Worker, share_load

T = TypeVar("T")
READY_S: Final = 120.0
"""For a client to start its processes and open its connections."""


class HostWorker(Worker):
    """A host's part of one load."""

    def __init__(self, host: ClientHost, processes: int) -> None:
        super().__init__()
        self._host, self._processes = host, processes
        self._spec: LoadSpec | None = None
        self._before: Reading | None = None
        self._clock: Clock | None = None
        self._received: list[WorkerResult] = []
        self._notes: Mapping[str, JSON] = {}
        self._heard_ns = 0

    def fileno(self) -> int:
        return self._call(Channel.fileno)

    @property
    def headstart_ns(self) -> int:
        return HEADSTART_NS + (2 * self._before.round_trip_ns if self._before is not None else 0)

    def send_spec(self, spec: LoadSpec) -> None:
        self._host.connect()
        self._spec = self._call(lambda channel: replace(spec, target=_seen_from(spec.target, channel)))
        fields, blob = pack_spec(self._spec)
        self._call(lambda channel: channel.send("load", {**fields, "processes": self._processes}, blob))

    def expect_ready(self) -> None:
        message = self._next(READY_S)
        if message.kind != "ready":
            raise self._unexpected(message)
        self._before = self._call(lambda _: self._host.read_clock())

    def start(self, start_ns: int) -> None:
        assert self._before is not None  # noqa: S101
        at_ns = start_ns + self._before.offset_ns
        self._call(lambda channel: channel.send("start", {"at": at_ns}))
        self._heard_ns = monotonic_ns()

    def read_message(self) -> None:
        message = self._next(SILENCE_S)
        self._heard_ns = monotonic_ns()
        if message.kind == "progress":
            self.progress = unpack_progress(message.fields)
        elif message.kind == "result":
            self._received.append(unpack_result(message.fields, message.blob))
        elif message.kind == "end":
            self._notes = message.fields
            self._finish()
        elif message.kind != "alive":
            raise self._unexpected(message)

    def _finish(self) -> None:
        assert self._before is not None  # noqa: S101
        self._clock = Clock(self._before, self._call(lambda _: self._host.read_clock()))
        for result in self._received:
            self._clock.correct(result.samples)
        self.results = self._received

    def check(self) -> None:
        if self.results is None and not self.exited and monotonic_ns() - self._heard_ns > SILENCE_S * 1e9:
            self._give_up()
            raise ClientLost(f"client {self._host.name} was lost: silent for {SILENCE_S:g} s")

    def stop(self, reason: str) -> None:
        if self._host.channel is not None and self.results is None:
            with suppress(*LOST):
                self._host.channel.send("stop", {"reason": reason})

    def end(self) -> None:
        """Without results the client still sends, or is about to: it stops when the connection ends."""
        if self.results is None:
            self._host.close()

    def share(self) -> HostShare:
        """What it sent, once it has ended."""
        assert self._spec is not None  # noqa: S101
        assert self._clock is not None  # noqa: S101
        spec, samples = self._spec, [sample for result in self._received for sample in result.samples]
        scheduled = any(request.due_ns is not None for request in spec.requests)
        health = health_of(samples, spec.concurrency, [result.vitals for result in self._received], scheduled=scheduled)
        return HostShare(self._host.name, spec.concurrency, len(spec.requests), self._clock, health, self._notes)

    def _next(self, within_s: float) -> Message:
        def receive(channel: Channel) -> Message:
            if not channel.arrives(within_s):
                raise OSError(f"silent for {within_s:g} s")
            return channel.receive()

        return self._call(receive)

    def _call(self, action: Callable[[Channel], T]) -> T:
        try:
            return self._host.call(action)
        except BaseException:  # Ctrl-C may have come in the middle of a message
            self.exited = True
            raise

    def _unexpected(self, message: Message) -> ClientLost:
        self._give_up()
        return ClientLost(f"client {self._host.name}: {message.fields.get('text') or f'unexpected message {message.kind!r}'}")

    def _give_up(self) -> None:
        self.exited = True
        self._host.close()


def run_on_hosts(
    spec: LoadSpec, on_progress: OnProgress | None, hosts: Sequence[ClientHost], processes: int
) -> tuple[list[WorkerResult], list[HostShare]]:
    """Send the load from these hosts, from as many of them as it has streams and sessions. processes: on each host.

    All times are on the clock of this process. Raises ClientLost with the host's name.
    """
    count = max(1, min(len(hosts), spec.concurrency or len(hosts), len(sessions_of(spec.requests))))
    workers = [HostWorker(host, processes) for host in hosts[:count]]
    results = share_load(spec, on_progress, workers)
    return results, [worker.share() for worker in workers if worker.results is not None]


def _seen_from(target: Target, channel: Channel) -> Target:
    """The same server as a client on another host reaches it: a loopback address means this machine."""
    return replace(target, host=channel.local_host) if is_local(target.host) else target
