"""What a deployment with `runtime: docker` is made of: its image, its checkpoint seen from inside, the place that starts its containers.

Reads the table of images and the file system; asks the daemon only in `open_contained`. Knows neither readiness nor loads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from enginebench.adapter import Adapter, Install, Site, Unsupported
from enginebench.checkpoints import hub
from enginebench.domain import JSON, Deployment
from enginebench.domain.container import Container
from enginebench.engines.images import Image, Recipe, ensure, read_images, recipe
from enginebench.engines.registry import constraints_of
from enginebench.errors import UserError
from enginebench.runtime import LaunchFailed, free_ports
from enginebench.runtime.container.client import Client, caller, connect, device_groups, translated_errors
from enginebench.runtime.container.command import docker_run
from enginebench.runtime.container.pod import Pod, open_pod
from enginebench.runtime.container.spec import ANY, HF_HOME, LOOPBACK, MODELS, SITE, Accelerator, Bind, PodSettings, arguments

FIRST_PORT = 8000
"""Inside, where nobody else is; in the machine's own network free ports are looked for."""


@dataclass(frozen=True)
class Contained:
    """A place with what is recorded of it. facts: image, id, base, and digests: the base's where the image was built here, else its own."""

    pod: Pod
    install: Install
    facts: Mapping[str, JSON]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Box:
    """What runs and how the engine is present in it. row: of the table of images; None for an engine that it does not have."""

    name: str
    install: Install
    devices: Accelerator
    row: Image | None = None

    @property
    def floating(self) -> bool:
        """Whether the same name may be another image tomorrow."""
        return self.row.floating if self.row is not None and self.row_runs else "@sha256:" not in self.name

    @property
    def row_runs(self) -> bool:
        """Whether the table's own image is what runs, and not one that the scenario names."""
        return self.row is not None and self.name.startswith(f"enginebench/{self.row.engine}:{self.row.variant}-")


def box_of(adapter: Adapter, deployment: Deployment) -> Box:
    """The image that serves the deployment. Raises UserError, or NotInstalled when no image of the engine does."""
    wanted, image = deployment.container.variant, deployment.container.image
    rows = [row for row in read_images().values() if row.engine == adapter.name and wanted in (None, row.variant)]
    if rows:
        chosen = adapter.choose(deployment.inside, [row.install for row in rows])
        row = next(row for row in rows if row.install == chosen)
        return Box(image or _recipe(adapter, row).name, chosen, row.devices, row)
    if image is None:
        name = f"{adapter.name}/{wanted}" if wanted else adapter.name
        raise UserError(f"there is no image for {name}", advice="name one with container.image, or see what there is with: bench images")
    return Box(image, Install(wanted or adapter.name, "unknown", python=Path("python3")), "nvidia" if deployment.container.gpus else "cpu")


def _recipe(adapter: Adapter, row: Image) -> Recipe:
    return recipe(row, adapter.requirements, constraints_of(adapter))


def site_inside(adapter: Adapter, deployment: Deployment, checkpoint: str) -> tuple[Site, tuple[Bind, ...]]:
    """What the engine sees of addresses and paths, and what must be mounted for that. checkpoint: a local path or a hub id."""
    bind, seen = seen_inside(Path(checkpoint)) if Path(checkpoint).is_absolute() else (None, checkpoint)
    count = 1 + adapter.traits(deployment.inside).extra_ports
    if deployment.container.network == "host":
        port, *extra = free_ports(LOOPBACK, count)
        return Site(LOOPBACK, port, Path(SITE), seen, tuple(extra)), (bind,) if bind else ()
    port, *extra = range(FIRST_PORT, FIRST_PORT + count)
    return Site(ANY, port, Path(SITE), seen, tuple(extra)), (bind,) if bind else ()


def seen_inside(checkpoint: Path) -> tuple[Bind, str]:
    """The folder that must be mounted for a checkpoint, and its path inside. Links that lead out of it, as in a hub's cache, and the other
    parts of a split GGUF file are in that folder. Raises UserError when this would be most of the machine."""
    real = checkpoint.resolve()
    split = real.name.partition("-00001-of-")
    if real.is_dir():
        whole = Path(os.path.commonpath([real, *(file.resolve() for file in real.rglob("*"))]))
    elif split[1]:
        whole = Path(os.path.commonpath([real.parent, *(part.resolve() for part in real.parent.glob(f"{split[0]}-*"))]))
    else:
        whole = real
    if len(whole.parts) < 3:
        message = f"links in {checkpoint} lead to {whole}, too much to mount into a container"
        raise UserError(message, advice="copy the checkpoint into one folder")
    inside = MODELS / whole.name
    return Bind(str(whole), str(inside)), str(inside / real.relative_to(whole))


def check_asked(adapter: Adapter, deployment: Deployment) -> None:
    """Raise UserError for what no daemon could mend: a secret that is not set, an image that the table does not have."""
    _secrets(deployment.container)
    with contextlib.suppress(Unsupported):  # the sweep skips it with the reason
        box_of(adapter, deployment)


