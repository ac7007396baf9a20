"""The container images of the engines: which there are, and building, pulling and pinning them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enginebench.domain import JSON, plain_object
from enginebench.engines import docker_images
from enginebench.engines.images import Image, Recipe, pin, read_images, recipe, resolve
from enginebench.engines.registry import Registry, constraints_of, discover
from enginebench.errors import UserError

Step = Callable[[str], None]


@dataclass(frozen=True)
class ListedImage:
    image: Image
    name: str | None
    """Name of the image that runs; None when no adapter is there to build it for."""
    state: Literal["built", "missing"] | None
    """None when there is no Docker daemon or no adapter."""

    @property
    def trust(self) -> Literal["pinned", "floating", "tag only"]:
        """How reproducible the base image is: by digest, by a tag that can move, or by a release tag."""
        return "pinned" if self.image.digest else "floating" if self.image.floating else "tag only"

    def to_dict(self) -> JSON:
        image = self.image
        return {**plain_object(image), "base": image.base, "floating": image.floating, "name": self.name, "here": self.state}


@dataclass(frozen=True)
class ImageList:
    images: tuple[ListedImage, ...]
    daemon_problem: str | None
    """Why the Docker daemon cannot be asked; None when it answered."""


def list_images(table: Path | None = None, adapters: Sequence[str | Path] = ()) -> ImageList:
    """All images of the table. table: another images.yaml; its Dockerfiles are in the same folder. adapters: further adapter files."""
    found, registry = read_images(table), discover(map(Path, adapters))
    try:
        daemon, problem = docker_images.SdkDaemon(), None
    except UserError as error:
        daemon, problem = None, error.message
    return ImageList(tuple(_listed(image, registry, daemon) for image in found.values()), problem)


def build_images(
    names: Iterable[str], *, table: Path | None = None, adapters: Sequence[str | Path] = (), on_step: Step = lambda _: None
) -> Iterator[tuple[Image, str, str]]:
    """Build images: the base image with our Dockerfile on top. Yields (image, name, id) as each is ready; existing images stay.

    names: 'engine/variant', an engine for all its variants, or 'all'. UserError without a Docker daemon or when a build fails.
    """
    wanted, registry, daemon = _named(names, table), discover(map(Path, adapters)), docker_images.SdkDaemon()
    for image in wanted:
        planned = _recipe(image, registry)
        yield image, planned.name, daemon.ensure(planned, on_step)


def pull_images(names: Iterable[str], *, table: Path | None = None, on_step: Step = lambda _: None) -> Iterator[Image]:
    """Pull base images, by digest where they are pinned. Yields each as it arrives. names, errors: as `build_images`."""
    wanted, daemon = _named(names, table), docker_images.SdkDaemon()
    for image in wanted:
        daemon.pull(image, on_step)
        yield image


def pin_images(names: Iterable[str], *, table: Path | None = None) -> Iterator[tuple[Image, str]]:
    """Write the digest that each tag has now into the table. Yields (image before, digest). names, errors: as `build_images`."""
    wanted, daemon = _named(names, table), docker_images.SdkDaemon()
    for image in wanted:
        digest = daemon.digest(image)
        pin(image, digest, table)
        yield image, digest


def _named(names: Iterable[str], table: Path | None) -> list[Image]:
    """The images that 'all', an engine or engine/variant names, each once, in the order asked for."""
    known = read_images(table)
    found: dict[str, Image] = {}
    for name in names:
        engine, _, variant = name.partition("/")
        same = [image for image in known.values() if name == "all" or (not variant and image.engine == engine)]
        found |= {image.key: image for image in same or [resolve(engine, variant or None, table)]}
    return list(found.values())


def _listed(image: Image, registry: Registry, daemon: docker_images.SdkDaemon | None) -> ListedImage:
    if image.engine not in registry:
        return ListedImage(image, None, None)
    name = _recipe(image, registry).name
    return ListedImage(image, name, None if daemon is None else "built" if daemon.image_id(name) else "missing")


def _recipe(image: Image, registry: Registry) -> Recipe:
    adapter = registry.need(image.engine)
    return recipe(image, adapter.requirements, constraints_of(adapter))
