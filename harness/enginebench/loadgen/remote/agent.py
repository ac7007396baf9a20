"""What runs on a client host: it waits for a process that measures elsewhere, and sends its part of each load from processes of this host.

Serves one at a time, and only who proves to have the token. Does not know: engines, records, which part of a load is its own.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from time import monotonic, monotonic_ns
from typing import Any, Final

from enginebench.domain import JSON
from enginebench.errors import UserError
from enginebench.loadgen.health import Vitals
from enginebench.loadgen.open_files import allow_open_files
from enginebench.loadgen.remote.channel import LOST, Channel, Message
from enginebench.loadgen.remote.codec import pack_result, unpack_spec
from enginebench.loadgen.request import LoadSpec, Progress, Target, WorkerResult
from enginebench.loadgen.sharing import ClientLost
from enginebench.loadgen.workers import run_parts

REACH_S: Final = 10.0
ALIVE_S: Final = 1.0
SAME: Final = ("enginebench", "byteorder")
"""What both ends must have in common."""

Watch = Callable[[Mapping[str, JSON]], AbstractContextManager[Callable[[list[Vitals]], dict[str, JSON]]]]
"""watch(what the other end says of itself) lasts as long as a load; what it yields returns what is to be said of the host during it."""


@dataclass
class Agent:
    token: str
    facts: Mapping[str, JSON]
    """Of this host, with what is in SAME."""
    watch: Watch
    say: Callable[[str], None]
    """Told one line about every run and load."""
    _free: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        """Until an exception ends it."""
        while True:
            connected, _ = listener.accept()
            threading.Thread(target=self.meet, args=(connected,), daemon=True).start()

    def meet(self, connected: socket.socket) -> None:
        """One connection, from the first byte to the last."""
        try:
            channel = Channel(connected)
        except OSError:
            return
        try:
            channel.prove(self.token, accepted=True)
            its = channel.receive(first=True).fields
            if unlike := [f"{name} {its.get(name)}, not {self.facts[name]}" for name in SAME if its.get(name) != self.facts[name]]:
                channel.send("error", {"text": f"the run has {', '.join(unlike)}: install the same version on all hosts"})
            elif not self._free.acquire(blocking=False):
                channel.send("busy", {"text": "it sends the load of another run"})
            else:
                try:
                    self._serve(channel, its)
                finally:
                    self._free.release()
        except LOST as error:
            self.say(f"{channel.peer}: {error}" if str(error) else f"{channel.peer}: gone")
        finally:
            with suppress(OSError):
                channel.close()

    def _serve(self, channel: Channel, its: Mapping[str, JSON]) -> None:
        self.say(f"{channel.peer}: {its.get('purpose', 'connected')}")
        channel.send("hello", self.facts)
        while True:
            channel.arrives()
            message = channel.receive()
            if message.kind == "ping":
                channel.send("pong", {"at": monotonic_ns()})
            elif message.kind == "load":
                self._send_load(channel, message, its)
            # what comes late of a load that has ended, such as 'stop', means nothing

    def _send_load(self, channel: Channel, message: Message, its: Mapping[str, JSON]) -> None:
        try:
            spec = unpack_spec(message.fields, message.blob)
            allow_open_files(spec)  # client processes inherit the limit
            _check_reachable(spec.target)
            with self.watch(its) as found:
                processes = _processes(spec, int(message.fields["processes"]))
                driver = Driver(channel)
                results = run_parts(spec, driver.tell, processes, driver)
                notes = found([result.vitals for result in results])
        except (UserError, ClientLost, ValueError, LookupError, TypeError) as error:  # the last three: a message that is none
            channel.send("error", {"text": "; ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__})
            return
        self._send_results(channel, results, notes)

    def _send_results(self, channel: Channel, results: list[WorkerResult], notes: Mapping[str, JSON]) -> None:
        for result in results:
            channel.send("result", *pack_result(result))
        channel.send("end", notes)
        self.say(f"{channel.peer}: {sum(len(result.samples) for result in results):,} requests sent")


def _processes(spec: LoadSpec, asked: int) -> int:
    return max(1, min(asked, spec.concurrency or asked, len(spec.requests)))


def _check_reachable(target: Target) -> None:
    """UserError with what to do, before a load would fail request by request."""
    try:
        socket.create_connection((target.host, target.port), REACH_S).close()
    except OSError as error:
        advice = "a server in a container needs `container: {address: ...}`, one that was attached to must listen on more than the loopback"
        raise UserError(f"cannot reach the server at {target.authority}: {error.strerror or error}", advice=advice) from None


class Driver:
    """The process that measures, during a load: the `Principal` of the processes of this host. Raises an OSError once it is gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._told = monotonic()
        self.present = True

    def fileno(self) -> int:
        return self._channel.fileno()

    def tell(self, progress: Progress) -> None:
        """Send how far the load is."""
        if self.present:
            self._send("progress", asdict(progress))

    def turn(self) -> None:
        """Show that this host is alive, if nothing else has."""
        if monotonic() - self._told > ALIVE_S:
            self._send("alive")

    def await_start(self) -> int:
        self._send("ready")
        while (message := self._receive()).kind != "start":
            if message.kind == "stop":
                raise ClientLost(str(message.fields["reason"]))
        return int(message.fields["at"])

    def read_message(self) -> str | None:
        message = self._receive()
        return str(message.fields["reason"]) if message.kind == "stop" else None

    def _receive(self) -> Message:
        try:
            self._channel.arrives()
            message = self._channel.receive()
            if message.kind == "ping":
                self._channel.send("pong", {"at": monotonic_ns()})
        except EOFError:
            self.present = False
            raise ConnectionResetError("the run has ended") from None
        except OSError:
            self.present = False
            raise
        return message

    def _send(self, kind: str, fields: Mapping[str, Any] | None = None) -> None:
        self._told = monotonic()
        try:
            self._channel.send(kind, fields)
        except OSError:
            self.present = False
            raise
