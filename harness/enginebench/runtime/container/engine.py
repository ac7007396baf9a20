"""One engine in a container: created, given its files, started, watched, and removed with all it holds.

Has the manners of `EngineProcess`, so that whoever waits for engines need not know which of the two he waits for. Knows nothing of
images, networks or ports: its arguments come ready-made from `container_spec`. The daemon may die at any moment; the engine is lost then.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import psutil

from enginebench.adapter import Unsupported
from enginebench.runtime.container.client import Client, elsewhere, sentences
from enginebench.runtime.exit_status import ending_in_words, log_tail

STOP_PATIENCE_S = 15.0
"""Beyond the grace, for a daemon that is slow to say that a container has ended and is removed."""
SECRET = b"***"
NOT_FOUND = 127
"""What the daemon's init ends with when it cannot execute the program."""


class EngineContainer:
    """A started container. A thread follows its output and its end; `alive` and `stop` are safe from any thread."""

    def __init__(self, client: Client, container: Any, log: Path, secrets: Iterable[str] = ()) -> None:
        self._client, self._container = client, container
        self._secrets = tuple(secret.encode() for secret in secrets if secret)
        self._ended = threading.Event()
        self._stopping = False
        self._ender: threading.Thread | None = None
        self._report, self._reported = os.pipe()
        self.id: str = container.id
        self.log = log
        self.exit_code: int | None = None
        """As a shell has it: 128 + the signal's number for a killed one; None while it runs, or when the daemon is gone."""
        self.out_of_memory = False
        self.stuck: str | None = None
        """Why it could not be removed."""
        self._follower = threading.Thread(target=self._follow, name=f"log of {container.name}", daemon=True)

    @classmethod
    def start(
        cls, client: Client, arguments: Mapping[str, Any], *, files: Mapping[PurePosixPath, str], folder: PurePosixPath, log: Path,
        secrets: Iterable[str] = (),
    ) -> EngineContainer:  # fmt: skip
        """Create the container, put the files into it (absolute paths inside) and start it. Raises LaunchFailed or Unsupported."""
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        with sentences():
            container = client.containers.create(**arguments)
        engine = cls(client, container, log, secrets)
        try:
            with sentences():
                _check_devices(container, arguments)
                container.put_archive("/", _archive(files, folder))
                container.start()
        except BaseException:
            engine._ended.set()
            engine.stop(0)
            raise
        engine._follower.start()
        return engine

    # -- while it runs -------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the container runs."""
        return not self._ended.is_set()

    @property
    def ending(self) -> str | None:
        """How it ended, in words; None while it runs."""
        if self.alive:
            return None
        if self.exit_code is None:
            return "lost with its Docker daemon"
        if self.out_of_memory and not self._stopping:
            return f"ran out of memory: the kernel killed it at its container's limit (exit code {self.exit_code}, OOMKilled)"
        signalled = 128 < self.exit_code <= 192
        words = ending_in_words(128 - self.exit_code if signalled else self.exit_code, asked=self._stopping)
        return words + (" (the image has no such program?)" if self.exit_code == NOT_FOUND else "")

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the container ends or the time is over; returns whether it has ended."""
        return self._ended.wait(max(0.0, timeout_s))

    def fileno(self) -> int:
        """What becomes readable when the container ends."""
        return self._report

    @property
    def handle(self) -> tuple[Literal["container"], str]:
        """The container's id."""
        return "container", self.id

    def pids(self) -> list[int]:
        """Its processes; none once it has ended, or where the daemon's machine is another one."""
        if elsewhere():
            return []
        with contextlib.suppress(Exception):  # a container that is ending has no processes to list
            self._container.reload()
            if first := int(self._container.attrs["State"]["Pid"]):  # its init, of which all the others are children
                return sorted([first, *(child.pid for child in psutil.Process(first).children(recursive=True))])
        return []

    def published(self) -> dict[int, tuple[str, int]]:
        """Port inside -> address and port of the daemon's machine."""
        with sentences():
            self._container.reload()
        ports = self._container.attrs["NetworkSettings"]["Ports"] or {}
        return {int(name.split("/")[0]): (to[0]["HostIp"], int(to[0]["HostPort"])) for name, to in ports.items() if to}

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log, without colours and with progress bars reduced to their last state."""
        return log_tail(self.log, lines)

    def _follow(self) -> None:
        """Copy the output into the log until it ends, then learn how. Every exit of the daemon's ends it as well."""
        with contextlib.suppress(Exception), self.log.open("ab", buffering=0) as sink:  # a stream breaks off with the daemon: `wait` tells
            for chunk in self._container.logs(stream=True, follow=True):
                sink.write(self._without_secrets(chunk))
        with contextlib.suppress(Exception):
            self.exit_code = int(self._container.wait()["StatusCode"])
            self._container.reload()
            self.out_of_memory = bool(self._container.attrs["State"].get("OOMKilled"))
        self._ended.set()
        with contextlib.suppress(OSError):
            os.write(self._reported, b"x")

    def _without_secrets(self, chunk: bytes) -> bytes:
        for secret in self._secrets:
            chunk = chunk.replace(secret, SECRET)
        return chunk

    # -- the end -------------------------------------------------------------------------------------------------------------

    def ask_to_stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM now, SIGKILL after grace_s, then removal. Returns at once, so that several can end side by side."""
        if self._ender is None:
            self._stopping = self.alive
            self._ender = threading.Thread(target=self._end, args=(grace_s,), name=f"end of {self._container.name}", daemon=True)
            self._ender.start()

    def stop(self, grace_s: float = 10.0) -> None:
        """End it and remove it. Returns when it is gone, or when the daemon does not answer. Calling it again does nothing."""
        self.ask_to_stop(grace_s)
        assert self._ender is not None  # noqa: S101  # set just before
        self._ender.join(grace_s + STOP_PATIENCE_S)

    def _end(self, grace_s: float) -> None:
        from docker.errors import DockerException, NotFound
        from requests.exceptions import RequestException

        try:
            if self.alive:
                self._container.stop(timeout=round(grace_s))
                self._ended.wait(STOP_PATIENCE_S)  # the log is complete then
            self._remove()
        except NotFound:
            pass
        except (DockerException, RequestException) as error:
            self.stuck = f"container {self._container.name} could not be removed: {error}; `bench clean` does, once the daemon is back"
            with contextlib.suppress(OSError), self.log.open("a") as sink:
                sink.write(f"\nenginebench: {self.stuck}\n")

    def _remove(self) -> None:
        """Podman keeps a container whose network others have joined until they are gone, which end at the same time."""
        from docker.errors import APIError

        until = time.monotonic() + STOP_PATIENCE_S
        while True:
            try:
                self._container.remove(force=True, v=True)
            except APIError as error:
                if "dependent containers" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return


def _check_devices(container: Any, arguments: Mapping[str, Any]) -> None:
    """A daemon that does not know requests for GPUs, as older Podmans, ignores them, and the engine would find none."""
    if not arguments.get("device_requests"):
        return
    container.reload()
    given = container.attrs["HostConfig"]
    if not given.get("DeviceRequests") and not given.get("Devices"):
        raise Unsupported("GPUs were asked for, and the daemon ignores that: an older Podman hands out none over this interface")


def _archive(files: Mapping[PurePosixPath, str], folder: PurePosixPath) -> bytes:
    """A tar of these files and of the working folder, which everybody may write to: any user may run the engine."""
    sink = io.BytesIO()
    folders = {parent for path in (*files, folder / "x") for parent in path.parents if parent != PurePosixPath("/")}
    ours = {path for path in folders if path.is_relative_to(PurePosixPath(*folder.parts[:2]))}
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for path in sorted(folders):
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o1777 if path in ours else 0o755, int(time.time())
            tar.addfile(entry)
        for path, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(data), 0o644, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return sink.getvalue()
