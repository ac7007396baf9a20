"""The processes that another node starts for rank 0: started when asked, their logs sent as they grow, ended when the connection ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from enginebench.adapter import Launch, Site
from enginebench.runtime.nodes.channel import Channel, Message, NodeLost
from enginebench.runtime.process import EngineProcess
from enginebench.runtime.readiness import verify_listener

EVERY_S = 0.1
GRACE_S = 10.0


class FollowerProcesses:
    """What runs here for rank 0. `do` serves its asks; `stop` ends all of it."""

    def __init__(self, channel: Channel, folder: Path) -> None:
        self._channel, self._folder = channel, folder
        self._processes: dict[str, EngineProcess] = {}
        self._watchers: list[threading.Thread] = []
        self._lock = threading.Lock()

    def start(self, ask: Message) -> None:
        """Start a process here; its log and its end are told."""
        tag: str = ask["tag"]
        launch = Launch(tuple(ask["argv"]), "", ask["env"], ask["files"])
        log = self._folder / f"{tag}.log"
        site = Site(self._channel.own, 0, self._folder / ask["folder"], "")
        process = self._processes[tag] = EngineProcess.start(launch, site, log=log, tag=tag)
        watcher = threading.Thread(target=self._watch, args=(tag, process, log), name=f"watch {tag}", daemon=True)
        self._watchers.append(watcher)
        watcher.start()

    def stop_one(self, ask: Message) -> None:
        """End one, with its descendants; that it has ended is told."""
        with self._lock:  # closed once, by one thread
            process = self._processes.pop(ask["tag"], None)
        if process is not None:
            process.stop(ask["grace_s"])

    def prove(self, ask: Message) -> Mapping[str, Any]:
        """Whether one listens on a port of this node."""
        proof = verify_listener(ask["port"], self._processes[ask["tag"]].pids(), self._channel.own)
        return {"kind": proof.kind, "text": proof.text}

    def stop(self) -> None:
        """End all, in parallel."""
        with self._lock:
            processes = list(self._processes.values())
            self._processes.clear()
        with ExitStack() as stack:
            for process in processes:
                stack.callback(process.stop, GRACE_S)
                process.ask_to_stop(GRACE_S)
        for watcher in self._watchers:
            watcher.join(GRACE_S)

    def _watch(self, tag: str, process: EngineProcess, log: Path) -> None:
        """Until it ends."""
        with log.open("rb") as file, suppress(NodeLost):
            while True:
                ended = process.wait(EVERY_S)
                if data := file.read():
                    self._channel.send({"tag": tag, "log": data.decode(errors="surrogateescape")})
                if ended:
                    break
            self._channel.send({"tag": tag, "ending": process.ending})
