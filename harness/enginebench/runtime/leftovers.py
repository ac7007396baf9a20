"""Records every launch on disk, so that the next run can end engines that outlived their harness, and no other process.

A *lease* is one JSON file per launch in cache_dir()/leases. It names the harness and the engine, each by pid *and* start time. A process is
ended only if it has ENGINEBENCH_LAUNCH=<tag> in its environment (tags are unique, see `unique_tag`), belongs to this user, and the harness
of that launch has ended. If its environment cannot be read, the process is left alone and reported.

Tested on Linux only. On macOS a user cannot read the environment of protected binaries. Does not know: engines, the guardian's protocol.
"""

import contextlib
import dataclasses
import json
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
from pydantic import TypeAdapter

from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir

MARKER = "ENGINEBENCH_LAUNCH"
"""The environment variable that every process of a launch inherits."""

TERM_GRACE_S = 2.0
HALF_WRITTEN_S = 60.0


@dataclass(frozen=True)
class Identity:
    """A process, distinguished from a later one with the same pid."""

    pid: int
    born: str
    """Start time. Compare for equality only."""


@dataclass(frozen=True)
class Lease:
    """One launch."""

    tag: str
    place: str
    """Where the pids are valid: host and pid namespace (hosts may share a home folder)."""
    harness: Identity
    argv: tuple[str, ...]
    folder: str
    guardian: Identity | None = None
    engine: Identity | None = None

    @property
    def live(self) -> bool:
        """Whether the harness still runs. A lease of another host or container counts as live."""
        return self.place != here() or born(self.harness.pid) == self.harness.born


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


def _path(tag: str) -> Path:
    return cache_dir() / "leases" / f"{tag}.json"


def reserve(tag: str, argv: Iterable[str], folder: Path) -> Lease:
    """Write the lease before a launch. Raises UserError if a running harness uses the same tag."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", tag):
        raise ValueError(f"invalid launch tag {tag!r}: only letters, digits, '.', '_' and '-' are allowed")
    me = identity(os.getpid())
    assert me is not None  # noqa: S101  (narrows the type)
    lease = Lease(tag, here(), me, tuple(argv), str(folder))
    path = _path(tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    old = _read(path)
    if old is not None and not old.live:
        _sweep_one(old)
    try:
        with path.open("x") as file:
            json.dump(dataclasses.asdict(lease), file)
    except FileExistsError:
        raise UserError(f"a launch tagged {tag} is already running", file=path, advice="wait for the other run to end") from None
    except OSError:  # the disk is full
        path.unlink(missing_ok=True)
        raise
    return lease


def renew(lease: Lease, *, guardian: int, engine: int) -> Lease:
    """Add the pids after the start."""
    lease = dataclasses.replace(lease, guardian=identity(guardian), engine=identity(engine))
    path = _path(lease.tag)
    new = path.with_suffix(".new")
    try:
        new.write_text(json.dumps(dataclasses.asdict(lease)))
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return lease


def release(tag: str) -> None:
    """Delete the lease of a launch whose processes have ended."""
    _path(tag).unlink(missing_ok=True)
    _path(tag).with_suffix(".new").unlink(missing_ok=True)


def leases() -> list[Lease]:
    """All readable leases."""
    return [lease for path in _files() if (lease := _read(path)) is not None]


def _files() -> list[Path]:
    return sorted((cache_dir() / "leases").glob("*.json"))


def _read(path: Path) -> Lease | None:
    try:
        lease = _reader().validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return lease if lease.tag == path.stem else None


@cache
def _reader() -> TypeAdapter[Lease]:
    return TypeAdapter(Lease)


# -- ending processes of earlier launches --------------------------------------------------------------------------------------


def sweep() -> list[str]:
    """End processes left by harnesses that have ended and delete their leases. Returns one sentence per action or omission."""
    actions: list[str] = []
    for path in _files():
        lease = _read(path)
        if lease is None:
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > HALF_WRITTEN_S:
                    path.unlink(missing_ok=True)
                    actions.append(f"removed the unreadable lease {path.name}")
        elif not lease.live:
            actions += _sweep_one(lease)
    return actions


def _sweep_one(lease: Lease) -> list[str]:
    actions = end_marked(lease.tag)
    for process in (lease.engine, lease.guardian):
        if process is not None and born(process.pid) == process.born:  # still running: `end_marked` found no tag in its environment
            actions.append(
                f"left process {process.pid} of launch {lease.tag} alone: its environment does not show that enginebench started it"
            )
    release(lease.tag)
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
