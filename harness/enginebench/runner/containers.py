"""Prepares a deployment with `runtime: docker`: image, mount of the checkpoint, pod. Only `open_containers` talks to the daemon."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from enginebench.adapter import Adapter, Install, Site
from enginebench.checkpoints import hub
from enginebench.domain import JSON, Deployment
from enginebench.domain.container import Container
from enginebench.engines.images import Image, Recipe, read_images, recipe
from enginebench.engines.registry import constraints_of
from enginebench.errors import UserError
from enginebench.runtime import LaunchFailed, Place, free_ports
from enginebench.runtime.container.client import Client, caller, connect, device_groups, translated_errors
from enginebench.runtime.container.neighbour import open_neighbour, shared_folder
from enginebench.runtime.container.pod import open_pod
from enginebench.runtime.container.spec import ANY, HF_HOME, LOOPBACK, MODELS, SITE, Accelerator, Bind, PodSettings, arguments, docker_run

FIRST_PORT = 8000
"""In a container's own network. In the network of the machine free ports are used."""


@dataclass(frozen=True)
class OpenedContainers:
    """A pod and what is stored about it."""

    pod: Place
    install: Install
    facts: Mapping[str, JSON]
    """image, id, base and digests. The digests are the base's if the image was built here, otherwise its own."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChosenImage:
    """The image that runs, and the installation of the engine in it."""

    name: str
    install: Install
    devices: Accelerator
    row: Image | None = None
    """Its row in the table of images; None if the table has no image of this engine."""

    @property
    def floating(self) -> bool:
        """Whether the name may refer to another image later."""
        return self.row.floating if self.row is not None and self.from_table else "@sha256:" not in self.name

    @property
    def from_table(self) -> bool:
        """Whether the image is the table's, and not one that the scenario names."""
        return self.row is not None and self.name.startswith(f"enginebench/{self.row.engine}:{self.row.variant}-")


def image_for(adapter: Adapter, deployment: Deployment) -> ChosenImage:
    """The image that serves the deployment. UserError if there is none, NotInstalled if no image of the engine fits."""
    wanted, image = deployment.container.variant, deployment.container.image
    rows = [row for row in read_images().values() if row.engine == adapter.name and wanted in (None, row.variant)]
    if rows:
        chosen = adapter.choose(deployment.inside, [row.install for row in rows])
        row = next(row for row in rows if row.install == chosen)
        return ChosenImage(image or _recipe(adapter, row).name, chosen, row.devices, row)
    if image is None:
        name = f"{adapter.name}/{wanted}" if wanted else adapter.name
        raise UserError(f"there is no image for {name}", advice="name one with container.image; `bench images` lists those there are")
    install = Install(wanted or adapter.name, "unknown", python=Path("python3"))
    return ChosenImage(image, install, "nvidia" if deployment.container.gpus else "cpu")


def _recipe(adapter: Adapter, row: Image) -> Recipe:
    return recipe(row, adapter.requirements, constraints_of(adapter))


def container_site(adapter: Adapter, deployment: Deployment, checkpoint: str, draft: str = "") -> tuple[Site, tuple[Bind, ...]]:
    """Addresses and paths as seen in the container, and the mounts they need. checkpoint, draft: a local path or a hub id; '' none."""
    mounted = [mount_of(Path(each)) if Path(each).is_absolute() else (None, each) for each in (checkpoint, draft)]
    binds = tuple(dict.fromkeys(bind for bind, _ in mounted if bind is not None))
    if len({bind.inside for bind in binds}) < len(binds):
        raise UserError(f"{checkpoint} and {draft} have the same name, and one folder in the container", advice="rename one of them")
    (_, seen), (_, drafting) = mounted
    count = 1 + adapter.traits(deployment.inside).extra_ports
    if deployment.container.network == "host":
        port, *extra = free_ports(LOOPBACK, count)
        return Site(LOOPBACK, port, Path(SITE), seen, tuple(extra), drafting), binds
    port, *extra = range(FIRST_PORT, FIRST_PORT + count)
    return Site(ANY, port, Path(SITE), seen, tuple(extra), drafting), binds


def mount_of(checkpoint: Path) -> tuple[Bind, str]:
    """The folder to mount for a checkpoint, and the checkpoint's path in the container.
    The folder also holds the targets of links, as in a hub's cache, and the other parts of a split GGUF file. UserError if that would be
    most of the file system."""
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


def open_containers(
    adapter: Adapter, deployment: Deployment, checkpoint: str, draft: str, log: Path, say: Callable[[str], None]
) -> OpenedContainers:
    """Get the image and make the pod. Raises LaunchFailed, UserError or Unsupported with one sentence."""
    container, image = deployment.container, image_for(adapter, deployment)
    secrets = _secrets(container)
    if (shared := shared_folder()) is not None:
        beside = open_neighbour(shared, container, checkpoint, adapter.traits(deployment.inside).extra_ports, log.stem, draft=draft)
        return OpenedContainers(beside, image.install, _facts_beside(image))
    site, binds = container_site(adapter, deployment, checkpoint, draft)
    client = connect()
    facts = _get_image(client, container, image, adapter, say)
    around = replace(
        _settings(adapter, deployment, image, site, (*binds, *_hub_cache(container, checkpoint)), secrets),
        device_groups=device_groups() if image.devices == "amd" else (),
        user=caller(client, container.user),
    )
    notes = (f"the image {image.name} is named by a tag, which may be another image tomorrow",) if image.floating else ()
    return OpenedContainers(open_pod(client, container, around, site, log), image.install, facts, notes)


