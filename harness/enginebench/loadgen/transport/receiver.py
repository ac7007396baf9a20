"""Connections whose reads the kernel stamps and whose usual events never reach Python: the transport for plain TCP on Linux.

`receive.c` (see `compiled`) reads all connections of a load that are ready in one call, keeps stamps and texts of the events that are
expected, and hands up the rest. Does not know: requests, or what an event means. Where the library was not built, or TLS is in between,
connections are the event loop's own, which stamps a read when its turn comes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from array import array
from typing import Any, Final, Protocol, get_args

from enginebench.loadgen.health import Acks, Stamps
from enginebench.loadgen.template import Pattern
from enginebench.loadgen.transport.library import RECORD, WAITS, Handle

MOST_HELD: Final = 512
"""Recognised events of a connection that are taken together."""
_FEW_UNSTAMPED: Final = 0.01
"""Share of reads."""
_SENDS_ON: Final = 2
"""Events that were not waited for. Once would prove it, if nothing else were wrong."""


class Receiving(Protocol):
    """What a receiver tells a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport to write to."""
        ...

    def recognised(self, stamps: array[int], lengths: array[int], texts: bytes) -> None:
        """Expected events: arrival of each (ns) and length of its text (bytes), and their texts one after another."""
        ...

    def received(self, stamp: int, data: bytes) -> None:
        """Anything else."""
        ...

    def examine(self, stamp: int) -> None:
        """Many events were recognised; time to ask whether they make sense."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """The end; nothing follows."""
        ...


class Receiver:
    """All connections of one load, on the running event loop. Raises OSError if the system refuses it."""

    def __init__(self, found: ctypes.CDLL, acks: Acks = "usual") -> None:
        self.library: Final = found
        self.acks: Final = acks
        self.handle: Final = found.eb_open()
        if not self.handle:
            raise OSError("no epoll instance")
        self.loop: Final = asyncio.get_running_loop()
        self._shared = self.handle.contents
        self._shared.acks = get_args(Acks).index(acks)
        self._records = memoryview(self._shared).cast("B")[Handle.records.offset :]
        self._transports: dict[int, Transport] = {}
        self.loop.add_reader(found.eb_fd(self.handle), self._ready)

    async def connect(self, address: str, port: int, connection: Receiving) -> None:
        """Open a connection and hand its transport over. Raises OSError."""
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self.hurry(1)
        try:
            sock.settimeout(0)
            await self.loop.sock_connect(sock, (address, port))
            transport = Transport(self, sock, connection)
        except BaseException:
            sock.close()
            raise
        finally:
            self.hurry(-1)
        self._transports[sock.fileno()] = transport
        connection.connection_made(transport)

    def free_until(self, at_ns: int) -> None:
        """The event loop has nothing to do before this instant but to serve connections."""
        self._shared.free_until_ns = at_ns

    def hurry(self, change: int) -> None:
        """More (1) or fewer (-1) that wait for the event loop; while there are any it gets its turn at once."""
        self._shared.hurried += change

    @property
    def pending(self) -> int:
        """Events that have been recognised and are still held."""
        return int(self._shared.pending)

    @property
    def reads(self) -> int:
        """Of all connections."""
        return int(self._shared.reads)

    @property
    def unstamped(self) -> int:
        """Reads without a time of the kernel's; they have the time of the read."""
        return int(self._shared.unstamped)

    @property
    def sends_on(self) -> bool:
        """While probing the server was seen to send events although those before were not acknowledged, wherever that could be seen."""
        return bool(self._shared.unawaited >= _SENDS_ON and not self._shared.awaiting)

    @property
    def stamps(self) -> Stamps:
        """Whose time stamps the reads had: the kernel's, if nearly all did."""
        return "kernel" if self.reads and self.unstamped <= _FEW_UNSTAMPED * self.reads else "loop"

    @property
    def waits_ms(self) -> tuple[float, float, float] | None:
        """How long reads had waited (p50, p99, longest), where the kernel's stamps tell."""
        return (self.wait_ms(0.50), self.wait_ms(0.99), self.wait_ms(1.0)) if self.stamps == "kernel" else None

    def wait_ms(self, share: float) -> float:
        """How long this share of the reads had waited since their arrival, at most; to an eighth."""
        counts, seen = self._shared.waits, 0
        for step in range(WAITS):
            seen += counts[step]
            if counts[step] and seen >= share * self._shared.reads:
                return _wait_us(step + 1) / 1e3
        return 0.0

    @property
    def heard_ns(self) -> int:
        """Arrival of the last event that was recognised, on any connection; 0 before the first."""
        return int(self._shared.heard_ns)

    def taken(self, fd: int) -> tuple[array[int], array[int], bytes] | None:
        """What is held of a connection: see `Receiving.recognised`."""
        count = self.library.eb_take(self.handle, fd)
        if not count:
            return None
        shared, stamps, lengths = self._shared, array("q"), array("i")
        stamps.frombytes(ctypes.string_at(shared.stamps, 8 * count))
        lengths.frombytes(ctypes.string_at(shared.lengths, 4 * count))
        return stamps, lengths, ctypes.string_at(shared.texts, shared.text_bytes)

    def forget(self, fd: int) -> None:
        """Read this connection no more."""
        self.library.eb_remove(self.handle, fd)
        self._transports.pop(fd, None)

    def close(self) -> None:
        """After the last connection."""
        self.loop.remove_reader(self.library.eb_fd(self.handle))
        for transport in list(self._transports.values()):
            transport.abort()
        self._records.release()
        self._shared = Handle.from_buffer_copy(self._shared)  # totals can still be asked for
        self.library.eb_close(self.handle)

    def _ready(self) -> None:
        count = self.library.eb_drain(self.handle)
        if not count:
            return
        for fd, state, stamp, at, size, held in RECORD.iter_unpack(bytes(self._records[: count * RECORD.size])):
            transport = self._transports.get(fd)
            if transport is None:  # gone since, through an earlier record
                continue
            try:
                if held:
                    transport.deliver()
                if size:
                    transport.connection.received(stamp, ctypes.string_at(at, size))
                elif state == 0:
                    transport.connection.examine(stamp)
                else:
                    transport.end(None if state > 0 else OSError(-state, os.strerror(-state)))
            except Exception as error:  # noqa: BLE001 -- as asyncio does it: one connection's trouble is not another's
                self.loop.call_exception_handler({"message": "a connection failed", "exception": error, "transport": transport})
                transport.discard(error)


