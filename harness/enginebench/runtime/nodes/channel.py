"""A connection between two nodes that carries JSON messages. Both ends prove that they know the same key; nothing is encrypted."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from enginebench.machine import peer

Message: TypeAlias = Mapping[str, Any]

MOST_BYTES = 64 << 20


class NodeLost(Exception):  # noqa: N818  # an event
    """The connection has ended."""


class Channel:
    """One end. Messages may be sent from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        peer.watch_silence(sock)
        self.own, self.peer = peer.addresses(sock)
        self._connection = Connection(sock.detach())
        self._sending = threading.Lock()

    def prove(self, key: bytes, *, first: bool) -> None:
        """Exchange proofs; first: whether this end asks first. Raises AuthenticationError, or NodeLost."""
        try:
            peer.exchange_proofs(self._connection, key, asks_first=first)
        except (EOFError, OSError) as error:
            raise NodeLost(str(error)) from None

    def send(self, message: Message) -> None:
        """NodeLost if the other end is gone."""
        data = json.dumps(message).encode()
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except (OSError, ValueError) as error:
            raise NodeLost(str(error)) from None

    def receive(self) -> Message:
        """The next message. NodeLost if there will be none."""
        try:
            found: Message = json.loads(self._connection.recv_bytes(MOST_BYTES))
        except (EOFError, OSError, ValueError) as error:
            raise NodeLost(str(error)) from None
        return found

    def close(self) -> None:
        """Also wakes a thread that receives."""
        with suppress(OSError, ValueError), socket.socket(fileno=os.dup(self._connection.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._connection.close()


def connect(host: str, port: int, key: bytes, timeout_s: float) -> Channel:
    """The end of a node that was asked to come. Raises OSError, AuthenticationError or NodeLost."""
    channel = Channel(socket.create_connection((host, port), timeout=timeout_s))
    try:
        channel.prove(key, first=False)
    except BaseException:
        channel.close()
        raise
    return channel
