"""The lease of a run on its machine: by it other runs see that this machine is in use, and remove what a killed run left.

A lease is a file that its process keeps locked; the kernel releases the lock however the process ends. The folder of the leases belongs to
the machine: every user and every cache folder has the same one, unless ENGINEBENCH_LEASES names another. Runs with different folders do
not see each other; that is for tests, which measure nothing that counts.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from enginebench.errors import UserError

FOLDER_VARIABLE = "ENGINEBENCH_LEASES"
DEFAULT_FOLDER = Path("/tmp/enginebench-leases")  # noqa: S108  # TMPDIR differs between users
PREFIX = "enginebench-"


@dataclass(frozen=True)
class Holder:
    """What a lease says of its process."""

    pid: int
    purpose: str
    """'bench run quickstart'."""
    folder: str
    """Its temporary folder, which has the folders of all launches."""
    containers: bool = False
    """Whether it starts containers."""

    @property
    def text(self) -> str:
        """'bench run quickstart (process 123)'."""
        return f"{self.purpose} (process {self.pid})"


@dataclass(frozen=True)
class MachineLease:
    """A lease that this process holds."""

    holder: Holder
    file: Path | None
    """None: the folder of leases cannot be written to, so this run is invisible to others."""

    @property
    def folder(self) -> Path:
        """A temporary folder that is removed with the lease, or by the next run if this process is killed."""
        return Path(self.holder.folder)

    def others(self) -> list[str]:
        """Who else holds a lease now, in words."""
        found = [(file, _read(file)) for file in _files() if file != self.file and _locked(file)]
        return [holder.text if holder else "another bench" for _, holder in found]


@contextlib.contextmanager
def machine_lease(purpose: str, *, containers: bool = False) -> Iterator[MachineLease]:
    """Hold a lease, with a temporary folder, while the block lasts. purpose: for those who are refused because of it."""
    name = f"{PREFIX}{secrets.token_hex(4)}"
    holder = Holder(os.getpid(), purpose, str(Path(tempfile.gettempdir()) / name), containers)
    with contextlib.ExitStack() as stack:
        file: Path | None = leases_folder() / f"{name}.json"
        try:
            with _alone():
                lock = stack.enter_context((leases_folder() / f"{name}.json").open("x"))
                stack.callback((leases_folder() / f"{name}.json").unlink, missing_ok=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
                lock.write(json.dumps(asdict(holder)))
                lock.flush()
        except OSError:
            file = None
        lease = MachineLease(holder, file)
        try:
            lease.folder.mkdir(mode=0o700)
        except OSError as error:
            raise UserError(f"cannot be made: {error.strerror}", file=lease.folder, advice="TMPDIR names another folder") from None
        stack.callback(shutil.rmtree, lease.folder, ignore_errors=True)
        yield lease


def remove_dead() -> tuple[list[str], list[Path]]:
    """Remove the temporary folders of this user's runs that were killed. Returns one sentence per action, and the leases of those that
    may have left containers: delete these when the containers are removed."""
    actions: list[str] = []
    with_containers: list[Path] = []
    with contextlib.suppress(PermissionError, FileNotFoundError), _alone():
        for file in _files():
            if file.stat().st_uid != os.getuid() or _locked(file):
                continue
            holder = _read(file)
            folder = Path(holder.folder if holder else tempfile.gettempdir(), "" if holder else file.stem)
            if folder.name == file.stem and folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
                actions.append(f"removed {folder}, left by {holder.text if holder else 'a run'}, which was killed")
            if holder is not None and holder.containers:
                with_containers.append(file)
            else:
                file.unlink(missing_ok=True)
    return actions, with_containers


def leases_folder() -> Path:
    """The folder that ENGINEBENCH_LEASES names, else that of the machine."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else DEFAULT_FOLDER


def _files() -> list[Path]:
    return sorted(leases_folder().glob(f"{PREFIX}*.json"))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """No other process makes or removes a lease while the block lasts. Makes the folder, in which every user may make files."""
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


def _locked(file: Path) -> bool:
    """Whether the process that made the lease still runs."""
    try:
        with file.open() as lease:
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # removed meanwhile
        return False
    return False


def _read(file: Path) -> Holder | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Holder(int(data["pid"]), str(data["purpose"]), str(data["folder"]), bool(data["containers"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
