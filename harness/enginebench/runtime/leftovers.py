"""What a launch leaves on disk so that the next run can end engines that outlived their harness, and nothing else.

Knows nothing of engines or of the guardian's protocol. A *lease* is one JSON file per launch under cache_dir()/leases: who started
what, each process by pid *and* birth. A process is ended only when it is provably ours: it carries ENGINEBENCH_LAUNCH=<tag> in
its environment, belongs to this user, and either has the pid and birth of the lease or bears the tag of a dead harness's
launch (tags are unique, see `unique_tag`). Where an environment cannot be read the process is left alone, and that is said.

Checked on Linux only; macOS lets a user read the environment of his own processes except those of protected binaries.
"""

from __future__ import annotations

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

from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir

MARKER = "ENGINEBENCH_LAUNCH"
"""The environment variable that every process of a launch inherits."""

TERM_GRACE_S = 2.0
HALF_WRITTEN_S = 60.0


@dataclass(frozen=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same pid. born compares for equality only."""

    pid: int
    born: str


@dataclass(frozen=True)
class Lease:
    """One launch. place: where its pids mean anything (host and pid namespace; a home folder may be shared between hosts)."""

    tag: str
    place: str
    harness: Identity
    argv: tuple[str, ...]
    folder: str
    guardian: Identity | None = None
    engine: Identity | None = None

    @property
    def live(self) -> bool:
        """Whether the harness that wrote it still runs; a lease of another host or container counts as live."""
        return self.place != here() or born(self.harness.pid) == self.harness.born


def unique_tag(prefix: str) -> str:
    """A launch's tag: the prefix and six random hex digits."""
    return f"{prefix}-{secrets.token_hex(3)}"


@cache
def here() -> str:
    """Host name and, on Linux, pid namespace."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def born(pid: int) -> str | None:
    """When a process began, as something to compare; None when it is gone or a zombie.

    Linux: boot id and start time in clock ticks, because psutil's create_time() moves when the wall clock is adjusted.
    """
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
    """The process as it is now; None when it is gone."""
    birth = born(pid)
    return Identity(pid, birth) if birth else None


# -- leases ----------------------------------------------------------------------------------------------------------------


def _path(tag: str) -> Path:
    return cache_dir() / "leases" / f"{tag}.json"


def reserve(tag: str, argv: Iterable[str], folder: Path) -> Lease:
    """Write the lease of a launch that is about to happen. Raises UserError when a live harness uses the same tag."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", tag):
        raise ValueError(f"a launch tag is letters, digits, '.', '_' and '-': {tag!r}")
    me = identity(os.getpid())
    assert me is not None, "a running process has a birth"  # noqa: S101  (narrows the type)
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
    return lease


def renew(lease: Lease, *, guardian: int, engine: int) -> Lease:
    """Add the pids once they exist."""
    lease = dataclasses.replace(lease, guardian=identity(guardian), engine=identity(engine))
    path = _path(lease.tag)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(dataclasses.asdict(lease)))
    new.replace(path)
    return lease


def release(tag: str) -> None:
    """The launch is over and nothing of it runs."""
    _path(tag).unlink(missing_ok=True)


def leases() -> list[Lease]:
    """Every lease that can be read."""
    return [lease for path in _files() if (lease := _read(path)) is not None]


def _files() -> list[Path]:
    return sorted((cache_dir() / "leases").glob("*.json"))


def _read(path: Path) -> Lease | None:
    def who(item: dict[str, str] | None) -> Identity | None:
        return None if item is None else Identity(int(item["pid"]), item["born"])

    try:
        data = json.loads(path.read_text())
        harness = who(data["harness"])
        if harness is None or data["tag"] != path.stem:
            return None
        return Lease(data["tag"], data["place"], harness, tuple(data["argv"]), data["folder"], who(data["guardian"]), who(data["engine"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


# -- ending what is provably ours --------------------------------------------------------------------------------------------


def sweep() -> list[str]:
    """End what dead harnesses left running and forget their leases; returns a sentence for everything done or left undone."""
    said: list[str] = []
    for path in _files():
        lease = _read(path)
        if lease is None:
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > HALF_WRITTEN_S:
                    path.unlink(missing_ok=True)
                    said.append(f"removed the unreadable lease {path.name}")
        elif not lease.live:
            said += _sweep_one(lease)
    return said


def _sweep_one(lease: Lease) -> list[str]:
    said = end_marked(lease.tag)
    for who in (lease.engine, lease.guardian):
        if who is not None and born(who.pid) == who.born:
            # Same process as in the lease, yet it was not ended above: its environment did not prove that it is ours.
            said.append(f"left process {who.pid} of launch {lease.tag} alone: its environment does not prove that it is ours")
    release(lease.tag)
    return said


def end_marked(tag: str) -> list[str]:
    """End every process of this user whose environment carries the tag: SIGTERM, two seconds, SIGKILL."""
    mine = marked(tag)
    names = {process.pid: _name(process) for process in mine}
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in mine:
            with contextlib.suppress(psutil.Error):
                end(process)  # psutil compares the creation time first, so a reused pid is not hit
        mine = _still_there(mine, TERM_GRACE_S)
    return [f"ended process {pid} ({name}) of launch {tag}" for pid, name in names.items()]


def _still_there(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that live on after the time-out. Not psutil.wait_procs: it counts zombies and reaps children of ours."""
    until = time.monotonic() + timeout_s
    while (living := [process for process in processes if born(process.pid)]) and time.monotonic() < until:
        time.sleep(0.01)
    return living


def marked(tag: str) -> list[psutil.Process]:
    """Processes of this user that carry the tag, never this one or its ancestors."""
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
        return "already gone"
