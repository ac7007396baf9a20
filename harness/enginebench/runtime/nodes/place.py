"""Another node as a `Place`: what is started there looks like a process here, with its log as a file here."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Literal

from enginebench.adapter import Launch, Site
from enginebench.domain import plain
from enginebench.runtime.exit_status import log_tail
from enginebench.runtime.nodes.channel import Message
from enginebench.runtime.nodes.followers import Follower
from enginebench.runtime.place import Started
from enginebench.runtime.readiness import Proof

STOP_PATIENCE_S = 15.0


class RemoteProcess:
    """A started process of another node; `EngineProcess` explains the members."""

    def __init__(self, node: Follower, tag: str, log: Path) -> None:
        self._node, self._tag = node, tag
        self._ended = threading.Event()
        self._report, self._reported = os.pipe()
        self._ending: str | None = None
        self._asked = False
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        node.listen(tag, self._told)

    def _told(self, message: Message | None) -> None:
        if self._ended.is_set():
            return
        if message is None:
            self._end(f"lost with its node {self._node.name}")
        elif "log" in message:
            with self.log.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(message["log"])
        elif "ending" in message:
            self._end(f"{message['ending']} on {self._node.name}")

    def _end(self, how: str) -> None:
        self._ending = how
        self._ended.set()
        os.write(self._reported, b"x")

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    @property
    def ending(self) -> str | None:
        return self._ending

    def wait(self, timeout_s: float) -> bool:
        return self._ended.wait(max(0.0, timeout_s))

    def fileno(self) -> int:
        return self._report

    @property
    def handle(self) -> tuple[Literal["elsewhere"], str]:
        return "elsewhere", self._node.name

    def pids(self) -> list[int]:
        """None of this machine."""
        return []

    def log_tail(self, lines: int = 60) -> str:
        return log_tail(self.log, lines)

    def ask_to_stop(self, grace_s: float = 10.0) -> None:
        if not self._asked:  # also one that has ended may have left descendants
            self._asked = True
            self._node.tell("stop", tag=self._tag, grace_s=grace_s)

    def stop(self, grace_s: float = 10.0) -> None:
        self.ask_to_stop(grace_s)
        self._ended.wait(grace_s + STOP_PATIENCE_S)

    def prove(self, port: int) -> Proof:
        found = self._node.ask("prove", tag=self._tag, port=port)
        return Proof(found["kind"], found["text"])


class OtherNode:
    """Starts processes on another node."""

    def __init__(self, site: Site, node: Follower) -> None:
        """site: as of that node (`Site.on`)."""
        self.site, self._node = site, node

    def start(self, launch: Launch, site: Site, *, log: Path, tag: str, piped: bool = False) -> RemoteProcess:
        """Start one process there. LaunchFailed if it cannot be executed, or if the node is lost."""
        if piped:
            raise ValueError("only a process of this node can be piped")
        process = RemoteProcess(self._node, tag, log)
        self._node.ask(
            "start", tag=tag, folder=site.folder.name, argv=list(launch.argv), env=plain(dict(launch.env)), files=plain(dict(launch.files))
        )
        return process

    def reach(self, port: int) -> tuple[str, int]:
        return self.site.host, port

    def prove(self, port: int, started: Started) -> Proof:
        """Asked of the node itself."""
        return started.prove(port) if isinstance(started, RemoteProcess) else Proof("unknown", "it was started elsewhere")

    def close(self) -> None:
        """What was made there ends with the connection."""
