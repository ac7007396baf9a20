"""Finds processes that outlived their harness, and ends them and no other process.

Every launch holds a lease (see `lease`), which names the guardian and the engine by pid *and* start time. A process is ended only if it has
ENGINEBENCH_LAUNCH=<tag> in its environment (tags are unique, see `unique_tag`), belongs to this user, and the harness of that launch has
ended. If its environment cannot be read, the process is left alone and reported.

Tested on Linux only. On macOS a user cannot read the environment of protected binaries. Does not know: engines, the guardian's protocol.
"""

import contextlib
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from enginebench.domain import JSON
from enginebench.errors import UserError
from enginebench.runtime.lease import Lease, Taken, dead, files, hold, is_held, leases_folder, read

MARKER = "ENGINEBENCH_LAUNCH"
"""The environment variable that every process of a launch inherits."""
PREFIX = "launch-"

TERM_GRACE_S = 2.0


@dataclass(frozen=True)
class Identity:
    """A process, distinguished from a later one with the same pid."""

    pid: int
    born: str
    """Start time. Compare for equality only."""


@dataclass(frozen=True)
class Launched:
    """What the lease of a launch says."""

    tag: str
    live: bool
    """Whether its harness still runs."""
    guardian: Identity | None = None
    engine: Identity | None = None


def unique_tag(prefix: str) -> str:
    """A tag for one launch: the prefix and six random hex digits."""
    return f"{prefix}-{secrets.token_hex(3)}"


@cache
def here() -> str:
    """Host name and, on Linux, pid namespace."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def born(pid: int) -> str | None:
    """Start time of a process, for comparison only; None if it has ended or is a zombie.
    On Linux: boot id and clock ticks, because psutil's create_time() changes when the wall clock is adjusted."""
    try:
        if sys.platform == "linux":
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return None if fields[0] in (b"Z", b"X") else f"{boot} {fields[19].decode()}"
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.6f}"
    except (OSError, psutil.Error):
        return None


def identity(pid: int) -> Identity | None:
    """Identity of a running process; None if it has ended."""
    start = born(pid)
    return Identity(pid, start) if start else None


# -- leases ----------------------------------------------------------------------------------------------------------------


def reserve(tag: str) -> Lease:
    """The lease of a launch, which is made before it. Raises UserError if a running harness uses the same tag."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", tag):
        raise ValueError(f"invalid launch tag {tag!r}: only letters, digits, '.', '_' and '-' are allowed")
    for file in dead(PREFIX):
        if file.stem == PREFIX + tag:
            _sweep_one(file)
    try:
        return hold(PREFIX + tag, {})
    except Taken:
        file = leases_folder() / f"{PREFIX}{tag}.json"
        raise UserError(f"a launch tagged {tag} is already running", file=file, advice="wait for the other run to end") from None


def renew(lease: Lease, *, guardian: int, engine: int) -> None:
    """Add the processes after the start."""
    found = {"guardian": identity(guardian), "engine": identity(engine)}
    lease.write({name: asdict(one) for name, one in found.items() if one is not None})


def leases() -> list[Launched]:
    """The launches that hold a lease, and those whose harness has ended without giving it back."""
    return [_launched(file) for file in files(PREFIX)]


def _launched(file: Path) -> Launched:
    data = read(file)
    return Launched(file.stem.removeprefix(PREFIX), is_held(file), _identity(data.get("guardian")), _identity(data.get("engine")))


def _identity(data: JSON) -> Identity | None:
    if not isinstance(data, Mapping) or not isinstance(data.get("pid"), int):
        return None
    its: Any = data
    return Identity(its["pid"], str(its.get("born")))


# -- ending processes of earlier launches --------------------------------------------------------------------------------------


def sweep() -> list[str]:
    """End processes left by harnesses that have ended and delete their leases. Returns one sentence per action or omission."""
    return [action for file in dead(PREFIX) for action in _sweep_one(file)]


def _sweep_one(file: Path) -> list[str]:
    launch = _launched(file)
    actions = end_marked(launch.tag)
    for process in (launch.engine, launch.guardian):
        if process is not None and born(process.pid) == process.born:  # still running: `end_marked` found no tag in its environment
            actions.append(
                f"left process {process.pid} of launch {launch.tag} alone: its environment does not show that enginebench started it"
            )
    file.unlink(missing_ok=True)
    return actions


def end_marked(tag: str) -> list[str]:
    """End every process of this user with the tag in its environment: SIGTERM, two seconds, SIGKILL."""
    mine = marked(tag)
    names = {process.pid: _name(process) for process in mine}
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in mine:
            with contextlib.suppress(psutil.Error):
                end(process)  # psutil compares the creation time first, so a reused pid is safe
        mine = _still_running(mine, TERM_GRACE_S)
    return [f"ended process {pid} ({name}) of launch {tag}" for pid, name in names.items()]


def _still_running(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that still run after the time-out. (psutil.wait_procs would count zombies and reap this process's children.)"""
    until = time.monotonic() + timeout_s
    while (living := [process for process in processes if born(process.pid)]) and time.monotonic() < until:
        time.sleep(0.01)
    return living


def marked(tag: str) -> list[psutil.Process]:
    """Processes of this user with the tag in their environment, without this process and its ancestors."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.uids().real == os.getuid() and process.environ().get(MARKER) == tag:
                found.append(process)
    return found


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "already ended"
