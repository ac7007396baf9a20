"""The parent of one engine process: ends the engine's process tree on request, or when the harness has ended, and reports how it ended.

A program, not a module to import: `python -I -S guardian.py CONTROL REPORT ARGV...`. It imports little, so that it starts in about
20 ms. The engine inherits standard streams, working folder and environment unchanged. Does not know: enginebench, ports, readiness, logs.

CONTROL: read end of a pipe to which only the harness writes. The line `stop SECONDS` requests an orderly end; end of file means that the
harness has ended in any way, including kill -9.
REPORT: gets `started PID` or `failed REASON`, then `exit STATUS` (negative: a signal), and `stuck PID...` for processes that survived
SIGKILL (in a driver call that never returns).

On Linux this process is a subreaper: descendants that left the engine's process group, or that lost their parent, become its children. So
the whole tree has ended once no child is left, and the kernel sends SIGKILL to the engine if this process is killed. On other systems
(tested on Linux only) the tree is the engine's process group.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

HARNESS_EXIT_GRACE_S = 0.5  # after the harness has ended; short, because no result is needed any more
ORPHAN_GRACE_S = 1.0  # for processes that outlive the engine's main process
KILL_RETRY_S = 0.02
KILL_PATIENCE_S = 10.0
HEARTBEAT_S = 1.0  # interval of the check that the harness is still the parent; too rare to disturb a measurement
GROUP_POLL_S = 0.05


def prctl(option: int, value: int) -> None:
    """prctl(2) on Linux; does nothing on other systems."""
    if LINUX:
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def spawn(argv: list[str]) -> int:
    """Start the engine as leader of its own session and return its pid. Raises OSError if exec fails."""
    read, write = os.pipe()  # close-on-exec: end of file means that exec succeeded
    guardian = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)  # an ignored signal would stay ignored across exec
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == guardian:  # else the guardian ended before the line above took effect
                os.execvp(argv[0], argv)  # noqa: S606  (deliberately without a shell)
        except OSError as error:
            os.write(write, f"{argv[0]}: {error.strerror}".encode())
        finally:
            os._exit(127)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        reason = pipe.read()
    if reason:
        os.waitpid(pid, 0)
        raise OSError(reason.decode())
    return pid


def descendants(root: int) -> list[tuple[int, int]]:
    """(pid, process group) of all descendants of root, from one pass over /proc (Linux)."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  (pathlib would double the start-up time)
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                _, parent, group = stat.read().rpartition(b")")[2].split()[:3]  # the process name before ')' may contain anything
                children.setdefault(int(parent), []).append((int(name), int(group)))
    found: list[tuple[int, int]] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += [pid for pid, _ in below]
    return found


def signal_tree(engine: int, number: int) -> None:
    """Signal the engine's process group, then every descendant that has left the group."""
    tree = descendants(os.getpid()) if LINUX else [(engine, engine)]
    if any(group == engine for _, group in tree):  # the id of an empty group may have been reused
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(engine, number)
    for pid, group in tree:
        if group != engine:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def group_exists(group: int) -> bool:
    """Whether any process is left in the group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # on macOS, for a group of zombies
        return False
    return True


class Watch:
    """Supervises the engine from its start to the end of its last descendant."""

    def __init__(self, engine: int, control: int, report: int, wake: int) -> None:
        self.engine, self.control, self.report, self.wake = engine, control, report, wake
        self.harness = os.getppid()
        self.deadline: float | None = None  # time of the next SIGKILL; None: no end requested
        self.give_up: float | None = None  # set with the first SIGKILL
        self.poller = select.poll()
        self.poller.register(control, select.POLLIN)
        self.poller.register(wake, select.POLLIN)

    def run(self) -> None:
        """Return when the tree has ended, or when the remaining processes cannot be killed."""
        while self.reap():
            self.wait_for_event()
            now = time.monotonic()
            if self.give_up is not None and now >= self.give_up:
                stuck = descendants(os.getpid()) if LINUX else [(self.engine, self.engine)]
                self.send("stuck " + " ".join(str(pid) for pid, _ in stuck))
                return
            if self.deadline is not None and now >= self.deadline:
                signal_tree(self.engine, signal.SIGKILL)  # repeated, because a fork may have escaped
                self.deadline = now + KILL_RETRY_S
                self.give_up = self.give_up or now + KILL_PATIENCE_S

    def reap(self) -> bool:
        """Collect ended children. False once the whole tree has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return not LINUX and group_exists(self.engine)
            if pid == 0:
                return True
            if pid == self.engine:
                self.send(f"exit {os.waitstatus_to_exitcode(status)}")
                self.end(ORPHAN_GRACE_S)

    def wait_for_event(self) -> None:
        """Wait for a command, a signal or the next deadline."""
        wait_s = HEARTBEAT_S
        if self.deadline is not None:
            wait_s = min(wait_s, max(0.0, self.deadline - time.monotonic()))
            if not LINUX:  # the end of a process that is not a child sends no signal
                wait_s = min(wait_s, GROUP_POLL_S)
        for fd, _ in self.poller.poll(wait_s * 1000):
            data = os.read(fd, 4096)
            if fd == self.wake and signal.SIGTERM in data:
                self.end(HARNESS_EXIT_GRACE_S)
            elif fd == self.control:
                for line in data.splitlines():
                    self.end(float(line.removeprefix(b"stop ")))
                if not data:
                    self.poller.unregister(fd)
                    self.end(HARNESS_EXIT_GRACE_S)
        if os.getppid() != self.harness:  # a forked child of the harness may still hold the pipe open
            self.end(HARNESS_EXIT_GRACE_S)

    def end(self, grace_s: float) -> None:
        """Send SIGTERM to the tree and set the time of SIGKILL. Further calls can only make it earlier."""
        by = time.monotonic() + grace_s
        if self.deadline is None:
            signal_tree(self.engine, signal.SIGTERM)
            self.deadline = by
        elif self.give_up is None:
            self.deadline = min(self.deadline, by)

    def send(self, line: str) -> None:
        """Report to the harness, if it still runs."""
        with contextlib.suppress(OSError):
            os.write(self.report, f"{line}\n".encode())


def wake_pipe() -> int:
    """The read end of a pipe that gets one byte, the signal number, per SIGCHLD and SIGTERM. Signals of the terminal are ignored."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return read


def main(args: list[str]) -> int:
    """Start ARGV and wait until its tree has ended."""
    control, report, argv = int(args[0]), int(args[1]), args[2:]
    for fd in (control, report):
        os.set_inheritable(fd, False)  # noqa: FBT003  (a positional-only parameter)
    wake = wake_pipe()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        engine = spawn(argv)
    except OSError as error:
        os.write(report, f"failed {error}\n".encode())
        return 1
    watch = Watch(engine, control, report, wake)
    watch.send(f"started {engine}")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):  # only the engine may hold its streams, so that a reader sees end of file when the engine ends
        os.dup2(null, fd)
    watch.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
