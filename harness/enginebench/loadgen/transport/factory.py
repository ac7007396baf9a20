"""Where a load's connections come from: the receiver in C, whose reads the kernel stamps, or the event loop, which also does TLS.

Does not know: requests, or which connection is opened when.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, Protocol

from enginebench.loadgen.health import Acks, Stamps
from enginebench.loadgen.request import Target
from enginebench.loadgen.transport.connection import Connection
from enginebench.loadgen.transport.library import library
from enginebench.loadgen.transport.receiver import Receiver


class TransportFactory(Protocol):
    """All connections of one load."""

    async def connect(self, address: str, port: int, connection: Connection) -> None:
        """Open a connection to an address and hand its transport over. Raises OSError."""
        ...

    @property
    def stamps(self) -> Stamps:
        """Whose time stamps the reads had."""
        ...

    @property
    def unstamped(self) -> int:
        """Reads that the kernel should have stamped and did not; they have the time of the read."""
        ...

    @property
    def acks(self) -> Acks:
        """When reads were acknowledged."""
        ...

    @property
    def sends_on(self) -> bool:
        """While probing the server was seen to send events although those before were not acknowledged."""
        ...

    @property
    def waits_ms(self) -> tuple[float, float, float] | None:
        """How long reads had waited (p50, p99, longest); None where nobody can tell."""
        ...

    @property
    def pending(self) -> int:
        """Events that no exchange knows of yet."""
        ...

    @property
    def heard_ns(self) -> int:
        """Arrival of the last of those events; 0 before the first."""
        ...

    def free_until(self, at_ns: int) -> None:
        """The event loop has nothing to do before this instant but to serve connections."""
        ...

    def close(self) -> None:
        """After the last connection."""
        ...


class EventLoopTransports:
    """The event loop's own connections, stamped when it comes to them."""

    stamps: Final = "loop"
    unstamped: Final = 0
    acks: Final = "usual"
    sends_on: Final = False
    waits_ms: Final = None
    pending: Final = 0
    heard_ns: Final = 0

    def __init__(self, target: Target) -> None:
        self._tls = ssl.create_default_context() if target.tls else None
        self._name = target.host if target.tls else None

    async def connect(self, address: str, port: int, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, address, port, ssl=self._tls, server_hostname=self._name)

    def free_until(self, at_ns: int) -> None:
        """Reads take turns with everything else in any case."""

    def close(self) -> None:
        """Nothing is shared."""


def open_transports(target: Target, stamps: Stamps, acks: Acks = "usual") -> TransportFactory:
    """The kernel's stamps where they are wanted and can be had, on the running event loop."""
    found = library() if stamps == "kernel" and not target.tls else None
    return Receiver(found, acks) if found is not None else EventLoopTransports(target)
