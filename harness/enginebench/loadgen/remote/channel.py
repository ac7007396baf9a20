"""A connection between the process that measures and a client on another host: messages of JSON with bytes behind them, both ends proven.

Both know a token, and each proves it to the other by answering a challenge (HMAC). Nothing is unpickled, and nothing is encrypted. Does not
know: loads, clocks.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from enginebench.machine import peer

CONNECT_S: Final = 10.0
SILENCE_S: Final = float(peer.SILENCE_S)
"""A message that began must go on within this time, and what was sent must be acknowledged."""
_FIRST_BYTES: Final = 1 << 16
"""Longest message before the other end has proven itself, and of its first one after that."""

LOST: Final = (OSError, EOFError)
"""What every method may raise when the connection is broken, or the other end does not keep to the protocol."""


@dataclass(frozen=True)
class Message:
    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    blob: bytes = b""


class Channel:
    """One connection. Every method may raise what is in LOST."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.watch_silence(connected)
        for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connected.setsockopt(socket.SOL_SOCKET, limit, struct.pack("@ll", int(SILENCE_S), 0))
        self.local_host, self.peer = peer.addresses(connected)
        connected.settimeout(None)  # of Python's own; the limits above stay
        self._pipe = Connection(connected.detach())

    @classmethod
    def connect(cls, host: str, port: int) -> Channel:
        return cls(socket.create_connection((host, port), timeout=CONNECT_S))

    def prove(self, token: str, *, accepted: bool) -> None:
        """Prove to the other end that this one has the token, and let it do the same. accepted: this end was connected to. A
        PermissionError if it has another one, or speaks something else."""
        try:
            peer.exchange_proofs(self._pipe, token.encode(), asks_first=accepted)
        except (AuthenticationError, AssertionError):  # AssertionError: it speaks something else
            raise PermissionError("the tokens differ") from None

    def fileno(self) -> int:
        return self._pipe.fileno()

    def send(self, kind: str, fields: Mapping[str, Any] | None = None, blob: bytes = b"") -> None:
        """fields: what JSON can hold, and sets of text, which arrive as sorted lists."""
        self._pipe.send_bytes(json.dumps([kind, bool(blob), fields or {}], default=sorted, separators=(",", ":")).encode())
        if blob:
            self._pipe.send_bytes(blob)

    def receive(self, *, first: bool = False) -> Message:
        """The next message, which must have begun to arrive or do so soon."""
        try:
            kind, more, fields = json.loads(self._pipe.recv_bytes(_FIRST_BYTES if first else None))
        except (ValueError, TypeError) as error:
            raise OSError(f"a message that is none: {error}") from None
        return Message(str(kind), dict(fields), self._pipe.recv_bytes() if more else b"")

    def arrives(self, within_s: float | None = None) -> bool:
        """Wait until a message, or the end of the connection, is there; False: not within this time."""
        return bool(wait([self._pipe], within_s))

    def close(self) -> None:
        self._pipe.close()
