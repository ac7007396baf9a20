"""A client on another host, as the process that measures sees it: the connection to it, and its clock.

Does not know: which hosts there are, engines, loads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, TypeVar

from enginebench.domain import JSON
from enginebench.loadgen.clock import Reading, read_clock
from enginebench.loadgen.remote.channel import LOST, SILENCE_S, Channel, Message
from enginebench.loadgen.sharing import ClientLost

T = TypeVar("T")
LOOPBACK: Final = "127.0.0.1"
ANY: Final = "0.0.0.0"  # noqa: S104  # only where hosts reach this machine by several addresses
BUSY_S: Final = 10.0
"""For a client to notice that the run before has ended."""


class ClientHost:
    """A client on another host. A connection that was lost is opened again for the next load.

    Every method but `close` may raise ClientLost, with a sentence that names the host.
    """

    def __init__(self, host: str, port: int, token: str, about: Mapping[str, JSON]) -> None:
        """about: what the client is told of this process before anything else (see `Agent.meet`)."""
        self.name: Final = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.facts: Mapping[str, JSON] = {}
        """What the client says of its host."""
        self.channel: Channel | None = None
        """None: not connected."""
        self._where, self._token, self._about = (host, port), token, about

    def connect(self) -> Channel:
        until = time.monotonic() + BUSY_S
        while self.channel is None:
            reply = self._try(self._hello)
            if reply.kind == "hello":
                self.facts = reply.fields
            elif reply.kind != "busy" or time.monotonic() > until:
                raise ClientLost(f"client {self.name}: {reply.fields.get('text', reply.kind)}")
            else:
                time.sleep(0.1)
        return self.channel

    def call(self, action: Callable[[Channel], T]) -> T:
        """Do something with the open channel; if it is lost, it is closed."""
        channel = self.channel
        if channel is None:
            raise ClientLost(f"client {self.name} is not connected")
        return self._try(lambda: action(channel))

    def read_clock(self) -> Reading:
        return self.call(lambda channel: read_clock(lambda: _pong(channel)))

    def close(self) -> None:
        channel, self.channel = self.channel, None
        if channel is not None:
            with suppress(OSError):
                channel.close()

    def _hello(self) -> Message:
        channel = Channel.connect(*self._where)
        try:
            channel.prove(self._token, accepted=False)
            channel.send("hello", self._about)
            reply = channel.receive()
        except BaseException:
            channel.close()
            raise
        if reply.kind == "hello":
            self.channel = channel
        else:
            channel.close()
        return reply

    def _try(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except LOST as error:
            self.close()
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "it closed the connection"
            raise ClientLost(f"client {self.name} does not answer: {said}") from None
        except BaseException:  # Ctrl-C, maybe in the middle of a message
            self.close()
            raise


def _pong(channel: Channel) -> int:
    channel.send("ping")
    if not channel.arrives(SILENCE_S):
        raise OSError(f"no answer for {SILENCE_S:g} s")
    reply = channel.receive()
    if reply.kind != "pong":
        raise OSError(f"'{reply.kind}' instead of the time")
    return int(reply.fields["at"])


def is_local(host: str) -> bool:
    """Whether only this machine reaches this address."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def listen_host(hosts: Sequence[ClientHost]) -> str:
    """The address of this machine on which a server must listen so that all of them reach it: the loopback unless one is elsewhere. Raises
    ClientLost."""
    addresses = {host.connect().local_host for host in hosts}
    if all(map(is_local, addresses)):
        return LOOPBACK
    return addresses.pop() if len(addresses) == 1 else ANY
