"""What else than a run's own records the physical limits of its deployments are computed from: a user's catalogues, and files of weights.

A result may be kept as long as this is the same. Reads no file: names, sizes and times of change are enough.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from enginebench.checkpoints import hub, local_path
from enginebench.domain import Deployment
from enginebench.physics import entries

Stamp = tuple[str, int, int]
"""A file: its path, size and time of change."""


def catalogues() -> entries.State:
    """The user's own devices and models."""
    return (*entries.state("hardware.yaml"), *entries.state("models.yaml"))


def weights(deployment: Deployment) -> tuple[Stamp, ...] | None:
    """The files that describe the deployment's weights on this machine; None if the hub may be asked, whose answers change."""
    return _weights(deployment.model, deployment.checkpoint, Path.cwd())


@cache
def _weights(model: str, checkpoint: str, base: Path) -> tuple[Stamp, ...] | None:
    try:
        found = local_path(checkpoint, base)
        if checkpoint.startswith(hub.SCHEME) and (wanted := hub.parse(checkpoint)) is not None and found is None:
            found = hub.cached_folder(wanted.repository, "config.json", os.environ) if wanted.revision is None else None
            if found is None and wanted.file is None:
                return None
        return tuple(stamp for path in filter(None, (found, base / Path(checkpoint).expanduser(), base / model)) for stamp in _stamps(path))
    except (OSError, ValueError, RuntimeError):  # a name too long or with a null character; no home folder
        return None


def _stamps(path: Path) -> Iterator[Stamp]:
    """Of a file and of the further parts of a split one, or of all files of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path.with_name(name) for name in hub.parts_of(path.name)]
    for file in files:
        if file.is_file():
            stat = file.stat()
            yield str(file), stat.st_size, stat.st_mtime_ns
