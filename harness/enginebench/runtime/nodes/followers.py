"""The other nodes, as the node of rank 0 sees them: it listens, they come, and each does what it is asked and tells what happens there."""

from __future__ import annotations

import itertools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import AuthenticationError
from typing import Any, Self

from enginebench.runtime.exit_status import LaunchFailed
from enginebench.runtime.nodes.channel import Channel, Message, NodeLost

COME_S = 300.0
"""How long all nodes may take to come; a scheduler has given them to the unit by then."""
HELLO_S = 10.0


class NodeMissing(Exception):  # noqa: N818  # an event
    """Not all nodes came."""


class Follower:
    """Another node. A thread of its own receives what it tells."""

    def __init__(self, channel: Channel, hello: Message, on_lost: Callable[[Follower], None]) -> None:
        self._channel, self._on_lost = channel, on_lost
        self._numbers = itertools.count()
        self._replies: dict[int, Future[Message]] = {}
        self._listeners: dict[str, Callable[[Message | None], None]] = {}
        self._lock = threading.Lock()
        self.rank = int(hello["rank"])
        self.name: str = hello["name"] or f"node {self.rank}"
        self.machine: Mapping[str, Any] = hello["machine"]
        """Facts about it."""
        self.address = channel.peer
        self.lost = False
        self._thread = threading.Thread(target=self._receive, name=f"node {self.name}", daemon=True)
        self._thread.start()

    def ask(self, what: str, **details: Any) -> Message:
        """Have it do something, and wait for the reply. LaunchFailed if it refuses or is lost."""
        number, reply = next(self._numbers), Future[Message]()
        with self._lock:
            self._replies[number] = reply
            if self.lost:
                reply.set_exception(NodeLost())
        try:
            self._channel.send({"ask": what, "number": number, **details})
            answer = reply.result()
        except NodeLost:
            raise LaunchFailed(f"node {self.name} is lost") from None
        if "error" in answer:
            raise LaunchFailed(f"node {self.name}: {answer['error']}", answer.get("log_tail", ""))
        return answer

    def tell(self, what: str, **details: Any) -> None:
        """`ask`, without a reply; nothing happens if it is lost."""
        with suppress(NodeLost):
            self._channel.send({"ask": what, **details})

    def listen(self, tag: str, listener: Callable[[Message | None], None]) -> None:
        """What the node tells of a process goes there; None when the node is lost."""
        with self._lock:
            self._listeners[tag] = listener
            lost = self.lost
        if lost:
            listener(None)

    def close(self) -> None:
        """End the connection; the node ends what it runs."""
        self._on_lost = lambda _: None
        self._channel.close()
        self._thread.join(HELLO_S)

    def _receive(self) -> None:
        with suppress(NodeLost):
            while True:
                self._received(self._channel.receive())
        with self._lock:
            self.lost = True
            replies, listeners = list(self._replies.values()), list(self._listeners.values())
            self._replies.clear()
        self._on_lost(self)  # before those who look at its processes
        for reply in replies:
            if not reply.done():
                reply.set_exception(NodeLost())
        for listener in listeners:
            listener(None)

    def _received(self, message: Message) -> None:
        with self._lock:
            reply = self._replies.pop(message["number"], None) if "number" in message else None
            listener = self._listeners.get(message.get("tag", ""))
        if reply is not None:
            reply.set_result(message)
        elif listener is not None:
            listener(message)


class Followers(Sequence[Follower]):
    """All other nodes, by rank from 1. A context manager: leaving the block ends the connections."""

    def __init__(self, count: int, on_lost: Callable[[Follower], None] = lambda _: None, host: str = "") -> None:
        """count: how many. on_lost: called once, from another thread, when a node is lost. host: where to listen; '': everywhere."""
        self._count, self._on_lost = count, on_lost
        self._key = secrets.token_bytes(32)
        self._listener = socket.create_server((host, 0), backlog=count + 8)
        self._here: dict[int, Follower] = {}
        self._own = ""

    @property
    def meeting(self) -> dict[str, Any]:
        """What the others need to come; it has the key."""
        host, port = self._listener.getsockname()[:2]
        return {"host": "" if host == "0.0.0.0" else host, "port": port, "key": self._key.hex()}  # noqa: S104  # compared, not bound

    @property
    def address(self) -> str:
        """At which the others reach this node."""
        return self._own

    @property
    def lost(self) -> bool:
        """Whether one of them is lost."""
        return any(each.lost for each in self)

    def gather(self, timeout_s: float = COME_S) -> None:
        """Wait until all are connected. NodeMissing with the ranks that did not come."""
        until = time.monotonic() + timeout_s
        while len(self._here) < self._count:
            missing = ", ".join(str(rank) for rank in range(1, self._count + 1) if rank not in self._here)
            self._listener.settimeout(max(0.01, until - time.monotonic()))
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                here = f"{len(self._here) + 1} of {self._count + 1} nodes are here after {timeout_s:g} s"
                raise NodeMissing(f"{here}; missing: rank {missing}") from None
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        """Whoever comes must prove that it knows the key, within HELLO_S."""
        channel = Channel(sock)
        watch = threading.Timer(HELLO_S, channel.close)
        watch.daemon = True
        watch.start()
        try:
            channel.prove(self._key, first=True)
            hello = channel.receive()
        except (AuthenticationError, NodeLost):
            channel.close()
            return
        finally:
            watch.cancel()
        self._own = channel.own
        self._here[int(hello["rank"])] = Follower(channel, hello, self._on_lost)

    def ask(self, what: str, **details: Any) -> list[Message]:
        """Ask all of them at once; the replies by rank. LaunchFailed with the first reason."""
        with ThreadPoolExecutor(max(1, self._count)) as pool:
            return [future.result() for future in [pool.submit(each.ask, what, **details) for each in self]]

    def __len__(self) -> int:
        return len(self._here)

    def __getitem__(self, index: Any) -> Any:
        return [self._here[rank] for rank in sorted(self._here)][index]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for each in self:
            each.close()
