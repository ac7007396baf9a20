"""Opens the connections of a load: with the C receiver and kernel time stamps, or with the event loop, which also supports TLS.

Does not know: requests, or when connections are opened.
"""

import asyncio
import ssl
from typing import Final, TypeAlias

from enginebench.loadgen.health import Acks, Stamps
from enginebench.loadgen.request import Target
from enginebench.loadgen.transport.connection import Connection
from enginebench.loadgen.transport.library import library
from enginebench.loadgen.transport.receiver import Receiver


class EventLoopTransports:
    """Connections of the event loop, with time stamps taken at the read. See `Receiver` for the members."""

    stamps: Final = "loop"
    unstamped: Final = 0
    acks: Final = "usual"
    server_nodelay: Final = False
    waits_ms: Final = None
    pending: Final = 0
    last_event_ns: Final = 0

    def __init__(self, target: Target) -> None:
        self._tls = ssl.create_default_context(cafile=target.ca_file) if target.tls else None
        self._name = target.host if target.tls else None

    async def connect(self, address: str, port: int, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, address, port, ssl=self._tls, server_hostname=self._name)

    def free_until(self, at_ns: int) -> None:
        """Nothing to do: the event loop interleaves reads with other work."""

    def close(self) -> None:
        """Nothing to do: there are no shared resources."""


Transports: TypeAlias = Receiver | EventLoopTransports
"""The connections of one load."""


def open_transports(target: Target, stamps: Stamps, acks: Acks = "usual") -> Transports:
    """The C receiver if kernel time stamps are requested and available, else the event loop's connections."""
    found = library() if stamps == "kernel" and not target.tls else None
    return Receiver(found, acks) if found is not None else EventLoopTransports(target)
