"""The transport for plain TCP on Linux: reads have kernel time stamps, and the usual events are handled in C.

`receive.c` (loaded by `library`) reads all ready connections of a load in one call, stores time stamps and texts of expected events, and
passes on all other data. Without the library, or with TLS, the event loop's connections are used instead (`factory`). Does not know:
requests, or what an event means.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from array import array
from typing import Any, Final, get_args

from enginebench.loadgen.health import Acks, Stamps
from enginebench.loadgen.template import Pattern
from enginebench.loadgen.transport.connection import Connection
from enginebench.loadgen.transport.library import RECORD, WAITS, Handle

MAX_HELD: Final = 512
"""Most recognised events that are stored in C per connection."""
_MAX_UNSTAMPED: Final = 0.01
"""Largest share of reads without a kernel time stamp at which `Receiver.stamps` is still 'kernel'."""
_NODELAY_EVENTS: Final = 2
"""Events sent before an acknowledgement that show TCP_NODELAY. One would suffice in theory; two guard against errors."""


class Receiver:
    """All connections of one load, on the running event loop. Raises OSError if epoll is unavailable."""

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

    async def connect(self, address: str, port: int, connection: Connection) -> None:
        """Connect to an address and call `connection.connection_made`. Raises OSError."""
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self.add_loop_waiters(1)
        try:
            sock.settimeout(0)
            await self.loop.sock_connect(sock, (address, port))
            transport = Transport(self, sock, connection)
        except BaseException:
            sock.close()
            raise
        finally:
            self.add_loop_waiters(-1)
        self._transports[sock.fileno()] = transport
        connection.connection_made(transport)

    def free_until(self, at_ns: int) -> None:
        """Before this time the event loop has no other work than serving connections."""
        self._shared.free_until_ns = at_ns

    def add_loop_waiters(self, change: int) -> None:
        """Add (1) or remove (-1) an operation that waits for the event loop. While there are any, `_ready` returns to the loop at once."""
        self._shared.loop_waiters += change

    @property
    def pending(self) -> int:
        return int(self._shared.pending)

    @property
    def unstamped(self) -> int:
        """Reads without a kernel time stamp; they have the time of the read."""
        return int(self._shared.unstamped)

    @property
    def server_nodelay(self) -> bool:
        """Probing showed on every connection that could show it that the server sends without waiting for acknowledgements."""
        return bool(self._shared.nodelay_events >= _NODELAY_EVENTS and not self._shared.nagle_connections)

    @property
    def stamps(self) -> Stamps:
        """Source of the time stamps: 'kernel' if nearly all reads had one."""
        return "kernel" if self._shared.reads and self.unstamped <= _MAX_UNSTAMPED * self._shared.reads else "loop"

    @property
    def waits_ms(self) -> tuple[float, float, float] | None:
        """How long data waited until they were read (p50, p99, max); None without kernel time stamps."""
        return (self.wait_ms(0.50), self.wait_ms(0.99), self.wait_ms(1.0)) if self.stamps == "kernel" else None

    def wait_ms(self, quantile: float) -> float:
        counts, seen = self._shared.waits, 0
        for step in range(WAITS):
            seen += counts[step]
            if counts[step] and seen >= quantile * self._shared.reads:
                return _wait_us(step + 1) / 1e3
        return 0.0

    @property
    def last_event_ns(self) -> int:
        return int(self._shared.last_event_ns)

    def take(self, fd: int) -> tuple[array[int], array[int], bytes] | None:
        count = self.library.eb_take(self.handle, fd)
        if not count:
            return None
        shared, stamps, lengths = self._shared, array("q"), array("i")
        stamps.frombytes(ctypes.string_at(shared.stamps, 8 * count))
        lengths.frombytes(ctypes.string_at(shared.lengths, 4 * count))
        return stamps, lengths, ctypes.string_at(shared.texts, shared.text_bytes)

    def forget(self, fd: int) -> None:
        self.library.eb_remove(self.handle, fd)
        self._transports.pop(fd, None)

    def close(self) -> None:
        self.loop.remove_reader(self.library.eb_fd(self.handle))
        for transport in list(self._transports.values()):
            transport.abort()
        self._records.release()
        self._shared = Handle.from_buffer_copy(self._shared)  # totals stay readable
        self.library.eb_close(self.handle)

    def _ready(self) -> None:
        count = self.library.eb_drain(self.handle)
        if not count:
            return
        for fd, state, stamp, at, size, held in RECORD.iter_unpack(bytes(self._records[: count * RECORD.size])):
            transport = self._transports.get(fd)
            if transport is None:  # closed by an earlier record
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
            except Exception as error:  # noqa: BLE001 -- like asyncio: an error of one connection must not affect others
                self.loop.call_exception_handler({"message": "a connection failed", "exception": error, "transport": transport})
                transport.discard(error)


def _wait_us(step: int) -> int:
    """Lower bound of a step of the wait-time histogram; see `count_wait` in receive.c."""
    return step if step < 8 else (8 + step % 8) << (step // 8 - 1)


class Transport(asyncio.Transport):
    """One connection: the part of asyncio's interface that `Connection` uses, and `expect`."""

    def __init__(self, receiver: Receiver, sock: socket.socket, connection: Connection) -> None:
        super().__init__({"socket": sock})
        self.connection = connection
        self._receiver = receiver
        self._sock = sock
        self._fd = sock.fileno()
        self._unsent = b""
        self._pattern: Pattern | None = None
        self._open = True
        capacity = MAX_HELD - self._fd % (MAX_HELD // 2)  # differs, so that synchronised streams do not all fill up at once
        error = receiver.library.eb_add(receiver.handle, self._fd, capacity)
        if error:
            raise OSError(-error, os.strerror(-error))

    def expect(self, pattern: Pattern | None, rest: bytes = b"") -> bool:
        """Set the pattern of the next events; None: unknown. rest: bytes that may be the start of one. Returns whether rest was taken."""
        if (pattern is self._pattern and not rest) or not self._open:
            return not rest
        self._pattern = pattern
        head, closing = (None, b"") if pattern is None else (pattern.template.head, pattern.closing)
        arguments = head, len(head or b""), closing, len(closing), rest, len(rest)
        return bool(self._receiver.library.eb_expect(self._receiver.handle, self._fd, *arguments))

    def deliver(self) -> None:
        taken = self._receiver.take(self._fd)
        if taken is not None:
            self.connection.recognised(*taken)

    def write(self, data: Any) -> None:
        if not self._open:
            return
        if self._unsent:
            self._unsent += data
        else:
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
        self._receiver.add_loop_waiters(1)
        self._receiver.loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        self._send(self._stop_writing())

    def _stop_writing(self) -> bytes:
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self._receiver.loop.remove_writer(self._fd)
            self._receiver.add_loop_waiters(-1)
        return unsent

    def abort(self) -> None:
        self.end(None)

    def is_closing(self) -> bool:
        return not self._open

    def end(self, error: Exception | None) -> None:
        """Deliver the stored events and close; connection_lost is called with error in the loop's next iteration."""
        if self._open:
            self.deliver()
        self.discard(error)

    def discard(self, error: Exception | None) -> None:
        if not self._open:
            return
        self._open = False
        self._stop_writing()
        self._receiver.forget(self._fd)
        self._sock.close()
        self._receiver.loop.call_soon(self.connection.connection_lost, error)
