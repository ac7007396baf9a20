"""What figures are computed from besides a run's own records: the code with its data, a user's catalogues, and files of weights.

A figure may be kept as long as all of it is the same. Of files outside the package, size and time of change decide. Imports nothing that
takes long.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from enginebench.machine.folders import user_files

if TYPE_CHECKING:
    from enginebench.domain import Deployment

PACKAGE = Path(__file__).resolve().parents[1]
_CODE = (
    "adapter.py", "analysis", "checkpoints", "domain", "inputs", "machine", "metrics", "physics", "records", "validity", "workload",
)  # fmt: skip
"""All that figures are computed by, and what is concluded from them."""

Stamp: TypeAlias = tuple[str, int, int]
"""A file: its path as it was written, its size and its time of change; -1, -1: it is not there."""


@cache
def code_hash() -> str:
    """SHA-256 of the source and the data that figures are computed by, and of the versions of Python and numpy."""
    whole = hashlib.sha256(f"{sys.version_info[:2]} {version('numpy')}".encode())
    for part in _CODE:
        place = PACKAGE / part
        files = sorted(file for pattern in ("**/*.py", "**/data/*") for file in place.glob(pattern)) if place.is_dir() else [place]
        for file in files:
            whole.update(f"\n{file.relative_to(PACKAGE)}\n".encode())
            whole.update(file.read_bytes())
    return whole.hexdigest()


def catalogues() -> tuple[Stamp, ...]:
    """The user's own devices and models, as far as there are any."""
    found = stamps(str(path) for name in ("hardware.yaml", "models.yaml") for path in user_files(name))
    return tuple(stamp for stamp in found if stamp[1] >= 0)


def weights(deployment: Deployment) -> tuple[Stamp, ...] | None:
    """The files that describe the deployment's weights on this machine; None if the hub may be asked, whose answers change."""
    return _weights(deployment.model, deployment.checkpoint, str(Path.cwd()))


def stamps(paths: Iterable[str]) -> tuple[Stamp, ...]:
    return tuple(_stamp(path) for path in paths)


def _stamp(path: str) -> Stamp:
    try:
        stat = os.stat(path)  # noqa: PTH116  # of a text that may be no path
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return path, -1, -1
    return path, stat.st_size, stat.st_mtime_ns


@cache
def _weights(model: str, checkpoint: str, _cwd: str) -> tuple[Stamp, ...] | None:
    """As `enginebench.physics.deployment_limits.weights_of` looks for them."""
    from enginebench.checkpoints import hub, local_path

    try:
        found = [local for local in (local_path(checkpoint, Path()),) if local is not None]
        if not found and checkpoint.startswith(hub.SCHEME) and (wanted := hub.parse(checkpoint)) is not None and wanted.file is None:
            folder = hub.cached_folder(wanted.repository, "config.json", os.environ) if wanted.revision is None else None
            if folder is None:
                return None
            found = [folder]
        places = [*found, Path(checkpoint).expanduser(), Path(model).expanduser()]
        return stamps(dict.fromkeys(str(path) for place in places for path in _within(place)))
    except (OSError, ValueError, RuntimeError):  # as above; no home folder
        return None


def _within(path: Path) -> Iterator[Path]:
    """A folder and its files, or a file and the further parts of a split one."""
    from enginebench.checkpoints.hub import parts_of

    yield path
    if path.is_dir():
        yield from sorted(file for file in path.iterdir() if file.is_file())
    elif path.name:
        yield from (path.with_name(name) for name in parts_of(path.name))
