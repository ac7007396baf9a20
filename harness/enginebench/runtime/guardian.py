"""The parent of one engine process: ends the engine's whole tree when told to, or when the harness is gone, and says how it ended.

Knows nothing of enginebench, ports, readiness or logs. It is a program, not a module to import: `python -I -S guardian.py
CONTROL REPORT ARGV...`, and it imports only what starts in about 20 ms. Standard streams, working folder and environment are
inherited by the engine as they are.

CONTROL is the read end of a pipe whose write end only the harness holds: a line `stop SECONDS` asks for an orderly end; end of
file means that the harness ended in whatever way, kill -9 included. REPORT is written with `started PID` or `failed WHY`, then
`exit STATUS` (negative: a signal), and `stuck PID...` if something survived SIGKILL (a driver call that never returns).

On Linux this process is a subreaper: descendants that left the engine's group or whose parent died become its children, so
"no child left" means that the whole tree is gone; and the engine gets SIGKILL from the kernel should this process be killed.
On other systems (checked on Linux only) the tree is the engine's process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

HARNESS_GONE_GRACE_S = 0.5  # nobody is left to read a result; an orderly end is a courtesy
ORPHAN_GRACE_S = 1.0  # what outlives the engine's main process
KILL_RETRY_S = 0.02
KILL_PATIENCE_S = 10.0
HEARTBEAT_S = 1.0  # how often to look whether the harness is still the parent; too rare to disturb a measurement
GROUP_POLL_S = 0.05


def prctl(option: int, value: int) -> None:
    """prctl(2) on Linux; nothing elsewhere."""
    if LINUX:
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def spawn(argv: list[str]) -> int:
    """Start the engine as leader of a session of its own; returns its pid. Raises OSError with the reason when exec fails."""
    read, write = os.pipe()  # close-on-exec: end of file says that exec succeeded
    guardian = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)  # an ignored signal would stay ignored across exec
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == guardian:  # otherwise it died before the line above took effect
                os.execvp(argv[0], argv)  # noqa: S606  (no shell is the point)
        except OSError as error:
            os.write(write, f"{argv[0]}: {error.strerror}".encode())
        finally:
            os._exit(127)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        why = pipe.read()
    if why:
        os.waitpid(pid, 0)
        raise OSError(why.decode())
    return pid


def descendants(root: int) -> list[tuple[int, int]]:
    """(pid, process group) of everything below root, from one pass over /proc (Linux)."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  (pathlib would double the time to start)
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                _, parent, group = stat.read().rpartition(b")")[2].split()[:3]  # the name before ')' may hold anything
                children.setdefault(int(parent), []).append((int(name), int(group)))
    found: list[tuple[int, int]] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += [pid for pid, _ in below]
    return found


def signal_tree(engine: int, number: int) -> None:
    """Signal the engine's group at once, then every descendant that left the group."""
    tree = descendants(os.getpid()) if LINUX else [(engine, engine)]
    if any(group == engine for _, group in tree):  # an empty group's id may belong to somebody else by now
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
    except PermissionError:  # macOS says so for a group of zombies
        return False
    return True


class Watch:
    """The engine's life from its start to the end of its last descendant."""

    def __init__(self, engine: int, control: int, report: int, wake: int) -> None:
        self.engine, self.control, self.report, self.wake = engine, control, report, wake
        self.harness = os.getppid()
        self.deadline: float | None = None  # when patience ends; None: nobody asked for an end
        self.give_up: float | None = None  # set with the first SIGKILL
        self.poller = select.poll()
        self.poller.register(control, select.POLLIN)
        self.poller.register(wake, select.POLLIN)

    def run(self) -> None:
        """Returns when the tree is gone, or when what is left cannot be killed."""
        while self.reap():
            self.listen()
            now = time.monotonic()
            if self.give_up is not None and now >= self.give_up:
                stuck = descendants(os.getpid()) if LINUX else [(self.engine, self.engine)]
                self.say("stuck " + " ".join(str(pid) for pid, _ in stuck))
                return
            if self.deadline is not None and now >= self.deadline:
                signal_tree(self.engine, signal.SIGKILL)  # again and again: a fork may have slipped through
                self.deadline = now + KILL_RETRY_S
                self.give_up = self.give_up or now + KILL_PATIENCE_S

    def reap(self) -> bool:
        """Collect what has ended; False once nothing of the tree is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return not LINUX and group_exists(self.engine)
            if pid == 0:
                return True
            if pid == self.engine:
                self.say(f"exit {os.waitstatus_to_exitcode(status)}")
                self.end(ORPHAN_GRACE_S)

    def listen(self) -> None:
        """Wait for an order, a signal or the next deadline."""
        wait_s = HEARTBEAT_S
        if self.deadline is not None:
            wait_s = min(wait_s, max(0.0, self.deadline - time.monotonic()))
            if not LINUX:  # the end of a process that is not our child wakes nobody
                wait_s = min(wait_s, GROUP_POLL_S)
        for fd, _ in self.poller.poll(wait_s * 1000):
            data = os.read(fd, 4096)
            if fd == self.wake and signal.SIGTERM in data:
                self.end(HARNESS_GONE_GRACE_S)
            elif fd == self.control:
                for line in data.splitlines():
                    self.end(float(line.removeprefix(b"stop ")))
                if not data:
                    self.poller.unregister(fd)
                    self.end(HARNESS_GONE_GRACE_S)
        if os.getppid() != self.harness:  # a forked child of the harness may still hold the pipe open
            self.end(HARNESS_GONE_GRACE_S)

    def end(self, grace_s: float) -> None:
        """Ask the tree to end; a second call can only shorten the patience."""
        by = time.monotonic() + grace_s
        if self.deadline is None:
            signal_tree(self.engine, signal.SIGTERM)
            self.deadline = by
        elif self.give_up is None:
            self.deadline = min(self.deadline, by)

    def say(self, line: str) -> None:
        """Report to the harness, if there still is one."""
        with contextlib.suppress(OSError):
            os.write(self.report, f"{line}\n".encode())


def wake_pipe() -> int:
    """A read end that gets one byte, the signal's number, for each SIGCHLD and SIGTERM; the terminal's signals are ignored."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return read


def main(args: list[str]) -> int:
    """Start ARGV and stay until its tree is gone."""
    control, report, argv = int(args[0]), int(args[1]), args[2:]
    for fd in (control, report):
        os.set_inheritable(fd, False)  # noqa: FBT003  (its only spelling)
    wake = wake_pipe()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        engine = spawn(argv)
    except OSError as error:
        os.write(report, f"failed {error}\n".encode())
        return 1
    watch = Watch(engine, control, report, wake)
    watch.say(f"started {engine}")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):  # the engine alone holds its streams: a reader must see their end when the engine ends
        os.dup2(null, fd)
    watch.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
