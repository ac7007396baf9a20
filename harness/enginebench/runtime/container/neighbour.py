"""Engines in a container beside this one, as in a pod of Kubernetes: both share network, processes and a folder, but no Docker daemon.

The other container runs `supervise.sh`, which starts what this module puts into the shared folder. It is used in place of a daemon where
the environment variable ENGINEBENCH_NEIGHBOUR names that folder.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import psutil

from enginebench.adapter import WORKERS, Launch, Site
from enginebench.domain.container import Container
from enginebench.runtime.container.spec import LOOPBACK, OFFLINE
from enginebench.runtime.environment import ADDED
from enginebench.runtime.exit_status import LaunchFailed, describe_shell_exit, log_tail
from enginebench.runtime.leftovers import MARKER
from enginebench.runtime.place import Started
from enginebench.runtime.readiness import Proof, free_ports, verify_listener

VARIABLE = "ENGINEBENCH_NEIGHBOUR"
SUPERVISOR = Path(__file__).with_name("supervise.sh")
POLL_S = 0.05
BEAT_S = 30.0
"""After so long without a sign of life the other container counts as ended. It gives five a second."""
STOP_PATIENCE_S = 10.0


def shared_folder() -> Path | None:
    """The folder that this container shares with the engine's; None where engines run in containers of a daemon."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


class NeighbourEngine:
    """A started engine; `EngineProcess` explains the members."""

    def __init__(self, folder: Path, shared: Path, log: Path) -> None:
        self._folder, self._shared = folder, shared
        self._ended = threading.Event()
        self._stopping = False
        self._report, self._reported = os.pipe()
        self.log = log
        self.exit_code: int | None = None
        """As in a shell; None while it runs, and if its container has ended."""
        self._watcher = threading.Thread(target=self._watch, name=f"watch {folder.name}", daemon=True)
        self._watcher.start()

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    @property
    def ending(self) -> str | None:
        if self.alive:
            return None
        if self.exit_code is None:
            return "lost with its container"
        return describe_shell_exit(self.exit_code, requested=self._stopping)

    def wait(self, timeout_s: float) -> bool:
        return self._ended.wait(max(0.0, timeout_s))

    def fileno(self) -> int:
        return self._report

    @property
    def handle(self) -> tuple[Literal["processes"], str]:
        """The engine's process, as both containers number it."""
        return "processes", str(self._pid or 0)

    def pids(self) -> list[int]:
        with contextlib.suppress(psutil.Error):
            if pid := self._pid:
                return sorted([pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))])
        return []

    def log_tail(self, lines: int = 60) -> str:
        return log_tail(self.log, lines)

    def ask_to_stop(self, grace_s: float = 10.0) -> None:
        if not self.alive or self._stopping:
            return
        self._stopping = True
        (self._folder / "stop").touch()
        threading.Timer(grace_s, (self._folder / "kill").touch).start()

    def stop(self, grace_s: float = 10.0) -> None:
        self.ask_to_stop(grace_s)
        self._ended.wait(grace_s + STOP_PATIENCE_S)

    @property
    def _pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self._folder / "pid").read_text())
        return None

    def _watch(self) -> None:
        """Until the engine, or the container it is in, has ended."""
        beat, heard = "", time.monotonic()
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.exit_code = int((self._folder / "exit").read_text())
                break
            if (now := _read(self._shared / "beat")) != beat:
                beat, heard = now, time.monotonic()
            if time.monotonic() - heard > BEAT_S:
                break
            time.sleep(POLL_S)
        self._ended.set()
        os.write(self._reported, b"x")


class Neighbour:
    """The other container as a `Place`."""

    def __init__(self, shared: Path, container: Container, site: Site) -> None:
        self.site = site
        self._shared, self._container = shared, container

    def start(self, launch: Launch, site: Site, *, log: Path, tag: str, piped: bool = False) -> NeighbourEngine:
        """Have one server started. LaunchFailed if its log is where the other container cannot write it."""
        if piped:
            raise ValueError("a container cannot be piped: in-process batches run as processes")
        if not log.resolve().is_relative_to(self._shared.resolve()):
            raise LaunchFailed(f"the log {log} is not in {self._shared}, which the engine's container shares")
        _make_open(site.folder)
        for name, text in launch.files.items():
            file = site.folder / name
            _make_open(file.parent)
            file.write_text(text)
        _make_open(log.parent)
        log.write_bytes(b"")
        log.chmod(0o666)  # the engine may run as any user
        folder = self._shared / "launches" / tag
        _make_open(folder)
        part = folder / "command.part"
        part.write_text(self._command(launch, site, log, folder))
        part.rename(folder / "command")
        return NeighbourEngine(folder, self._shared, log)

    def _command(self, launch: Launch, site: Site, log: Path, folder: Path) -> str:
        """A script that writes its process id and becomes the server."""
        env = environment(self._container, launch.env, folder.name)
        words = [text.replace(str(WORKERS), str(self._shared / "workers")) for text in launch.argv]
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in env.items())
        output, pid, home = (shlex.quote(str(path)) for path in (log, folder / "pid", site.folder))
        known = f"echo $$ >{pid}.part && mv {pid}.part {pid}"
        return f"exec >>{output} 2>&1 </dev/null\n{known}\n{exports}\ncd {home} || exit 1\nexec {shlex.join(words)}\n"

    def reach(self, port: int) -> tuple[str, int]:
        return self.site.host, port

    def prove(self, port: int, started: Started) -> Proof:
        """Look the listener up, if the containers share their process ids."""
        if not (pids := started.pids()):
            return Proof("unknown", "the processes of the engine's container are not visible from here")
        return verify_listener(port, pids, self.site.host)

    def close(self) -> None:
        """Nothing was created beside the files of the launch, which end with the pod."""


def environment(container: Container, env: Mapping[str, str], tag: str) -> dict[str, str]:
    """Variables in addition to those of the engine's container, among which are the secrets."""
    return {**ADDED, **(OFFLINE if container.offline else {}), **env, **container.env, MARKER: tag}


def open_neighbour(shared: Path, container: Container, checkpoint: str, extra_ports: int, name: str, *, draft: str = "") -> Neighbour:
    """The other container for one launch. checkpoint, draft: paths that both containers have, or hub ids; draft: '' for none."""
    workers = shared / "workers"
    workers.mkdir(parents=True, exist_ok=True)
    for file in sorted(WORKERS.glob("*.py")):
        (workers / file.name).write_text(file.read_text())
    port, *extra = free_ports(LOOPBACK, 1 + extra_ports)
    return Neighbour(shared, container, Site(LOOPBACK, port, shared / "site" / name, checkpoint, tuple(extra), draft))


def _make_open(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)


def _read(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text()
    return ""
