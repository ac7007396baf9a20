"""Leases: by them runs on one machine see each other, and the next run finds what a killed one left.

A lease is a file that its process keeps locked; the kernel releases the lock however the process ends. The folder of the leases belongs to
the machine: every user and every cache folder has the same one, unless ENGINEBENCH_LEASES names another. Runs with different folders do
not see each other; that is for tests, which measure nothing that counts. What a lease says is known to `machine_lease` (one of a run) and
`leftovers` (one of a launch).
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from enginebench.domain import JSON

FOLDER_VARIABLE = "ENGINEBENCH_LEASES"
DEFAULT_FOLDER = Path("/tmp/enginebench-leases")  # noqa: S108  # TMPDIR differs between users


class Lease:
    """A lease that this process holds until it releases it or ends."""

    def __init__(self, file: Path | None, lock: int = -1) -> None:
        self.file = file
        """None: the folder of leases cannot be written to, so others do not see this lease."""
        self._lock = lock

    def write(self, content: Mapping[str, JSON]) -> None:
        """What it says from now on."""
        if self.file is not None:
            data = json.dumps(content).encode()
            with contextlib.suppress(OSError):  # the disk is full
                os.pwrite(self._lock, data, 0)
                os.ftruncate(self._lock, len(data))

    def release(self) -> None:
        """Delete the file. A second call does nothing."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
            os.close(self._lock)
            self.file = None


class Taken(Exception):  # noqa: N818  # a result
    """There is a lease of this name, whether its process still runs or not."""


def hold(name: str, content: Mapping[str, JSON]) -> Lease:
    """Make a lease of this name. Raises Taken."""
    file = leases_folder() / f"{name}.json"
    try:
        with exclusive():
            if file.exists():
                raise Taken
            lock = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return Lease(None)
    lease = Lease(file, lock)
    lease.write(content)
    return lease


def leases_folder() -> Path:
    """The folder that ENGINEBENCH_LEASES names, else that of the machine."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else DEFAULT_FOLDER


def files(prefix: str) -> list[Path]:
    """The leases whose names begin so."""
    return sorted(leases_folder().glob(f"{prefix}*.json"))


def dead(prefix: str) -> list[Path]:
    """Those of this user whose processes have ended."""
    with contextlib.suppress(OSError), exclusive():
        return [file for file in files(prefix) if not is_held(file) and file.stat().st_uid == os.getuid()]
    return []


def is_held(file: Path) -> bool:
    """Whether the process that made the lease still runs."""
    try:
        with file.open() as lease:
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # removed meanwhile
        return False
    return False


def read(file: Path) -> Mapping[str, JSON]:
    """What a lease says; empty where that cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(file.read_bytes())
        return data if isinstance(data, dict) else {}
    return {}


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """No other process makes a lease or looks for dead ones while the block lasts. Makes the folder; every user may make files in it."""
    if not leases_folder().is_dir():
        leases_folder().mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):
            leases_folder().chmod(0o1777)
    descriptor = os.open(leases_folder(), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
