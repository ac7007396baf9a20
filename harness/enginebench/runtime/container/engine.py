"""One engine in a container, with the interface of `EngineProcess`. If the daemon ends, the engine counts as lost."""

import contextlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import psutil

from enginebench.adapter import Unsupported
from enginebench.runtime.container.client import Client, remote_host, translated_errors
from enginebench.runtime.exit_status import describe_shell_exit, log_tail

STOP_PATIENCE_S = 15.0
"""Time beyond the grace period, for a daemon that is slow to report the end and the removal of a container."""
LOG_GRACE_S = 5.0
"""Time for the rest of the output after the container's end: a daemon may keep a followed log open."""
SECRET = b"***"
NOT_FOUND = 127
"""Exit code of the daemon's init if it cannot execute the program."""


class EngineContainer:
    """A started container. A thread copies its output and waits for its end. `alive` and `stop` are thread-safe."""

    def __init__(self, client: Client, container: Any, log: Path, secrets: Iterable[str] = ()) -> None:
        self._client, self._container = client, container
        self._secrets = tuple(secret.encode() for secret in secrets if secret)
        self._ended = threading.Event()
        self._stopping = False
        self._ender: threading.Thread | None = None
        self._report, self._reported = os.pipe()
        self._copied = 0
        """Bytes of the output that are in the log."""
        self.id: str = container.id
        self.log = log
        self.exit_code: int | None = None
        """As in a shell: 128 + the signal's number if killed. None while it runs, or if the daemon has ended."""
        self.out_of_memory = False
        self.stuck: str | None = None
        """Why the container could not be removed."""
        self._follower = threading.Thread(target=self._follow, name=f"log of {container.name}", daemon=True)

    @classmethod
    def start(
        cls, client: Client, arguments: Mapping[str, Any], *, files: Mapping[PurePosixPath, str], folder: PurePosixPath, log: Path,
        secrets: Iterable[str] = (),
    ) -> Self:  # fmt: skip
        """Create the container, copy the files to their absolute paths inside, start it. Raises LaunchFailed or Unsupported."""
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        with translated_errors():
            container = client.containers.create(**arguments)
        engine = cls(client, container, log, secrets)
        try:
            with translated_errors():
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
        """How the engine ended, in words; None while it runs."""
        if self.alive:
            return None
        if self.exit_code is None:
            return "lost with its Docker daemon"
        if self.out_of_memory and not self._stopping:
            return f"ran out of memory: the kernel killed it at its container's limit (exit code {self.exit_code}, OOMKilled)"
        words = describe_shell_exit(self.exit_code, requested=self._stopping)
        return words + (" (the image does not contain the program?)" if self.exit_code == NOT_FOUND else "")

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the container ends or the time is over. Returns whether it has ended."""
        return self._ended.wait(max(0.0, timeout_s))

    def fileno(self) -> int:
        """A file descriptor that becomes readable when the container ends."""
        return self._report

    @property
    def handle(self) -> tuple[Literal["container"], str]:
        """The container's id."""
        return "container", self.id

    def pids(self) -> list[int]:
        """The container's processes; empty if it has ended or the daemon is on another machine."""
        if remote_host():
            return []
        with contextlib.suppress(Exception):  # the container may be ending
            self._container.reload()
            if first := int(self._container.attrs["State"]["Pid"]):  # the init, parent of all others
                return sorted([first, *(child.pid for child in psutil.Process(first).children(recursive=True))])
        return []

    def published(self) -> dict[int, tuple[str, int]]:
        """Port in the container -> address and port on the daemon's machine."""
        with translated_errors():
            self._container.reload()
        ports = self._container.attrs["NetworkSettings"]["Ports"] or {}
        return {int(name.split("/")[0]): (to[0]["HostIp"], int(to[0]["HostPort"])) for name, to in ports.items() if to}

    def log_tail(self, lines: int = 60) -> str:
        """See `exit_status.log_tail`."""
        return log_tail(self.log, lines)

    def _follow(self) -> None:
        """Wait for the container's end, or the daemon's, and read the exit code. The log is complete then, or LOG_GRACE_S have passed."""
        copier = threading.Thread(target=self._copy_output, name=f"output of {self._container.name}", daemon=True)
        copier.start()
        with contextlib.suppress(Exception):  # the daemon ended
            self.exit_code = int(self._container.wait()["StatusCode"])
            copier.join(LOG_GRACE_S)
            if not copier.is_alive():
                self._complete_log()
            self._container.reload()
            self.out_of_memory = bool(self._container.attrs["State"].get("OOMKilled"))
        self._ended.set()
        with contextlib.suppress(OSError):
            os.write(self._reported, b"x")

    def _copy_output(self) -> None:
        with contextlib.suppress(Exception), self.log.open("ab", buffering=0) as sink:  # Exception: the daemon ended
            for chunk in self._container.logs(stream=True, follow=True):
                self._copied += len(chunk)
                sink.write(self._without_secrets(chunk))

    def _complete_log(self) -> None:
        """Copy what the stream has missed: Podman may end it before the last output."""
        with contextlib.suppress(Exception), self.log.open("ab", buffering=0) as sink:  # Exception: the daemon ended
            for chunk in after(self._copied, self._container.logs(stream=True)):
                sink.write(self._without_secrets(chunk))

    def _without_secrets(self, chunk: bytes) -> bytes:
        for secret in self._secrets:
            chunk = chunk.replace(secret, SECRET)
        return chunk

    # -- the end -------------------------------------------------------------------------------------------------------------

    def ask_to_stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM now, SIGKILL after grace_s, then removal. Returns at once, so that several containers can end in parallel."""
        if self._ender is None:
            self._stopping = self.alive
            self._ender = threading.Thread(target=self._end, args=(grace_s,), name=f"end of {self._container.name}", daemon=True)
            self._ender.start()

    def stop(self, grace_s: float = 10.0) -> None:
        """`ask_to_stop`, and return when the container is removed or the daemon does not respond. Further calls do nothing."""
        self.ask_to_stop(grace_s)
        assert self._ender is not None  # noqa: S101  # set just before
        self._ender.join(grace_s + STOP_PATIENCE_S)

    def _end(self, grace_s: float) -> None:
        from docker.errors import DockerException, NotFound
        from requests.exceptions import RequestException

        try:
            if self.alive:
                self._container.stop(timeout=round(grace_s))
                self._ended.wait(STOP_PATIENCE_S)  # until the log is complete
            self._remove()
        except NotFound:
            pass
        except (DockerException, RequestException) as error:
            self.stuck = f"could not remove container {self._container.name}: {error}; run `bench clean` when the daemon is back"
            with contextlib.suppress(OSError), self.log.open("a") as sink:
                sink.write(f"\nenginebench: {self.stuck}\n")

    def _remove(self) -> None:
        """Remove the container. Podman refuses while other containers use its network, so retry while these end."""
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


def after(copied: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks without their first `copied` bytes."""
    for chunk in chunks:
        if rest := chunk[copied:]:
            yield rest
        copied = max(0, copied - len(chunk))


def _check_devices(container: Any, arguments: Mapping[str, Any]) -> None:
    """Raise Unsupported if the daemon ignores GPU requests, as older Podman versions do."""
    if not arguments.get("device_requests"):
        return
    container.reload()
    given = container.attrs["HostConfig"]
    if not given.get("DeviceRequests") and not given.get("Devices"):
        raise Unsupported("the daemon ignored the requested GPUs: older Podman versions do not support it over this interface")


def _archive(files: Mapping[PurePosixPath, str], folder: PurePosixPath) -> bytes:
    """A tar of the files and the working folder. The folder is writable for all users, as the engine may run as any of them."""
    sink = io.BytesIO()
    folders = {parent for path in (*files, folder / "x") for parent in path.parents if parent != PurePosixPath("/")}
    writable = {path for path in folders if path.is_relative_to(PurePosixPath(*folder.parts[:2]))}
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for path in sorted(folders):
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o1777 if path in writable else 0o755, int(time.time())
            tar.addfile(entry)
        for path, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(data), 0o644, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
        end = tar.offset + 2 * tarfile.BLOCKSIZE
    return sink.getvalue()[:end]  # Podman stops reading at the two empty blocks: padding after them may meet a closed pipe