def _facts_beside(image: ChosenImage) -> Mapping[str, JSON]:
    """What is stored about the image of the container beside this one; its digest is known to the cluster only."""
    name = os.environ.get("ENGINEBENCH_NEIGHBOUR_IMAGE", image.name)
    return {"image": name, "id": None, "digests": [], "base": None, "variant": image.row.variant if image.row else None}


def _settings(
    adapter: Adapter, deployment: Deployment, image: ChosenImage, site: Site, binds: tuple[Bind, ...], secrets: Mapping[str, str]
) -> PodSettings:
    gpus, ports = adapter.traits(deployment.inside).gpus, (site.port, *site.ports)
    return PodSettings(image.name, "", {}, ports, binds, accelerator=image.devices, gpus=gpus, secrets=secrets)


def _secrets(container: Container) -> dict[str, str]:
    missing = [name for name in container.secrets if not os.environ.get(name)]
    if missing:
        raise UserError(f"the environment variable {missing[0]} is not set", advice=f"export {missing[0]}=...")
    return {name: os.environ[name] for name in container.secrets}


def _hub_cache(container: Container, checkpoint: str) -> tuple[Bind, ...]:
    """The machine's Hugging Face cache, if the checkpoint is a hub id; writable unless the deployment is offline."""
    if not container.hf_cache or Path(checkpoint).is_absolute():
        return ()
    cache = hub.hf_home(os.environ)
    cache.mkdir(parents=True, exist_ok=True)
    return (Bind(str(cache), HF_HOME, writable=not container.offline),)


def _get_image(
    client: Client, container: Container, image: ChosenImage, adapter: Adapter, say: Callable[[str], None]
) -> Mapping[str, JSON]:
    """What is stored about an image. Builds or pulls it if it is not there yet."""
    from docker.errors import ImageNotFound

    from enginebench.engines.docker_images import SdkDaemon

    with translated_errors(f"the image {image.name} could not be had: "):
        try:
            found = client.images.get(image.name)
        except ImageNotFound:
            if container.offline:
                raise LaunchFailed(f"the image {image.name} is not here, and the deployment is offline") from None
            if image.row is not None and image.from_table:
                SdkDaemon().ensure(_recipe(adapter, image.row), say)
            else:
                say(f"pulling {image.name}")
                client.images.pull(image.name)
            found = client.images.get(image.name)
        base = image.row.base if image.row is not None and image.from_table else None
        digests = list(found.attrs.get("RepoDigests") or []) if base is None else base_digests(client, found, base)
    return {"image": image.name, "id": found.id, "digests": digests, "base": base, "variant": image.row.variant if image.row else None}


def base_digests(client: Client, built: Any, base: str) -> list[JSON]:
    """Registry digests of the base of an image built here; empty if the daemon no longer has that base, or its tag has moved."""
    from docker.errors import ImageNotFound

    try:
        below = client.images.get(base).attrs
    except ImageNotFound:
        return []
    layers = below["RootFS"]["Layers"]
    return list(below.get("RepoDigests") or []) if built.attrs["RootFS"]["Layers"][: len(layers)] == layers else []


def commands(adapter: Adapter, deployment: Deployment) -> dict[str, str]:
    """Name -> `docker run` command of every container, members first. Uses neither daemon nor checkpoint.
    Raises Unsupported or UserError, as a start would."""
    container, image = deployment.container, image_for(adapter, deployment)
    site, _ = container_site(adapter, deployment, deployment.checkpoint)
    site = replace(site, checkpoint=str(MODELS / "CHECKPOINT") if adapter.checkpoint_format != "none" else site.checkpoint)
    if deployment.speculation is not None and deployment.speculation.draft:
        site = replace(site, draft=str(MODELS / "DRAFT"))
    launch = adapter.launch(deployment.inside, image.install, site)
    binds: tuple[Bind, ...] = (Bind("CHECKPOINT", site.checkpoint),) if adapter.checkpoint_format != "none" else ()
    binds += (Bind("DRAFT", site.draft),) if site.draft else ()
    user = {"caller": "UID:GID", "image": None}.get(container.user, container.user)
    around = _settings(adapter, deployment, image, site, binds, dict.fromkeys(container.secrets, "..."))
    around = replace(around, tag="LAUNCH", user=user, network="enginebench-LAUNCH")
    shown: dict[str, str] = {}
    first = None
    for who, argv, env in launch.commands:
        title = f"enginebench-{who or 'main'}"
        asked = arguments(container, around, name=title, argv=argv, env=env, folder=str(SITE / who), first=first)
        shown[who] = docker_run(asked, container.secrets)
        first = first or title
    return shown
