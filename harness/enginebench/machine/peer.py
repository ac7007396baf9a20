"""A TCP connection between two machines: the other end is noticed when it is gone, and each end proves that it knows the same key.

Nothing is encrypted. Does not know: what is sent.
"""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Final

SILENCE_S: Final = 30
"""After so long without a word of its kernel the other end counts as gone."""
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": SILENCE_S * 1000}


def addresses(connected: socket.socket) -> tuple[str, str]:
    """Address of this machine by which the other reaches it, and the other's. One that came through an IPv6 socket as IPv4 is IPv4."""
    own, other = connected.getsockname()[0], connected.getpeername()[0]
    return own.removeprefix("::ffff:"), other.removeprefix("::ffff:")


def watch_silence(connected: socket.socket) -> None:
    """A machine that loses its power sends no end of the connection: let the kernel ask for it."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def exchange_proofs(connection: Connection, key: bytes, *, asks_first: bool) -> None:
    """Answer a challenge and set one (HMAC). Raises AuthenticationError, AssertionError (it speaks something else), EOFError or OSError."""
    for asks in (asks_first, not asks_first):
        (deliver_challenge if asks else answer_challenge)(connection, key)
