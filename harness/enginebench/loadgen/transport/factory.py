"""Opens the connections of a load: with the C receiver and kernel time stamps, or with the event loop, which also supports TLS.

Does not know: requests, or when connections are opened.
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
    """The connections of one load."""

    async def connect(self, address: str, port: int, connection: Connection) -> None:
        """Connect to an address and call `connection.connection_made`. Raises OSError."""
        ...

    @property
    def stamps(self) -> Stamps:
        """Source of the time stamps."""
        ...

    @property
    def unstamped(self) -> int:
        """Reads without a kernel time stamp although these were enabled; they have the time of the read."""
        ...

    @property
    def acks(self) -> Acks:
        """When reads were acknowledged."""
        ...

    @property
    def server_nodelay(self) -> bool:
        """Probing showed that the server sends without waiting for acknowledgements."""
        ...

    @property
    def waits_ms(self) -> tuple[float, float, float] | None:
        """How long data waited until they were read (p50, p99, max); None if unknown."""
        ...

    @property
    def pending(self) -> int:
        """Recognised events that no exchange has yet."""
        ...

    @property
    def last_event_ns(self) -> int:
        """Arrival of the last recognised event; 0 before the first."""
        ...

    def free_until(self, at_ns: int) -> None:
        """Before this time the event loop has no other work than serving connections."""
        ...

    def close(self) -> None:
        """Release shared resources. Call after the last connection has closed."""
        ...


class EventLoopTransports:
    """Connections of the event loop, with time stamps taken at the read."""

    stamps: Final = "loop"
    unstamped: Final = 0
    acks: Final = "usual"
    server_nodelay: Final = False
    waits_ms: Final = None
    pending: Final = 0
    last_event_ns: Final = 0

    def __init__(self, target: Target) -> None:
        self._tls = ssl.create_default_context() if target.tls else None
        self._name = target.host if target.tls else None

    async def connect(self, address: str, port: int, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, address, port, ssl=self._tls, server_hostname=self._name)

    def free_until(self, at_ns: int) -> None:
        """Nothing to do: the event loop interleaves reads with other work."""

    def close(self) -> None:
        """Nothing to do: there are no shared resources."""


def open_transports(target: Target, stamps: Stamps, acks: Acks = "usual") -> TransportFactory:
    """The C receiver if kernel time stamps are requested and available, else the event loop's connections."""
    found = library() if stamps == "kernel" and not target.tls else None
    return Receiver(found, acks) if found is not None else EventLoopTransports(target)