def _wait_us(step: int) -> int:
    """Where a step of the histogram of waits begins; see `note_wait` in receive.c."""
    return step if step < 8 else (8 + step % 8) << (step // 8 - 1)


class Transport(asyncio.Transport):
    """One connection, as much of asyncio's interface as `Connection` uses, and `expect`."""

    def __init__(self, receiver: Receiver, sock: socket.socket, connection: Receiving) -> None:
        super().__init__({"socket": sock})
        self.connection = connection
        self._receiver = receiver
        self._sock = sock
        self._fd = sock.fileno()
        self._unsent = b""
        self._pattern: Pattern | None = None
        self._open = True
        error = receiver.library.eb_add(receiver.handle, self._fd, MOST_HELD - self._fd % (MOST_HELD // 2))  # not all full at once
        if error:
            raise OSError(-error, os.strerror(-error))

    def expect(self, pattern: Pattern | None, rest: bytes = b"") -> bool:
        """What the next events look like; None: not known. rest: bytes that may be the start of one; whether they are and were taken."""
        if (pattern is self._pattern and not rest) or not self._open:
            return not rest
        self._pattern = pattern
        head, closing = (None, b"") if pattern is None else (pattern.template.head, pattern.closing)
        arguments = head, len(head or b""), closing, len(closing), rest, len(rest)
        return bool(self._receiver.library.eb_expect(self._receiver.handle, self._fd, *arguments))

    def deliver(self) -> None:
        """Hand over what is held."""
        taken = self._receiver.taken(self._fd)
        if taken is not None:
            self.connection.recognised(*taken)

    def write(self, data: Any) -> None:
        """Send at once, or as soon as the system takes it."""
        if not self._open:
            return
        if self._unsent:
            self._unsent += data
            return
        self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.end(error)
            return
        if sent == len(data):
            return
        self._unsent = data[sent:]
        self._receiver.hurry(1)
        self._receiver.loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        self._send(self._stop_writing())

    def _stop_writing(self) -> bytes:
        """What is unsent, which from now on nobody sends."""
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self._receiver.loop.remove_writer(self._fd)
            self._receiver.hurry(-1)
        return unsent

    def abort(self) -> None:
        """Close at once; the connection hears of it in the loop's next turn."""
        self.end(None)

    def is_closing(self) -> bool:
        return not self._open

    def end(self, error: Exception | None) -> None:
        """Close; the connection has had everything that came, and hears the reason in the loop's next turn."""
        if self._open:
            self.deliver()
        self.discard(error)

    def discard(self, error: Exception | None) -> None:
        """Close without handing over what is held."""
        if not self._open:
            return
        self._open = False
        self._stop_writing()
        self._receiver.forget(self._fd)
        self._sock.close()
        self._receiver.loop.call_soon(self.connection.connection_lost, error)