def open_contained(adapter: Adapter, deployment: Deployment, checkpoint: str, log: Path, say: Callable[[str], None]) -> Contained:
    """Get the image and make the place. Raises LaunchFailed, UserError or Unsupported with one sentence."""
    container, box = deployment.container, box_of(adapter, deployment)
    secrets = _secrets(container)
    site, binds = site_inside(adapter, deployment, checkpoint)
    client = connect()
    facts = _have_image(client, container, box, adapter, say)
    around = PodSettings(
        image=box.name,
        tag="",
        labels={},
        ports=(site.port, *site.ports),
        binds=(*binds, *_hub_cache(container, checkpoint)),
        accelerator=box.devices,
        gpus=adapter.traits(deployment.inside).gpus,
        device_groups=device_groups() if box.devices == "amd" else (),
        user=caller(client, container.user),
        secrets=secrets,
    )
    notes = (f"the image {box.name} is named by a tag, which may be another image tomorrow",) if box.floating else ()
    return Contained(open_pod(client, container, around, site, log), box.install, facts, notes)


def _secrets(container: Container) -> dict[str, str]:
    missing = [name for name in container.secrets if not os.environ.get(name)]
    if missing:
        raise UserError(f"the environment variable {missing[0]} is not set", advice=f"export {missing[0]}=...")
    return {name: os.environ[name] for name in container.secrets}


def _hub_cache(container: Container, checkpoint: str) -> tuple[Bind, ...]:
    """This machine's Hugging Face cache, writable unless nothing may be fetched, where the checkpoint is a hub id."""
    if not container.hf_cache or Path(checkpoint).is_absolute():
        return ()
    cache = hub.hf_home(os.environ)
    cache.mkdir(parents=True, exist_ok=True)
    return (Bind(str(cache), HF_HOME, writable=not container.offline),)


def _have_image(client: Client, container: Container, box: Box, adapter: Adapter, say: Callable[[str], None]) -> Mapping[str, JSON]:
    """What is recorded of the image, once it is there: built or pulled if it was not."""
    from docker.errors import ImageNotFound

    from enginebench.engines.docker_images import SdkDaemon

    with translated_errors(f"the image {box.name} could not be had: "):
        try:
            found = client.images.get(box.name)
        except ImageNotFound:
            if container.offline:
                raise LaunchFailed(f"the image {box.name} is not here, and the deployment is offline") from None
            if box.row is not None and box.row_runs:
                ensure(_recipe(adapter, box.row), SdkDaemon(), say)
            else:
                say(f"pulling {box.name}")
                client.images.pull(box.name)
            found = client.images.get(box.name)
        base = box.row.base if box.row is not None and box.row_runs else None
        digests = list(found.attrs.get("RepoDigests") or []) if base is None else base_digests(client, found, base)
    return {"image": box.name, "id": found.id, "digests": digests, "base": base, "variant": box.row.variant if box.row else None}


def base_digests(client: Client, built: Any, base: str) -> list[JSON]:
    """What a registry calls the base of an image that was built here; none where the daemon has it no more, or another of that tag."""
    from docker.errors import ImageNotFound

    try:
        below = client.images.get(base).attrs
    except ImageNotFound:
        return []
    layers = below["RootFS"]["Layers"]
    return list(below.get("RepoDigests") or []) if built.attrs["RootFS"]["Layers"][: len(layers)] == layers else []


def commands(adapter: Adapter, deployment: Deployment) -> dict[str, str]:
    """Every container of the deployment as the `docker run` it amounts to, members first; neither daemon nor checkpoint is looked at.

    Raises Unsupported or UserError, as a start would.
    """
    container, box = deployment.container, box_of(adapter, deployment)
    site, _ = site_inside(adapter, deployment, deployment.checkpoint)
    site = replace(site, checkpoint=str(MODELS / "CHECKPOINT") if adapter.checkpoint_format != "none" else site.checkpoint)
    launch = adapter.launch(deployment.inside, box.install, site)
    around = PodSettings(
        image=box.name,
        tag="LAUNCH",
        labels={},
        ports=(site.port, *site.ports),
        binds=(Bind("CHECKPOINT", site.checkpoint),) if adapter.checkpoint_format != "none" else (),
        accelerator=box.devices,
        gpus=adapter.traits(deployment.inside).gpus,
        user="UID:GID" if container.user == "caller" else None if container.user == "image" else container.user,
        secrets=dict.fromkeys(container.secrets, "..."),
        network="enginebench-LAUNCH",
    )
    shown: dict[str, str] = {}
    first = None
    for who, argv, env in launch.commands:
        title = f"enginebench-{who or 'main'}"
        asked = arguments(container, around, name=title, argv=argv, env=env, folder=str(SITE / who), first=first)
        shown[who] = docker_run(asked, container.secrets)
        first = first or title
    return shown
