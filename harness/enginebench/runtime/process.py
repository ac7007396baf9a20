"""One engine as an operating system process: started under a guardian, watched, and ended together with all its descendants.

It also ends if the harness ends in any way (see `guardian`). Tested on Linux only. On macOS, descendants that leave the engine's process
group are not found, and after a kill -9 of its guardian an engine runs until the harness notices.
"""

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Literal, Self

import psutil

from enginebench.adapter import Launch, Site
from enginebench.runtime import guardian, leftovers
from enginebench.runtime.environment import environment
from enginebench.runtime.exit_status import LaunchFailed, describe_exit, log_tail
from enginebench.runtime.lease import Lease

END_PATIENCE_S = guardian.KILL_PATIENCE_S + 5.0


class EngineProcess:
    """A started engine. A context manager: leaving the block ends the whole process tree. `alive` is thread-safe."""

    def __init__(self, popen: subprocess.Popen[bytes], control: int, report: int, log: Path, tag: str, lease: Lease) -> None:
        self._guardian, self._control, self._report, self._tag, self._lease = popen, control, report, tag, lease
        self._lock = threading.Lock()
        self._pending = b""
        self._reported = False  # the guardian has ended, so no more reports follow
        self._closed = self._stopping = False
        self.log = log
        self.pid = 0
        """The engine's main process, leader of its process group."""
        self.exit_code: int | None = None
        """As in `subprocess`; None while it runs, or if the guardian was killed before it could report."""
        self.failure: str | None = None
        self.stuck: tuple[int, ...] = ()
        """Processes that survived SIGKILL."""

    @classmethod
    def start(cls, launch: Launch, site: Site, *, log: Path, tag: str, piped: bool = False) -> Self:
        """Write launch.files, start the engine in site.folder and return at once.
        tag: unique to this launch (`leftovers.unique_tag`). piped: stdin and stdout are pipes to the harness, and only stderr goes to the
        log. Raises LaunchFailed if the program cannot be executed."""
        _write_files(launch, site)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        lease = leftovers.reserve(tag)
        try:
            popen, control, report = _start_guardian(launch, site, log, tag, piped=piped)
        except BaseException:
            lease.release()
            raise
        process = cls(popen, control, report, log, tag, lease)
        try:
            process._await_start()
        except BaseException:
            process.stop(0)
            raise
        return process

    def _await_start(self) -> None:
        while self.pid == 0 and not self._reported:
            self._read_report(None)
        if self.pid == 0:
            raise LaunchFailed(self.failure or "the guardian ended before it started the engine", self.log_tail())
        leftovers.renew(self._lease, guardian=self._guardian.pid, engine=self.pid)

    # -- while it runs -------------------------------------------------------------------------------------------------------

    @property
    def stdin(self) -> IO[bytes] | None:
        """The engine's standard input if it was started with piped=True."""
        return self._guardian.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """The engine's standard output if it was started with piped=True. Ends when the process tree has ended."""
        return self._guardian.stdout

    @property
    def alive(self) -> bool:
        """Whether the engine's main process runs."""
        self._read_report(0)
        return self.exit_code is None and not self._reported

    @property
    def ending(self) -> str | None:
        """How the engine ended, in words; None while it runs."""
        if self.alive:
            return None
        if self.exit_code is None:
            return "lost with its guardian"
        return describe_exit(self.exit_code, requested=self._stopping)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the engine ends or the time is over. Returns whether it has ended."""
        until = time.monotonic() + timeout_s
        while self.alive and (left := until - time.monotonic()) > 0:
            self._read_report(left)
        return not self.alive

    def fileno(self) -> int:
        """A file descriptor that becomes readable when `alive` may have changed, for waiting on several engines at once."""
        return self._report

    @property
    def handle(self) -> tuple[Literal["processes"], str]:
        """The guardian. Its descendants are the engine's process tree."""
        return "processes", str(self._guardian.pid)

    def pids(self) -> list[int]:
        """The engine's process and its running descendants; empty once all have ended."""
        try:
            found = {child.pid for child in psutil.Process(self._guardian.pid).children(recursive=True)}
        except psutil.Error:
            found = set()
        if sys.platform != "linux":  # no subreaper: find a worker that lost its parent by its process group
            for pid in psutil.pids():
                with contextlib.suppress(OSError):
                    if os.getpgid(pid) == self.pid:
                        found.add(pid)
        return sorted(found)

    def log_tail(self, lines: int = 60) -> str:
        """See `exit_status.log_tail`."""
        return log_tail(self.log, lines)

    # -- the end -------------------------------------------------------------------------------------------------------------

    def ask_to_stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM now, SIGKILL after grace_s. Returns at once, so that several engines can end in parallel."""
        if self._closed:
            return
        self._stopping = self._stopping or self.alive
        with contextlib.suppress(OSError):  # the guardian has already ended
            os.write(self._control, f"stop {grace_s}\n".encode())

    def stop(self, grace_s: float = 10.0) -> None:
        """`ask_to_stop`, and return when the whole process tree has ended. Further calls do nothing."""
        if self._closed:
            return
        self.ask_to_stop(grace_s)
        until = time.monotonic() + grace_s + END_PATIENCE_S
        while not self._reported and (left := until - time.monotonic()) > 0:
            self._read_report(left)
        if not self._reported:
            self._guardian.kill()
        self._guardian.wait()
        self._close()

    def _close(self) -> None:
        with self._lock:
            if self._closed:  # by another thread: the file descriptors may already be reused
                return
            self._closed = True
            os.close(self._control)
            os.close(self._report)
        for stream in (self.stdin, self.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent input of an engine that has ended
                    stream.close()
        if self._guardian.returncode < 0:  # killed before its work was done
            leftovers.end_marked(self._tag)
        if not self.stuck:  # else the lease stays, and the next run tries again
            self._lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- reports of the guardian -----------------------------------------------------------------------------------------------

    def _read_report(self, timeout_s: float | None) -> None:
        """Process reports of the guardian; wait for one at most timeout_s (None: for ever)."""
        if self._reported or self._closed:
            return
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        poller.poll(None if timeout_s is None else timeout_s * 1000)
        with self._lock:
            if self._closed:  # by another thread, while this one waited
                return
            try:
                data = os.read(self._report, 4096)
            except BlockingIOError:
                return
            *lines, self._pending = (self._pending + data).split(b"\n")
            for line in lines:
                self._process_report(line.decode())
            self._reported = not data
        if self._reported and self.exit_code is None and self.failure is None:
            leftovers.end_marked(self._tag)  # the guardian was killed, so it cannot end the engine's descendants

    def _process_report(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "started":
            self.pid = int(rest)
        elif word == "failed":
            self.failure = rest
        elif word == "exit":
            self.exit_code = int(rest)
        elif word == "stuck":
            self.stuck = tuple(int(pid) for pid in rest.split())


def _start_guardian(launch: Launch, site: Site, log: Path, tag: str, *, piped: bool) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start the guardian. Returns it with the harness's ends of its control pipe and its report pipe (non-blocking)."""
    control_read, control = os.pipe()
    report, report_write = os.pipe()
    command = [sys.executable, "-I", "-S", guardian.__file__, str(control_read), str(report_write), *launch.argv]
    try:
        with log.open("ab") as sink:  # append: a child that reopens /dev/stderr must not overwrite the beginning
            popen = subprocess.Popen(
                command, stdin=subprocess.PIPE if piped else subprocess.DEVNULL, stdout=subprocess.PIPE if piped else sink, stderr=sink,
                cwd=site.folder, env=environment(launch, tag), pass_fds=(control_read, report_write),
                start_new_session=True,  # Ctrl-C in the terminal reaches only the harness
            )  # fmt: skip
    except BaseException:
        os.close(control)
        os.close(report)
        raise
    finally:
        os.close(control_read)
        os.close(report_write)
    os.set_blocking(report, False)
    return popen, control, report


def _write_files(launch: Launch, site: Site) -> None:
    site.folder.mkdir(parents=True, exist_ok=True)
    for name, text in launch.files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"invalid launch file {name!r}: must be below the launch's folder")
        path = site.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
