"""Whether the disk has room for the weights that a plan has to download or to make. Uses no network; what is unknown counts as nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from enginebench.checkpoints import hub
from enginebench.checkpoints.locate import checkpoints_folder, random_path
from enginebench.checkpoints.random_moe import SCHEME as RANDOM
from enginebench.domain import Deployment
from enginebench.engines.registry import Registry
from enginebench.runtime.container.client import remote_host

_COMPLETE = 0.9
"""Share of the expected bytes from which a download without unfinished files counts as whole: sizes in the catalogue are computed."""


def without_room(deployments: Iterable[Deployment], registry: Registry, base: Path) -> tuple[str, frozenset[int]]:
    """'215 GB of disk for weights (here: 56 GB)', and the ids of the deployments whose weights do not fit.

    Each checkpoint counts once; those that come first in the plan are downloaded first.
    """
    wanted: dict[tuple[str, Path], list[Deployment]] = {}
    for each in deployments:
        if (place := _download_place(each, registry, base)) is not None:
            wanted.setdefault((each.checkpoint, place), []).append(each)
    disks: dict[int, _Disk] = {}
    too_much: set[int] = set()
    for (_, place), its in wanted.items():
        folder = next(each for each in (place, *place.parents) if each.exists())
        disk = disks.setdefault(folder.stat().st_dev, _Disk(shutil.disk_usage(folder).free))
        disk.needed += max(_bytes_to_fetch(each, registry, place) for each in its)
        if disk.needed > disk.free:
            too_much |= {id(each) for each in its}
    return "; ".join(disk.text for disk in disks.values() if disk.needed > disk.free), frozenset(too_much)


@dataclass
class _Disk:
    free: float
    needed: float = 0.0

    @property
    def text(self) -> str:
        return f"{self.needed / 1e9:.0f} GB of disk for weights (here: {self.free / 1e9:.0f} GB)"


def _download_place(deployment: Deployment, registry: Registry, base: Path) -> Path | None:
    """Where the weights will be downloaded or made; None if they are here, or if that is decided elsewhere."""
    container, reference, form = deployment.container, deployment.checkpoint, registry[deployment.engine].checkpoint_format
    if deployment.runtime == "attach" or form == "none":
        return None
    if reference.startswith(RANDOM):
        path = random_path(reference, deployment.precision, form)
        return None if path.exists() else path
    if reference.startswith(hub.SCHEME):
        found = hub.parse(reference)
        return None if found is None or _is_whole(found) else hub.local_path(found, checkpoints_folder() / "hub")
    if not hub.is_id(reference) or (base / Path(reference).expanduser()).exists():
        return None
    name = f"models--{reference.replace('/', '--')}"
    if deployment.runtime == "docker":
        own = not container.hf_cache or container.mounts or any(key.startswith(("HF_", "HUGGINGFACE_")) for key in container.env)
        return None if own or remote_host() else hub.hf_home(os.environ) / "hub" / name
    return hub.hub_cache(os.environ) / name


def _is_whole(wanted: hub.HubReference) -> bool:
    path = hub.local_path(wanted, checkpoints_folder() / "hub")
    return path.exists() if wanted.file is None else all((path.parent / Path(part).name).exists() for part in wanted.parts)


def _bytes_to_fetch(deployment: Deployment, registry: Registry, place: Path) -> float:
    from enginebench.physics.deployment_limits import weights_of  # physics takes a while to import

    reference = deployment.checkpoint.removeprefix(hub.SCHEME)  # without it the config.json is not asked from the hub
    gguf = registry[deployment.engine].checkpoint_format == "gguf"
    weights = weights_of(deployment.model, deployment.precision, reference, gguf=gguf)
    if weights is None:
        return 0.0
    if reference.startswith(RANDOM):
        return weights.bytes
    folder = place if place.is_dir() else place.parent
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()] if folder.is_dir() else []
    here = float(sum(file.stat().st_size for file in files))
    whole = here >= _COMPLETE * weights.bytes and not any(file.suffix == ".incomplete" for file in files)
    return 0.0 if whole else max(0.0, weights.bytes - here)
