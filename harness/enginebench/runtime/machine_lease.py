"""The lease of a run on its machine (see `lease`), with a temporary folder that goes with it."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from enginebench.errors import UserError
from enginebench.runtime.lease import Lease, dead, files, hold, is_held, read

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
    lease: Lease

    @property
    def folder(self) -> Path:
        """A temporary folder that is removed with the lease, or by the next run if this process is killed."""
        return Path(self.holder.folder)

    def others(self) -> list[str]:
        """Who else holds a lease now, in words."""
        found = [_read(file) for file in files(PREFIX) if file != self.lease.file and is_held(file)]
        return [holder.text if holder else "another bench" for holder in found]


@contextlib.contextmanager
def machine_lease(purpose: str, *, containers: bool = False) -> Iterator[MachineLease]:
    """Hold a lease, with a temporary folder, while the block lasts. purpose: for those who are refused because of it."""
    name = f"{PREFIX}{secrets.token_hex(4)}"
    holder = Holder(os.getpid(), purpose, str(Path(tempfile.gettempdir()) / name), containers)
    with contextlib.ExitStack() as stack:
        lease = MachineLease(holder, hold(name, asdict(holder)))
        stack.callback(lease.lease.release)
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
    for file in dead(PREFIX):
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


def _read(file: Path) -> Holder | None:
    try:
        data = read(file)
        return Holder(int(data["pid"]), str(data["purpose"]), str(data["folder"]), bool(data["containers"]))  # type: ignore[arg-type]
    except (ValueError, LookupError, TypeError):
        return None
